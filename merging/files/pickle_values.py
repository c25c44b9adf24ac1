"""The plain values in a pickle, worked out from its opcodes: nothing is imported, called or run.

A pickle is a program. Here it is followed with inert pieces: a name stays a name, and a call
becomes whatever the reader of this kind of file says about that name (a record of a tensor, a
dict, nothing). What a reader does not know is refused. So code in a file cannot run, not because
it is recognised, but because there is nothing that could run it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Call = Callable[[tuple[object, ...]], object]

_MAX_STEPS = 600_000  # a state dict takes about 40 per tensor
_MAX_MARKS = 1000  # that are open at once
_MAX_DIGITS = 32  # bytes of a whole number
_LARGEST_KEY = 1 << 40  # larger whole numbers can be made to collide in a dict
_END = 0x2E


class PickleRefusedError(ValueError):
    """What a pickle holds that is not read; the message is a clause that says what."""


@dataclass(frozen=True)
class Inert:
    """Something that was named in a pickle, and never made.

    Attributes:
        name: What it was called, with its module.
    """

    name: str


@dataclass
class Stateful:
    """A record that is still to be given its state.

    Attributes:
        state: What the pickle gave it, once it did.
    """

    state: object = field(default=None, init=False)


@dataclass(frozen=True)
class Named:
    """A name in a pickle, and what a call of it makes.

    Attributes:
        name: The name, with its module.
        call: Given the arguments, what is made.
    """

    name: str
    call: Call


def plain_values(
    pickled: bytes,
    names: Callable[[str, str], Call],
    stored: Callable[[object], object] | None = None,
) -> Any:
    """Work out what a pickle describes.

    Args:
        pickled: The pickle, of protocol 2 or newer.
        names: Told a name with its module, and the last text before it, returns what a call of
            that name makes; raises for a name that is not to be read.
        stored: Makes something of a reference to data outside the pickle; such are refused
            without it.

    Returns:
        Numbers, text, bytes, tuples, lists and dicts, and what `names` and `stored` made. Keys of
        dicts that are neither text nor small whole numbers are left out with their values.

    Raises:
        PickleRefusedError: If the pickle is damaged, too long, or does something that plain data
            do not need.

    Example:
        >>> import pickle
        >>> plain_values(pickle.dumps({"a": [1, 2.5, None]}), lambda name, near: Inert)
        {'a': [1, 2.5, None]}
    """
    return _Follower(pickled, names, stored).follow()


def inert(name: str) -> Call:
    """Return a call that makes nothing.

    Example:
        >>> inert("argparse.Namespace")((1, 2))
        Inert(name='argparse.Namespace')
    """
    return lambda _: Inert(name)


class _Follower:
    def __init__(
        self,
        pickled: bytes,
        names: Callable[[str, str], Call],
        stored: Callable[[object], object] | None,
    ) -> None:
        self.pickled, self.at, self.near = pickled, 0, ""
        self.names, self.stored = names, stored
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}

    def follow(self) -> Any:
        steps = _STEPS
        try:
            for _ in range(_MAX_STEPS):
                op = self.pickled[self.at]
                self.at += 1
                if op == _END:
                    return self.stack.pop()
                steps[op](self)
        except IndexError:
            raise PickleRefusedError("it ends early, or takes what is not there") from None
        except KeyError:
            raise PickleRefusedError(_unread(op)) from None
        except (struct.error, UnicodeError, OverflowError) as error:
            raise PickleRefusedError(f"a value in it is damaged ({error})") from None
        raise PickleRefusedError(f"it has more than {_MAX_STEPS:,} steps")

    # --- reading ------------------------------------------------------------------------------

    def take(self, n: int) -> bytes:
        end = self.at + n
        if n < 0 or end > len(self.pickled):
            raise IndexError
        taken = self.pickled[self.at : end]
        self.at = end
        return taken

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def line(self) -> str:
        end = self.pickled.find(b"\n", self.at, self.at + 1000)
        if end < 0:
            raise PickleRefusedError("a name in it does not end")
        return self.take(end + 1 - self.at)[:-1].decode()

    def marked(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    # --- steps --------------------------------------------------------------------------------

    def mark(self) -> None:
        if len(self.below) >= _MAX_MARKS:
            raise PickleRefusedError("it is nested too deep")
        self.below.append(self.stack)
        self.stack = []

    def text(self, form: str) -> None:
        self.near = self.take(self.number(form)).decode("utf-8", "surrogatepass")
        self.stack.append(self.near)

    def long(self, form: str) -> None:
        length = self.number(form)
        if not 0 <= length <= _MAX_DIGITS:
            raise PickleRefusedError(f"a whole number in it has {length:,} bytes")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def tuple_of(self, n: int) -> None:
        if n > len(self.stack):
            raise IndexError
        self.stack[len(self.stack) - n :] = [tuple(self.stack[len(self.stack) - n :])]

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise PickleRefusedError("it adds to something that is not a list")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            pairs = zip(items[::2], items[1::2], strict=False)
            target.update((key, value) for key, value in pairs if _is_key(key))
        elif not isinstance(target, Inert):
            raise PickleRefusedError("it sets an item of something that is not a dict")

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise IndexError
        self.stack.append(self.memo[place])

    def named(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleRefusedError("it names something by a value that is not text")
        full = f"{module}.{name}"
        self.stack.append(Named(full, self.names(full, self.near)))

    def stack_named(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.named(module, name)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if isinstance(function, Inert):  # what a call of something inert returned
            self.stack.append(function)
        elif isinstance(function, Named) and isinstance(arguments, tuple):
            self.stack.append(function.call(arguments))
        else:
            raise PickleRefusedError("it calls something that is not a function")

    def call_with_names(self) -> None:
        if not isinstance(self.stack.pop(), dict):
            raise PickleRefusedError("it makes an object with unusual arguments")
        self.call()

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Stateful):
            target.state = state
        elif not isinstance(target, Inert) and not isinstance(state, dict):
            raise PickleRefusedError("it gives an object an unusual state")

    def refer(self) -> None:
        if self.stored is None:
            raise PickleRefusedError("it refers to data outside of it")
        self.stack.append(self.stored(self.stack.pop()))


def _is_key(key: object) -> bool:
    if isinstance(key, int):
        return abs(key) < _LARGEST_KEY
    return isinstance(key, str | bytes) or key is None


def _unread(op: int) -> str:
    if what := _REFUSED.get(op):
        return f"it {what}"
    return f"it holds a step ({op:#04x}) that plain data do not need"


_REFUSED = MappingProxyType({
    ord("i"): "makes an object of a class (INST)",
    ord("o"): "makes an object of a class (OBJ)",
    ord("P"): "refers to data by a line of text (PERSID)",
    0x82: "makes something by a number of the extension registry (EXT1)",
    0x83: "makes something by a number of the extension registry (EXT2)",
    0x84: "makes something by a number of the extension registry (EXT4)",
    0x97: "takes buffers from outside (NEXT_BUFFER)",
    0x98: "takes buffers from outside (READONLY_BUFFER)",
    ord("S"): "is written in the old text protocol (STRING)",
    ord("V"): "is written in the old text protocol (UNICODE)",
    ord("p"): "is written in the old text protocol (PUT)",
    ord("g"): "is written in the old text protocol (GET)",
    ord("I"): "is written in the old text protocol (INT)",
    ord("L"): "is written in the old text protocol (LONG)",
    ord("F"): "is written in the old text protocol (FLOAT)",
})


def _steps() -> Mapping[int, Callable[[_Follower], object]]:
    def pushes(make: Callable[[_Follower], object]) -> Callable[[_Follower], object]:
        def push(f: _Follower) -> None:
            value = make(f)  # which may change what the stack is
            f.stack.append(value)

        return push

    def pairs(f: _Follower) -> None:
        items = f.marked()
        f.stack.append({})
        f.set_items(items)

    steps: dict[int, Callable[[_Follower], object]] = {
        0x80: lambda f: f.take(1),  # PROTO
        0x95: lambda f: f.take(8),  # FRAME
        ord("("): _Follower.mark,
        ord("0"): lambda f: f.stack.pop(),
        ord("1"): lambda f: f.marked(),
        ord("2"): pushes(lambda f: f.stack[-1]),
        ord("N"): pushes(lambda _: None),
        0x88: pushes(lambda _: True),
        0x89: pushes(lambda _: False),
        ord("J"): pushes(lambda f: f.number("<i")),
        ord("K"): pushes(lambda f: f.number("<B")),
        ord("M"): pushes(lambda f: f.number("<H")),
        0x8A: lambda f: f.long("<B"),
        0x8B: lambda f: f.long("<i"),
        ord("G"): pushes(lambda f: f.number(">d")),
        ord("X"): lambda f: f.text("<I"),
        0x8C: lambda f: f.text("<B"),
        0x8D: lambda f: f.text("<Q"),
        ord("U"): pushes(lambda f: f.take(f.number("<B"))),  # Python 2's strings are bytes
        ord("T"): pushes(lambda f: f.take(f.number("<i"))),
        ord("C"): pushes(lambda f: f.take(f.number("<B"))),
        ord("B"): pushes(lambda f: f.take(f.number("<I"))),
        0x8E: pushes(lambda f: f.take(f.number("<Q"))),
        0x96: pushes(lambda f: f.take(f.number("<Q"))),
        ord(")"): pushes(lambda _: ()),
        0x85: lambda f: f.tuple_of(1),
        0x86: lambda f: f.tuple_of(2),
        0x87: lambda f: f.tuple_of(3),
        ord("t"): pushes(lambda f: tuple(f.marked())),
        ord("]"): pushes(lambda _: []),
        ord("l"): pushes(lambda f: f.marked()),
        ord("a"): lambda f: f.append([f.stack.pop()]),
        ord("e"): lambda f: f.append(f.marked()),
        ord("}"): pushes(lambda _: {}),
        ord("d"): pairs,
        ord("s"): lambda f: f.set_items([f.stack.pop(), f.stack.pop()][::-1]),
        ord("u"): lambda f: f.set_items(f.marked()),
        0x8F: pushes(lambda _: []),  # a set, as a list: nothing needs to be hashed
        0x90: lambda f: f.append(f.marked()),
        0x91: pushes(lambda f: f.marked()),
        ord("q"): lambda f: f.remember(f.number("<B")),
        ord("r"): lambda f: f.remember(f.number("<I")),
        0x94: lambda f: f.remember(len(f.memo)),
        ord("h"): lambda f: f.recall(f.number("<B")),
        ord("j"): lambda f: f.recall(f.number("<I")),
        ord("c"): lambda f: f.named(f.line(), f.line()),
        0x93: _Follower.stack_named,
        ord("R"): _Follower.call,
        0x81: _Follower.call,  # NEWOBJ
        0x92: _Follower.call_with_names,  # NEWOBJ_EX
        ord("b"): _Follower.build,
        ord("Q"): _Follower.refer,
    }
    return MappingProxyType(steps)


_STEPS = _steps()
