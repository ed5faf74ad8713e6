"""The decoders of the state-spaces/s4 repository's training code: what makes answers of the last layer's output."""

from __future__ import annotations

import re
from typing import Any, Literal, cast

from ..document import Node, Pool
from ..errors import ConfigRequired, UnsupportedError
from .config import Config
from .facts import as_list, facts
from .s4_options import IDENTITY, details, name_of
from .tensors import Tensors
from .torch_layers import linear

FACTS = facts(used="_name_ mode l_output", checked="d_output", idle="use_lengths d_model")

MODES = ("last", "first", "pool", "sum", "ragged")

WHY_MODE = "how the decoder makes one answer of a sequence is not in the file"
WHY_LENGTH = "whether the model answers once a sequence (0) or at every step (None) is not in the file"

# The data sets of the repository whose targets are a sequence as long as the input.
_EVERY_STEP: tuple[str, ...] = (
    "cifargen",
    "cifargenf",
    "delay",
    "enwik8",
    "lm1b",
    "ljspeech",
    "mackey",
    "maestro",
    "music",
    "ptb",
)
_EVERY_STEP += ("qautoaudio", "sc09", "scg", "text8", "wt2", "wt103")
# Those whose targets are shorter.
_SOME_STEPS = ("copying", "ecl", "etth", "ettm", "weather")


def decoder(t: Tensors, said: Config, model: Config, d: int, source: str) -> tuple[tuple[Node, ...], int]:
    """The nodes behind a backbone of ``d`` outputs, and the numbers in one answer.

    Raises `ConfigRequired` where the file does not say what becomes of a sequence, and `UnsupportedError`.
    """
    options = (as_list(model.raw("decoder")) if model is not said else []) + as_list(said.raw("decoder"))
    numbers = sorted({int(m[1]) for name in t.names if (m := re.match(r"decoder\.(\d+)\.", name))})
    if not options:
        options = [_kind(t, n, source) for n in numbers]
    elif all(name_of(option) is None for option in options):
        options = [{**details(option), "_name_": "sequence"} for option in options]
    if said.scope("task").raw("_name_") == "lm":
        options = [*options, "linear"]
    nodes: tuple[Node, ...] = ()
    for option in options:
        kind = name_of(option)
        if kind in IDENTITY:
            continue
        if kind not in ("sequence", "nd", "linear"):
            raise UnsupportedError(
                f"{source}: decoder {kind!r} is not supported; supported are sequence, nd, linear and id"
            )
        pooled: tuple[Pool, ...] = ()
        if kind == "sequence":
            pooled = _pool(option, said, source)
        elif kind == "nd" and details(option).get("mode", "pool") == "pool":
            pooled = (Pool("mean", name="pool"),)
        if pooled and any(isinstance(node, Pool) for node in nodes):
            raise UnsupportedError(f"{source}: two decoders that each make one answer of a sequence")
        nodes += pooled
        name = f"decoder.{numbers[0]}" if numbers else "decoder.0"
        if kind != "linear":
            name += ".output_transform"
        if t.scope(f"{name}.").names:
            layer = linear(t, name, f"{name} out", d, name)
            nodes, d = (*nodes, layer), layer.weight.shape[0]
            said.inner(details(option), FACTS, "decoder").agree("d_output", d, f"{name}.weight")
            numbers.pop(0)
        elif kind == "linear":
            raise t.misfit(f"{name}.weight", f"(d_output, {d})", "nothing")
    return nodes, d


def _kind(t: Tensors, number: int, source: str) -> str:
    names = t.scope(f"decoder.{number}.").names
    if any(name.startswith("output_transform.") for name in names):
        return "sequence"
    if "weight" in names:
        return "linear"
    raise UnsupportedError(f"{source}: decoder.{number} has {', '.join(names)}; supported are sequence, nd and linear")


def _pool(option: Any, said: Config, source: str) -> tuple[Pool, ...]:
    """One answer a sequence, or nothing where every step has its own."""
    scope = said.inner(details(option), FACTS, "decoder")
    mode = scope.get("mode", "last", choices=MODES, why=WHY_MODE)
    length = _l_output(scope, said, source)
    if mode == "ragged":
        return ()
    if length is None:
        if mode in ("pool", "sum"):
            raise UnsupportedError(
                f"{source}: decoder mode {mode!r} at every step is not supported; with mode 'last' and l_output None"
                " every step answers"
            )
        return ()
    modes = {"pool": "mean", "sum": "sum", "last": "last", "first": "first"}
    return (Pool(cast(Literal["mean", "sum", "last", "first"], modes[mode]), name="pool"),)


def _l_output(scope: Config, said: Config, source: str) -> int | None:
    """0 for one answer a sequence, None for one at every step."""
    dataset = said.scope("dataset")
    name = dataset.raw("_name_")
    told = next((c for c in (scope, dataset) if "l_output" in c), None)
    if told is not None:
        length = told.raw("l_output")
        if length is None or length == dataset.raw("__l_max"):
            return None
        if isinstance(length, bool) or not isinstance(length, int) or length < 0:
            raise told.wrong("l_output", "None, or a number of steps", length)
        if length > 1:
            raise UnsupportedError(
                f"{source}: l_output {length} is not supported; with l_output None every step answers, of which"
                f" upstream takes {length}"
            )
        return 0
    if name is None and said.silent:
        raise ConfigRequired("l_output", why=WHY_LENGTH, choices=(None, 0), default=None, path=("decoder",))
    if name in _SOME_STEPS:
        raise ConfigRequired("l_output", why=f"data set {name!r} says how many steps answer", path=("decoder",))
    return None if isinstance(name, str) and (name in _EVERY_STEP or "seq" in name.lower()) else 0
