"""Memory of generated C: every temporary in one work area, reused as soon as it is free.

emx-onnx-cgen gives each intermediate tensor a local array of its own and copies for every Reshape. Its entry
function is a list of declarations and a list of calls, from which lifetimes can be read off: `place` rewrites it
to take the temporaries from a buffer of the caller's and to make Reshapes mere casts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ..errors import ExportError

_ENTRY = r"^void {name}\((?P<parameters>[^)]*)\) \{{\n(?P<body>.*?)^\}}\n"
_DECLARATION = re.compile(r"    (\w+) (tmp\w+)((?:\[\d+\])+);")
_CALL = re.compile(r"    node(\d+)_\w+\((.*)\);")
_OPERATOR = re.compile(r"^ \* Node (\d+):\n \* OpType: (\w+)", re.M)
_PARAMETER = re.compile(r"(?:const )?\w+ (\w+)(?:\[.*)?$")
_DEFINITION = re.compile(r"^(EMX_NODE_FN void )(node\d+_\w+)(\([^)]*\))", re.M)
# A sum is written as one statement a term, through memory that the compiler cannot keep in a register.
_SUM = re.compile(r"^( +)(output\S+) = (.+);\n +\2 = (\w+)\(\2, (.+)\);$", re.M)
_WEIGHT = re.compile(r"^(extern )?const (EMX_UNUSED )?(?=\w+ weight\d)", re.M)


@dataclass(frozen=True)
class Placed:
    """The rewritten source, the entry's prototype, and the size of the work area in floats."""

    source: str
    prototype: str
    work: int


@dataclass
class _Tensor:
    kind: str
    shape: tuple[int, ...]
    first: int
    last: int
    offset: int = 0

    @property
    def size(self) -> int:
        return prod(self.shape)


def place(source: str, entry: str, states: Sequence[tuple[str, str]]) -> Placed:
    """Rewrite ``entry(...)`` to ``entry(..., float *work)``; (state, next state) may then share a buffer.

    Constants become private to the file. Raises `ExportError` where the source is not as expected.
    """
    found = re.search(_ENTRY.format(name=entry), source, re.M | re.S)
    if found is None:
        raise ExportError(f"the C generator wrote no function {entry!r} as expected; install emx-onnx-cgen 1.4")
    operators = dict(_OPERATOR.findall(source))
    declared: dict[str, tuple[str, tuple[int, ...]]] = {}
    calls: list[tuple[str, str, list[str]]] = []
    for line in found["body"].splitlines():
        if (declaration := _DECLARATION.fullmatch(line)) is not None:
            kind, name, dims = declaration.groups()
            declared[name] = kind, tuple(map(int, re.findall(r"\d+", dims)))
        elif (call := _CALL.fullmatch(line)) is not None:
            calls.append((line, operators.get(call[1], ""), call[2].split(", ")))
        elif line.strip():
            raise ExportError(f"the C generator wrote an unexpected line, {line.strip()!r}; install emx-onnx-cgen 1.4")
    parameters = [_PARAMETER.match(text.strip()) for text in found["parameters"].split(",")]
    outer = {match[1] for match in parameters if match is not None}

    origin: dict[str, str] = {}

    def root(name: str) -> str:
        while name in origin:
            name = origin[name]
        return name

    kept: list[tuple[str, str, list[str]]] = []
    casts: dict[int, list[str]] = {}
    for line, operator, arguments in calls:
        source_name, target = arguments[0], arguments[-1]
        if operator == "Reshape" and target in declared and (source_name in declared or source_name in outer):
            origin[target] = source_name
            casts.setdefault(len(kept), []).append(target)
        else:
            kept.append((line, line.split("(")[0].strip(), arguments))
    _check_in_place(kept, states, root)

    tensors: dict[str, _Tensor] = {}
    for at, (_, _, arguments) in enumerate(kept):
        for argument in arguments:
            name = root(argument)
            if name in declared and declared[name][0] == "float":
                tensor = tensors.setdefault(name, _Tensor(*declared[name], at, at))
                tensor.last = at
    work = _allocate(list(tensors.values()))

    lines = []
    for name, (kind, shape) in declared.items():
        if name in tensors:
            lines.append(_pointer(kind, name, shape, f"work + {tensors[name].offset}"))
        elif name not in origin:
            lines.append(f"    {kind} {name}{_dims(shape)};")
    for at in range(len(kept) + 1):
        for name in casts.get(at, []):
            kind = ("const " if root(name) in outer and not root(name).startswith("next_") else "") + declared[name][0]
            lines.append(_pointer(kind, name, declared[name][1], origin[name]))
        if at < len(kept):
            lines.append(kept[at][0])
    prototype = f"void {entry}({found['parameters']}, float *work)"
    body = f"{prototype} {{\n" + "\n".join(lines) + "\n}\n"
    before = _SUM.sub(r"\1\2 = \4(\3, \5);", source[: found.start()])
    before = _SUM.sub(r"\1\2 = \4(\3, \5);", before)
    written_in_place = {new for _, new in states}
    apart = {
        name
        for _, name, arguments in kept
        if arguments[-1] not in written_in_place and len(set(map(root, arguments))) == len(arguments)
    }
    before = _DEFINITION.sub(lambda match: _restricted(match) if match[2] in apart else match[0], before)
    rewritten = before + body + source[found.end() :]
    return Placed(_WEIGHT.sub(r"static const \2", rewritten), prototype, work)


def _restricted(definition: re.Match[str]) -> str:
    """The definition of a node whose arrays never overlap: restrict lets the compiler keep them in registers."""
    return definition[1] + definition[2] + re.sub(r"(?<=\w)\[", "[restrict ", definition[3])


def _check_in_place(
    kept: list[tuple[str, str, list[str]]], states: Sequence[tuple[str, str]], root: Callable[[str], str]
) -> None:
    for old, new in states:
        writes = [at for at, (_, _, arguments) in enumerate(kept) if arguments[-1] == new]
        reads = [at for at, (_, _, arguments) in enumerate(kept) if old in map(root, arguments)]
        if len(writes) != 1 or any(at > writes[0] for at in reads):
            raise ExportError(f"{old} is read after {new} is written: the two cannot share memory")


def _dims(shape: Sequence[int]) -> str:
    return "".join(f"[{size}]" for size in shape)


def _pointer(kind: str, name: str, shape: Sequence[int], value: str) -> str:
    if len(shape) == 1:
        return f"    {kind} *{name} = ({kind} *)({value});"
    inner = _dims(shape[1:])
    return f"    {kind} (*{name}){inner} = ({kind} (*){inner})({value});"


def _allocate(tensors: list[_Tensor]) -> int:
    """Give every tensor an offset such that those alive together do not overlap; largest first, lowest that fits."""
    placed: list[_Tensor] = []
    for tensor in sorted(tensors, key=lambda t: -t.size):
        offset = 0
        for other in sorted(placed, key=lambda t: t.offset):
            apart = other.last < tensor.first or tensor.last < other.first
            if not apart and other.offset < offset + tensor.size:
                offset = max(offset, other.offset + other.size)
        tensor.offset = offset
        placed.append(tensor)
    return max((tensor.offset + tensor.size for tensor in placed), default=0)
