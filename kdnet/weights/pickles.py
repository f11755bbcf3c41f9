"""Reading the pickle of a PyTorch checkpoint without running it.

A pickle is a program for a stack machine, and two of its commands call whatever Python function
it names. This machine has no functions: it knows the commands that put dicts, lists, numbers and
texts together, and writes down as a record what a checkpoint says of a tensor. Any other name is
refused, whatever it is.

Source: Python's pickletools, which takes a pickle apart without running it; PyTorch's
``torch._utils`` and ``torch.serialization``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

# A checkpoint takes some 35 commands a tensor.
_MOST_COMMANDS = 1 << 21


class RefusedError(Exception):
    """The pickle wants something that is not a tensor: a name, or a command."""


class Storage(NamedTuple):
    """Numbers of one type, under a key of the archive."""

    dtype: str
    key: str


class View(NamedTuple):
    """A tensor: where in a storage its numbers lie, counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(NamedTuple):
    """Something that the pickle names, and that stays a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


_STORAGES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}
_MARK = object()


def read_pickle(program: bytes) -> Any:
    """What the program makes: dicts, lists, tuples, plain values and :class:`View` records.

    Raises:
        RefusedError: It names a function or a class that no tensor needs.
        ValueError: It is damaged, or too long.
    """
    import pickletools

    machine = _Machine()
    try:
        for count, (command, argument, _) in enumerate(pickletools.genops(program)):
            if count >= _MOST_COMMANDS:
                raise ValueError(f"more than {_MOST_COMMANDS} commands")
            if command.name == "STOP":
                return machine.pop()
            machine.step(command.name, argument)
    except (LookupError, TypeError, OverflowError, RecursionError, UnicodeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    raise ValueError("it has no end")


class _Machine:
    """The stack and the memory of a pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memory: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _VALUES:
            self._stack.append(_VALUES[name](argument))
        elif name in _COMMANDS:
            _COMMANDS[name](self, argument)
        else:
            raise RefusedError(f"the command {name}")

    def pop(self) -> Any:
        found = self._stack.pop()
        if found is _MARK:
            raise ValueError("a mark where a value should be")
        return found

    def _to_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError("no mark")
        found = self._stack[at + 1 :]
        del self._stack[at:]
        return found

    def get(self, index: int) -> None:
        self._stack.append(self._memory[index])

    def put(self, index: int) -> None:
        self._memory[index] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self.put(len(self._memory))

    def few(self, count: int) -> None:
        found = [self.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(found)))

    def many(self, _: Any) -> None:
        self._stack.append(tuple(self._to_mark()))

    def append(self, _: Any) -> None:
        value = self.pop()
        _a(list, self._stack[-1]).append(value)

    def appends(self, _: Any) -> None:
        values = self._to_mark()
        _a(list, self._stack[-1]).extend(values)

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        _a(dict, self._stack[-1])[_key(key)] = value

    def set_items(self, _: Any) -> None:
        values = self._to_mark()
        _a(dict, self._stack[-1]).update(zip(map(_key, values[::2]), values[1::2], strict=True))

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(_known(_Name(module, name)))

    def stack_name(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self._stack.append(_known(_Name(_a(str, module), _a(str, name))))

    def storage(self, _: Any) -> None:
        word, kind, key, *_ = self.pop()
        if _a(_Name, kind) not in _STORAGE_NAMES or word != "storage":
            raise RefusedError(f'an outside object of "{kind}"')
        dtype = _STORAGES[kind.name]
        self._stack.append(Storage(dtype, _a(str, key)))

    def reduce(self, _: Any) -> None:
        arguments, name = self.pop(), self.pop()
        if _a(_Name, name) not in _RECORDS:
            raise RefusedError(f'a call of "{name}"')
        self._stack.append(_RECORDS[name](*_a(tuple, arguments)))

    def build(self, _: Any) -> None:
        """A state dict's notes on versions, which say nothing of its tensors."""
        self.pop()
        _a(dict, self._stack[-1])


def _a(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} where {kind.__name__} should be")
    return value


def _key(value: Any) -> Any:
    """A key of a dict; looking at tuples within tuples could overflow the interpreter's stack."""
    if type(value) not in (str, int, float, bool):
        raise TypeError(f"{type(value).__name__} as a key")
    return value


def _known(name: _Name) -> _Name:
    if name not in _RECORDS and name not in _STORAGE_NAMES:
        raise RefusedError(f'the name "{name}"')
    return name


def _view(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> View:
    numbers = (_a(int, offset), *_a(tuple, shape), *_a(tuple, strides))
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a tensor's shape, strides or offset are no natural numbers")
    if len(shape) != len(strides):
        raise ValueError("a tensor has strides for other axes than its own")
    return View(_a(Storage, storage), offset, shape, strides)


_STORAGE_NAMES = frozenset(_Name("torch", name) for name in _STORAGES)
# The functions that a checkpoint may name, and what is noted instead of calling them.
_RECORDS: dict[_Name, Callable[..., Any]] = {
    _Name("collections", "OrderedDict"): dict,
    _Name("torch", "Size"): tuple,
    _Name("torch", "device"): lambda *_: None,
    _Name("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    _Name("torch._utils", "_rebuild_tensor_v2"): _view,
}
_IGNORED = frozenset(("FRAME", "PROTO"))
_VALUES: dict[str, Callable[[Any], Any]] = {
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "MARK": lambda _: _MARK,
    "NEWFALSE": lambda _: False,
    "NEWTRUE": lambda _: True,
    "NONE": lambda _: None,
    **dict.fromkeys(
        (
            *("BINBYTES", "BINFLOAT", "BININT", "BININT1", "BININT2", "BINUNICODE", "BINUNICODE8"),
            *("LONG1", "LONG4", "SHORT_BINBYTES", "SHORT_BINUNICODE"),
        ),
        lambda argument: argument,
    ),
}
_COMMANDS: dict[str, Callable[[_Machine, Any], None]] = {
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "BINGET": _Machine.get,
    "BINPERSID": _Machine.storage,
    "BINPUT": _Machine.put,
    "BUILD": _Machine.build,
    "GLOBAL": _Machine.name,
    "LONG_BINGET": _Machine.get,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "REDUCE": _Machine.reduce,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "STACK_GLOBAL": _Machine.stack_name,
    "TUPLE": _Machine.many,
    "TUPLE1": lambda machine, _: machine.few(1),
    "TUPLE2": lambda machine, _: machine.few(2),
    "TUPLE3": lambda machine, _: machine.few(3),
}


def write_pickle(tensors: Mapping[str, tuple[str, str, tuple[int, ...]]]) -> bytes:
    """The program that makes a dict of tensors.

    Args:
        tensors: name -> (key of its storage, type of its numbers, shape).
    """
    items = [_text(name) + _tensor(*facts) for name, facts in tensors.items()]
    return b"\x80\x02}(" + b"".join(items) + b"u."


def _tensor(key: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    kind = next(name for name, known in _STORAGES.items() if known == dtype)
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return b"".join(
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            b"(" + _text("storage") + f"ctorch\n{kind}\n".encode(),
            _text(key) + _text("cpu") + _integer(prod(shape)) + b"tQ",
            _integer(0),
            b"(" + b"".join(map(_integer, shape)) + b"t",
            b"(" + b"".join(map(_integer, strides)) + b"t",
            b"\x89ccollections\nOrderedDict\n)RtR",
        )
    )


def _text(text: str) -> bytes:
    content = text.encode()
    return b"X" + len(content).to_bytes(4, "little") + content


def _integer(number: int) -> bytes:
    """A natural number below 2^63."""
    if number < 1 << 31:
        return b"J" + number.to_bytes(4, "little")
    return b"\x8a\x08" + number.to_bytes(8, "little")
