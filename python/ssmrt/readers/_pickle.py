"""A pickle interpreter that calls nothing and imports nothing.

It runs the opcodes of protocols 2 to 5 over plain Python data. Every name of a class or function becomes a
`Global`, a mere pair of strings. What would be a call or an instance is an inert `Record`, but for the few that the
caller's `Rules` make plain data of. All else raises `CheckpointError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..errors import CheckpointError

# A thousand tensors with both moments of Adam take some 120 thousand opcodes. An opcode makes at most a few hundred
# bytes beyond those it takes from the file, so these bound the memory too.
MAX_OPCODES = 1_000_000
MAX_BYTES = 64 << 20
MAX_INTEGER_BYTES = 255
MAX_KEY_ITEMS = 8


@dataclass(frozen=True)
class Global:
    """The name of a class or function. Never the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


_EMPTY: Mapping[Any, Any] = MappingProxyType({})


@dataclass(eq=False, slots=True)
class Record:
    """What the file wanted to be an instance of ``cls``, or what calling it gives. Nothing was called."""

    cls: Global
    args: tuple[Any, ...]
    # A file may ask for hundreds of thousands: the mappings are made when there is something in them.
    state: Mapping[Any, Any] = field(default_factory=lambda: _EMPTY)
    items: Mapping[Any, Any] = field(default_factory=lambda: _EMPTY)


class Refused(Exception):
    """The pickle asks for something that the rules do not allow."""


class Rules:
    """What is made in place of calls and instances: inert records. Each method raises `Refused`."""

    def call(self, function: Global, args: tuple[Any, ...]) -> Any:
        """What stands for ``function(*args)``."""
        return Record(function, args)

    def build(self, made: Any, state: Any) -> None:
        """Take ``state`` as the attributes of what `call` made."""
        if not isinstance(made, Record) or made.state:
            raise Refused(f"attributes set on {describe(made)}")
        if isinstance(state, dict):  # others are a class's own way, which nobody asks for
            made.state = state

    def persistent(self, pid: Any) -> Any:
        """What stands for the object that the file keeps elsewhere under ``pid``."""
        raise Refused("an object that is kept outside of the pickle")


def load(data: bytes, source: str, rules: Rules, start: int = 0, limit: int = MAX_BYTES) -> tuple[Any, int]:
    """The value of the pickle at ``start``, and where it ends, ``limit`` bytes later at most.

    ``source`` names the file in errors. Raises `CheckpointError` where the pickle is damaged or asks for what
    ``rules`` refuse. Nothing of it is ever called.
    """
    machine = _Machine(data, start, rules, limit)
    try:
        return machine.run(), machine.position
    except Refused as error:
        raise CheckpointError(f"{source}: refused at byte {machine.position} of the pickle: {error}") from None
    except (IndexError, KeyError, struct.error, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(
            f"{source}: damaged pickle at byte {machine.position}: {type(error).__name__}: {error}"
        ) from None


class _Machine:
    def __init__(self, data: bytes, start: int, rules: Rules, limit: int):
        self.position = start
        self._data = data
        self._end = min(len(data), start + limit)
        self._rules = rules
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_OPCODES):
            opcode = self._take(1)
            if opcode == b".":
                return self._stack.pop()
            handler = _HANDLERS.get(opcode)
            if handler is None:
                raise Refused(f"opcode {opcode!r} has no place in a checkpoint")
            handler(self)
        raise Refused(f"more than {MAX_OPCODES} opcodes")

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if end > self._end:
            raise IndexError(f"{size} bytes expected, {self._end - self.position} found")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def _line(self) -> str:
        end = self._data.index(b"\n", self.position, min(self._end, self.position + 1024))
        return self._take(end + 1 - self.position)[:-1].decode()

    def _number(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError(f"{count} values expected on the stack, {len(self._stack)} found")
        popped = self._stack[-count:]
        del self._stack[-count:]
        return popped

    def _pop_mark(self) -> list[Any]:
        popped = self._stack
        self._stack = self._marked.pop()
        return popped

    def _protocol(self) -> None:
        if (version := self._number("B")) > 5:
            raise Refused(f"pickle protocol {version}; known are 2 to 5")

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _integer(self, code: str) -> None:
        size = self._number(code)
        if not 0 <= size <= MAX_INTEGER_BYTES:
            raise Refused(f"an integer of {size} bytes")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def _bytes(self, code: str) -> None:
        size = self._number(code)
        if size < 0:
            raise ValueError(f"a size of {size}")
        self._push(self._take(size))

    def _text(self, code: str) -> None:
        self._bytes(code)
        self._push(self._stack.pop().decode("utf-8", "surrogatepass"))

    def _string(self, code: str) -> None:
        self._bytes(code)
        self._push(self._stack.pop().decode("latin-1"))

    def _tuple(self, count: int) -> None:
        self._push(tuple(self._pop(count)))

    def _dict(self) -> None:
        items = self._pop_mark()
        self._push({})
        self._set(items)

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Record):  # a list of a class of its own: nobody asks for its items
            return
        if type(target) is not list:
            raise Refused(f"items appended to {describe(target)}")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Record):
            if target.items is _EMPTY:
                target.items = {}
            target = target.items
        if not isinstance(target, dict):
            raise Refused(f"items set in {describe(target)}")
        if len(items) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            if not _is_key(key):
                raise Refused(f"{describe(key)} as the key of a dict")
            target[key] = value

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise Refused("the name of a global that is not a string")
        self._push(Global(module, name))

    def _call(self) -> None:
        function, args = self._pop(2)
        if type(args) is not tuple or not isinstance(function, Global | Record):
            raise Refused(f"a call of {describe(function)}")
        # What a record would have returned, had it been called, is as inert as it.
        if isinstance(function, Record):
            self._push(Record(function.cls, args))
        else:
            self._push(self._rules.call(function, args))

    def _call_with_names(self) -> None:
        function, args, names = self._pop(3)
        if type(args) is not tuple or type(names) is not dict or not isinstance(function, Global):
            raise Refused(f"a call of {describe(function)}")
        self._push(Record(function, (*args, names)))

    def _build(self) -> None:
        state = self._stack.pop()
        self._rules.build(self._stack[-1], state)


