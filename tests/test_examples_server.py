"""examples/server.py: 64 clients on the loopback, none of whose samples is dropped, and clients that misbehave."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from ssmrt import demo

client = pytest.importorskip("websockets.asyncio.client", reason="needs websockets")
exceptions = pytest.importorskip("websockets.exceptions")

PATH = Path(__file__).parents[1] / "examples" / "server.py"
CLIPS = demo.clips()
BLOCK = 400


def example() -> Any:
    spec = importlib.util.spec_from_file_location("server", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def served(slots: int, talk: Callable[[Any, str], Awaitable[None]]) -> None:
    """Runs what talks to a service of so many slots at an address."""

    async def both() -> None:
        service = example().Service(demo.spotter(), slots)
        async with await service.start("127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await asyncio.wait_for(talk(service, f"ws://127.0.0.1:{port}/"), 60)

    asyncio.run(both())


async def hear(address: str, samples: NDArray[np.float32], ahead: int = 1) -> list[dict[str, Any]]:
    """The answers to a clip, with up to ``ahead`` blocks sent before their answers are read."""
    blocks = [samples[at : at + BLOCK].tobytes() for at in range(0, len(samples), BLOCK)]
    answers = []
    async with client.connect(address, compression=None) as socket:
        facts = json.loads(await socket.recv())
        assert (facts["d_input"], facts["labels"]) == (1, list(demo.WORDS))
        for at in range(0, len(blocks), ahead):
            for block in blocks[at : at + ahead]:
                await socket.send(block)
            answers += [json.loads(await socket.recv()) for _ in blocks[at : at + ahead]]
    return answers


async def ending(socket: Any) -> tuple[int, int, str]:
    """The messages until the connection is closed, and why it was."""
    messages = 0
    with suppress(exceptions.ConnectionClosed):
        while True:
            await socket.recv()
            messages += 1
    return messages, socket.close_code, socket.close_reason


def test_64_clients_are_heard_to_the_last_sample() -> None:
    clips = [CLIPS[i % len(CLIPS)].samples for i in range(64)]

    async def talk(service: Any, address: str) -> None:
        # Some wait for each answer, some send far ahead and are made to wait.
        heard = await asyncio.gather(*(hear(address, clip, ahead=1 + 39 * (i % 2)) for i, clip in enumerate(clips)))
        expected = [demo.spotter().stream().push(clip.samples[:, None]) for clip in CLIPS]
        for i, answers in enumerate(heard):
            assert [answer["position"] for answer in answers] == list(range(BLOCK, 16000 + BLOCK, BLOCK))
            # Both streams go by blocks, of other lengths.
            wanted = expected[i % len(CLIPS)][BLOCK - 1 :: BLOCK]
            assert_allclose([answer["answer"] for answer in answers], wanted, atol=1e-4 * np.abs(wanted).max())
        assert service.free == 64

    served(64, talk)


def test_who_finds_no_slot_is_told_and_may_come_again() -> None:
    async def talk(service: Any, address: str) -> None:
        async with client.connect(address) as first:
            await first.recv()
            async with client.connect(address) as second:
                assert await ending(second) == (0, 1013, "all slots are taken")
        while not service.free:
            await asyncio.sleep(0.01)
        assert len(await hear(address, CLIPS[0].samples)) == 40

    served(1, talk)


@pytest.mark.parametrize(
    ("said", "query", "reason"),
    [
        ("hello", "", "expected a binary message of float32, found text"),
        (b"12345", "", "expected a multiple of 4 bytes, found 5"),
        (b"", "", "expected a multiple of 4 bytes, found 0"),
        (bytes(4), "?rate=fast", "rate: expected samples a second, found 'fast'"),
        (
            np.full(3, np.nan, np.float32).tobytes(),
            "",
            "expected finite samples with full scale at 1, found what has no finite answer",
        ),
        (bytes(4), "?rate=0", "rate: expected samples a second, found '0'"),
        # Cut where a close frame is full, and not within a letter.
        (bytes(4), "?rate=" + "%C3%A4%F0%9F%98%80" * 20, "rate: expected samples a second, found '" + "ä😀" * 13 + "ä"),
    ],
)
def test_who_sends_what_is_no_block_goes_and_the_others_stay(said: Any, query: str, reason: str) -> None:
    async def talk(service: Any, address: str) -> None:
        async def misbehave() -> None:
            async with client.connect(address + query) as socket:
                with suppress(exceptions.ConnectionClosed):
                    await socket.send(said)
                # The first message, where the address was right, and then the end.
                assert await ending(socket) == (not query, 1007, reason)

        answers, _ = await asyncio.gather(hear(address, CLIPS[0].samples), misbehave())
        assert answers[-1]["position"] == 16000

    served(2, talk)


def test_who_leaves_in_the_middle_of_a_block_frees_its_slot() -> None:
    async def talk(service: Any, address: str) -> None:
        async def leave() -> None:
            async with client.connect(address) as socket:
                await socket.recv()
                await socket.send(bytes(4 * 16000))
                socket.transport.abort()

        answers, _ = await asyncio.gather(hear(address, CLIPS[0].samples), leave())
        assert answers[-1]["position"] == 16000
        while service.free < 2:
            await asyncio.sleep(0.01)

    served(2, talk)


def test_a_client_of_another_rate_is_heard_at_its_own() -> None:
    async def talk(_: Any, address: str) -> None:
        answers = await hear(address + "?rate=20000", CLIPS[0].samples)
        expected = demo.spotter().stream(rate=0.8).push(CLIPS[0].samples[:, None])[-1]
        assert_allclose(answers[-1]["answer"], expected, atol=1e-4 * np.abs(expected).max())

    served(2, talk)
