"""A service that runs a model for many clients at once, each on a stream of its own, over WebSockets.

    pip install ssmrt websockets
    python examples/server.py model.ssm.safetensors --slots 64

A client connects to ws://localhost:8765/ (with ?rate=8000, if its samples are not those of the training), gets one
message of JSON that says what the model takes and gives, and then sends blocks: binary messages of little-endian
float32, (length, d_input), of any length. To each it gets one message back, JSON with the position of its last sample
and the answer there.

Admission is by slots: who comes when all are taken is told so, and may come again (close code 1013). Back-pressure is
the socket's own: the next block of a client is read when the one before is answered, so that whoever sends faster than
this machine hears has to wait, and no sample is dropped. What is no block ends that client's connection with a reason,
and the others go on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from os import cpu_count
from urllib.parse import parse_qs, urlsplit

import numpy as np
import ssmrt
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

# A message, and so what a client can make the service hold: 4 blocks of it.
MOST_BYTES = 1 << 20
QUEUED_BLOCKS = 4
# A close frame has room for so many bytes.
MOST_OF_REASON = 123


class Refused(Exception):
    """What a client sent cannot be heard."""


class Service:
    """A model and its free slots."""

    def __init__(self, model: ssmrt.Model, slots: int):
        self.model = model
        self.free = slots
        # The engine releases the interpreter's lock: clients are heard on all cores.
        self.threads = ThreadPoolExecutor(cpu_count())

    async def start(self, host: str, port: int) -> Server:
        """Listen; the server that is then running."""
        return await serve(self.meet, host, port, max_size=MOST_BYTES, max_queue=QUEUED_BLOCKS, compression=None)

    async def meet(self, client: ServerConnection) -> None:
        """One client, from its coming to its going."""
        if self.free == 0:
            await client.close(CloseCode.TRY_AGAIN_LATER, "all slots are taken")
            return
        self.free -= 1
        try:
            await self.listen(client)
        except Refused as error:
            await client.close(CloseCode.INVALID_DATA, str(error).encode()[:MOST_OF_REASON].decode(errors="ignore"))
        except ConnectionClosed:
            # Whether it said goodbye or not: its state goes with it.
            pass
        finally:
            self.free += 1

    async def listen(self, client: ServerConnection) -> None:
        """Answer each block."""
        model, stream = self.model, self.stream(client.request.path if client.request else "/")
        facts = {"d_input": model.d_input, "sample_rate": model.sample_rate, "labels": model.labels}
        await client.send(json.dumps(facts))
        loop = asyncio.get_running_loop()
        async for message in client:
            block = self.block(message)
            y = await loop.run_in_executor(self.threads, stream.push, block)
            if not np.isfinite(y[-1]).all():
                raise Refused("expected finite samples with full scale at 1, found what has no finite answer")
            await client.send(json.dumps({"position": int(stream.position[0]), "answer": y[-1].tolist()}))

    def stream(self, path: str) -> ssmrt.Stream:
        """A stream at the rate that a client asks for."""
        asked = parse_qs(urlsplit(path).query).get("rate")
        if asked is None:
            return self.model.stream()
        if self.model.sample_rate is None:
            raise Refused("rate: the model does not know the sampling rate of its training")
        try:
            return self.model.stream(rate=self.model.sample_rate / float(asked[0]))
        except (ValueError, ZeroDivisionError):
            raise Refused(f"rate: expected samples a second, found {asked[0][:40]!r}") from None
        except ssmrt.UnsupportedError as error:
            raise Refused(str(error)) from None

    def block(self, message: str | bytes) -> np.ndarray:
        """The samples (length, d_input) of a message."""
        if isinstance(message, str):
            raise Refused("expected a binary message of float32, found text")
        width = 4 * self.model.d_input
        if not message or len(message) % width:
            raise Refused(f"expected a multiple of {width} bytes, found {len(message)}")
        return np.frombuffer(message, "<f4").reshape(-1, self.model.d_input)


async def run(arguments: argparse.Namespace) -> None:
    """Serve until stopped."""
    model = ssmrt.load(arguments.model)
    # Where it cannot stream, that is said now and not to each client.
    model.stream()
    service = Service(model, arguments.slots)
    async with await service.start(arguments.host, arguments.port) as server:
        print(f"{service.model!r} for {arguments.slots} clients on port {arguments.port}", flush=True)
        await server.serve_forever()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint that ssmrt.load reads as it stands")
    parser.add_argument("--slots", type=int, default=64, help="clients at once (default: 64)")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8765)
    given = parser.parse_args()
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(run(given))
    except (ssmrt.SsmrtError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