def describe(value: Any) -> str:
    """A value's kind for error messages; never its content, which is the file's."""
    if isinstance(value, Global):
        return f"global {str(value)[:200]!r}"
    if isinstance(value, Record):
        return f"an instance of {str(value.cls)[:200]!r}"
    return f"a {type(value).__name__}"


def _is_key(value: Any) -> bool:
    # Nested tuples are kept out: their hash takes time and C stack exponential and linear in the nesting.
    if type(value) is tuple:
        return len(value) <= MAX_KEY_ITEMS and all(type(item) is not tuple and _is_key(item) for item in value)
    if type(value) is int:
        return value.bit_length() <= 64
    return value is None or isinstance(value, Global | Record) or type(value) in (str, bytes, float, bool)


_HANDLERS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine._protocol,
    b"\x95": lambda m: m._number("Q"),
    b"(": _Machine._mark,
    b"0": lambda m: m._pop(1).clear(),
    b"1": lambda m: m._pop_mark().clear(),
    b"2": lambda m: m._push(m._stack[-1]),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"J": lambda m: m._push(m._number("i")),
    b"K": lambda m: m._push(m._number("B")),
    b"M": lambda m: m._push(m._number("H")),
    b"\x8a": lambda m: m._integer("B"),
    b"\x8b": lambda m: m._integer("i"),
    b"G": lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    b"U": lambda m: m._string("B"),
    b"T": lambda m: m._string("i"),
    b"\x8c": lambda m: m._text("B"),
    b"X": lambda m: m._text("I"),
    b"\x8d": lambda m: m._text("Q"),
    b"C": lambda m: m._bytes("B"),
    b"B": lambda m: m._bytes("I"),
    b"\x8e": lambda m: m._bytes("Q"),
    b"\x96": lambda m: m._bytes("Q"),
    b")": lambda m: m._push(()),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"t": lambda m: m._push(tuple(m._pop_mark())),
    b"]": lambda m: m._push([]),
    b"l": lambda m: m._push(m._pop_mark()),
    b"a": lambda m: m._extend(m._pop(1)),
    b"e": lambda m: m._extend(m._pop_mark()),
    # Sets become lists: their elements need no hash then.
    b"\x8f": lambda m: m._push([]),
    b"\x90": lambda m: m._extend(m._pop_mark()),
    b"\x91": lambda m: m._push(m._pop_mark()),
    b"}": lambda m: m._push({}),
    b"d": _Machine._dict,
    b"s": lambda m: m._set(m._pop(2)),
    b"u": lambda m: m._set(m._pop_mark()),
    b"q": lambda m: m._put(m._number("B")),
    b"r": lambda m: m._put(m._number("I")),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"h": lambda m: m._push(m._memo[m._number("B")]),
    b"j": lambda m: m._push(m._memo[m._number("I")]),
    b"c": lambda m: m._find(m._line(), m._line()),
    b"\x93": lambda m: m._find(*m._pop(2)),
    b"Q": lambda m: m._push(m._rules.persistent(m._stack.pop())),
    b"R": _Machine._call,
    b"\x81": _Machine._call,
    b"\x92": _Machine._call_with_names,
    b"b": _Machine._build,
}
