"""The process of one engine: prepares work, answers for it, and times calls, as the parent asks on stdin.

One JSON object a line comes in, one goes out. Times are nanoseconds a call, handed over as .npy files.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import work


class Skip(Exception):
    """The engine cannot do this work here; the text says why."""


@dataclass
class Job:
    """Work that is ready to be timed.

    ``call`` is given each of ``args`` in turn, for ever; ``output`` gives the answer that is compared.
    ``measure(seconds, calls)`` replaces the timing loop for engines that time themselves.
    """

    call: Callable[[Any], Any]
    args: Sequence[Any]
    output: Callable[[], work.Array] | None = None
    measure: Callable[[float, int], work.Array] | None = None
    warm_calls: int = 1


def timed(job: Job, seconds: float, least: int, most: int) -> work.Array:
    """Nanoseconds of each call: at least ``least`` calls, then until the time or ``most`` is reached."""
    clock, call = time.perf_counter_ns, job.call
    times: list[int] = []
    args = itertools.cycle(job.args)
    gc.collect()
    gc.disable()
    try:
        for arg in itertools.islice(args, job.warm_calls):
            call(arg)
        end = clock() + int(seconds * 1e9)
        while len(times) < most:
            for arg in itertools.islice(args, min(64, most - len(times))):
                start = clock()
                call(arg)
                stop = clock()
                times.append(stop - start)
                if stop > end and len(times) >= least:
                    return np.array(times, np.int64)
    finally:
        gc.enable()
    return np.array(times, np.int64)


def serve() -> None:
    """Answer until stdin ends."""
    # Libraries print; the parent hears only answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder = Path(sys.argv[2])
    engine: Any = None
    jobs: dict[str, Job] = {}
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            if engine is None:
                engine = importlib.import_module(f"engine_{sys.argv[1]}")
            reply: dict[str, Any] = {}
            if ask["do"] == "versions":
                reply = engine.versions()
            elif ask["do"] == "prepare":
                start = time.perf_counter()
                job = engine.prepare(ask["work"], ask["params"], folder)
                jobs[ask["key"]] = job
                first = time.perf_counter()
                if job.measure is None:
                    job.call(job.args[0])
                reply = {"prepare_s": first - start, "first_call_s": time.perf_counter() - first}
                if job.output is not None:
                    np.save(folder / ask["file"], job.output())
                    reply["output"] = ask["file"]
            elif ask["do"] == "time":
                job = jobs[ask["key"]]
                seconds, least, most = ask["seconds"], ask["least"], ask["most"]
                times = job.measure(seconds, most) if job.measure else timed(job, seconds, least, most)
                np.save(folder / ask["file"], times)
            elif ask["do"] == "forget":
                del jobs[ask["key"]]
            elif ask["do"] == "drop":
                jobs.clear()
                gc.collect()
            else:
                reply = engine.special(ask["do"], ask["params"], folder)
        except Skip as why:
            reply = {"skip": str(why)}
        except ImportError as why:
            reply = {"skip": f"not importable: {why}"}
        except Exception:
            reply = {"error": traceback.format_exc()}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
