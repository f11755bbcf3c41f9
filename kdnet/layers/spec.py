"""Nets written in Python: a function for every layer type, and what its calls amount to.

    from kdnet import layers as L
    n = kdnet.NetSpec()
    n.data, n.label = L.Data(source="train_lmdb", batch_size=64, ntop=2)
    n.score = L.InnerProduct(n.data, num_output=10)
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    print(n.to_proto())

A layer's message is made when its function is called, so that a wrong name is told where it
stands. It works as pycaffe's ``net_spec``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
from google.protobuf.message import Message

from kdnet.errors import did_you_mean
from kdnet.layers.registry import class_of_type, layer_types
from kdnet.schema import field_names
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.fields import Field, fields_of

_OWN_WORDS = ("ntop", "in_place")


class Top:
    """One blob that a layer produces."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> pb.NetParameter:
        """The net of all layers that this blob needs."""
        return to_proto(self)


class Function:
    """One layer: its type, its parameters, and the tops that it reads.

    Attributes:
        type_name: the layer type.
        inputs: what it reads.
        tops: what it produces.
        in_place: whether its tops are its bottoms.
    """

    def __init__(
        self, type_name: str, inputs: Sequence[Top], params: Mapping[str, Any], ntop: int
    ) -> None:
        for index, bottom in enumerate(inputs):
            if not isinstance(bottom, Top):
                hint = "; name one of its tops" if isinstance(bottom, tuple) else ""
                kind = type(bottom).__name__
                raise TypeError(f"L.{type_name}: bottom {index} is a {kind}, no top{hint}")
        own = dict(params)
        self.type_name = type_name
        self.inputs = tuple(inputs)
        self.in_place = bool(own.pop("in_place", False))
        self.tops = tuple(Top(self, index) for index in range(ntop))
        self._message = pb.LayerParameter(type=type_name)
        for name, value in own.items():
            _set_parameter(self._message, type_name, name, value)

    def to_proto(self) -> pb.NetParameter:
        """The net of all layers that this one needs, and itself."""
        return to_proto(self)

    def message(self, name: str, bottoms: Sequence[str], tops: Sequence[str]) -> pb.LayerParameter:
        """The layer, named and wired; a name among its parameters wins."""
        found = pb.LayerParameter(name=name, bottom=bottoms, top=tops)
        found.MergeFrom(self._message)
        return found


class NetSpec:
    """A net under construction: its attributes are its tops, and their names its blobs' names.

    Tops that were not assigned get names like "Convolution1".
    """

    tops: dict[str, Top | Function]

    def __init__(self) -> None:
        super().__setattr__("tops", {})

    def __setattr__(self, name: str, value: Top | Function) -> None:
        if not isinstance(value, Top | Function):
            count = f" of {len(value)} tops; assign each" if isinstance(value, tuple) else ""
            raise TypeError(f'"{name}" must be a top, not {type(value).__name__}{count}')
        self.tops[name] = value

    def __getattr__(self, name: str) -> Top:
        if name == "tops" or name.startswith("__"):
            # Looked for while a copy is made, when there is nothing yet.
            raise AttributeError(name)
        found = self.tops.get(name)
        if not isinstance(found, Top):
            raise AttributeError(f'the net has no top "{name}" yet{_near(name, self.tops)}')
        return found

    def __setitem__(self, name: str, value: Top | Function) -> None:
        setattr(self, name, value)

    def __getitem__(self, name: str) -> Top:
        try:
            return self.__getattr__(name)
        except AttributeError as error:
            raise KeyError(str(error)) from None

    def to_proto(self) -> pb.NetParameter:
        """The net of all assigned tops; its ``str`` is a prototxt."""
        names = {top: name for name, top in self.tops.items()}
        return _net(list(self.tops.values()), names)


def to_proto(*tops: Top | Function) -> pb.NetParameter:
    """The net of all layers that some tops need; its ``str`` is a prototxt."""
    return _net(tops, {})


def _net(tops: Sequence[Top | Function], names: Mapping[Top | Function, str]) -> pb.NetParameter:
    """Layers in the order in which they are needed, named in that order too."""
    named, counts = dict(names), Counter[str]()
    blobs: dict[Function, list[str]] = {}
    net = pb.NetParameter()

    def named_or_new(what: Top | Function, type_name: str) -> str:
        if what not in named:
            counts[type_name] += 1
            named[what] = f"{type_name}{counts[type_name]}"
        return named[what]

    for fn in _ordered([top.fn if isinstance(top, Top) else top for top in tops]):
        kind = fn.type_name
        bottoms = [blobs[top.fn][top.n] for top in fn.inputs]
        made = bottoms if fn.in_place else [named_or_new(top, kind) for top in fn.tops]
        layer = named.get(fn) or named_or_new(fn.tops[0] if fn.tops else fn, kind)
        blobs[fn] = list(made)
        net.layer.append(fn.message(layer, bottoms, made))
    return net


def _ordered(wanted: Sequence[Function]) -> Iterator[Function]:
    """Every function after those that it reads; deep nets do not meet Python's recursion limit."""
    done: set[Function] = set()
    waiting = list(reversed(wanted))
    while waiting:
        fn = waiting[-1]
        missing = [top.fn for top in fn.inputs if top.fn not in done]
        if fn not in done and missing:
            waiting.append(missing[0])
            continue
        waiting.pop()
        if fn not in done:
            done.add(fn)
            yield fn


class LayerFunction:
    """What ``L.Convolution`` is: called with bottoms and parameters, it gives the layer's tops.

    Parameters are the fields of the layer type's own parameter message, and any field of
    LayerParameter (``param``, ``loss_weight``, ``include``, ``transform_param`` ...). Messages
    are dicts, repeated fields are lists or one value, enums are numbers or their names.
    """

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name
        self.__name__ = type_name
        self.__doc__ = class_of_type(type_name).__doc__

    @overload
    def __call__(self, *bottoms: Top, ntop: Literal[1] = 1, **params: Any) -> Top: ...

    @overload
    def __call__(self, *bottoms: Top, ntop: Literal[0], **params: Any) -> Function: ...

    @overload
    def __call__(self, *bottoms: Top, ntop: int, **params: Any) -> tuple[Top, ...]: ...

    def __call__(
        self, *bottoms: Top, ntop: int = 1, **params: Any
    ) -> Top | Function | tuple[Top, ...]:
        """The layer's top, a tuple where ``ntop`` is above 1, the layer itself where it is 0."""
        fn = Function(self.type_name, bottoms, params, ntop)
        if ntop == 0:
            return fn
        return fn.tops[0] if ntop == 1 else fn.tops


def layer_type_list() -> list[str]:
    """Every layer type that kdnet knows, sorted."""
    return list(layer_types())


def layer_function(name: str) -> LayerFunction:
    """The function of a layer type.

    Raises:
        AttributeError: there is no such type; with the nearest known one.
    """
    known = () if name.startswith("_") else layer_types()
    if name not in known:
        raise AttributeError(f'there is no layer type "{name}"{_near(name, known)}')
    return LayerFunction(name)


class Constants:
    """What ``P.Pooling`` is: the values of a parameter message's enums, such as ``MAX``."""

    def __init__(self, name: str) -> None:
        message = getattr(pb, f"{name}Parameter", None)
        if message is None:
            ending = "Parameter"
            known = [found.removesuffix(ending) for found in dir(pb) if found.endswith(ending)]
            raise AttributeError(f'there is no message "{name}Parameter"{_near(name, known)}')
        self._name = name
        self._values: dict[str, int] = {
            value.name: value.number
            for enum in message.DESCRIPTOR.enum_types
            for value in enum.values
        }

    def __getattr__(self, name: str) -> int:
        if name.startswith("__") or name not in self._values:
            raise AttributeError(f'{self._name} has no value "{name}"{_near(name, self._values)}')
        return self._values[name]

    def __dir__(self) -> list[str]:
        return sorted(self._values)


class Parameters:
    """What ``from kdnet import params as P`` gives: a :class:`Constants` for each message."""

    def __getattr__(self, name: str) -> Constants:
        if name.startswith("_"):
            raise AttributeError(name)
        return Constants(name)


params = Parameters()


def _set_parameter(layer: pb.LayerParameter, type_name: str, name: str, value: Any) -> None:
    """A keyword of a layer function: pycaffe's rule of whose field it is."""
    field = class_of_type(type_name).params_field
    own = getattr(layer, field) if field else None
    where = f"L.{type_name}"
    if own is not None and not name.endswith("param") and name in field_names(type(own)):
        _assign(own, name, value, where)
    elif name in field_names(type(layer)):
        _assign(layer, name, value, where)
    else:
        known = [*(field_names(type(own)) if own is not None else ()), *_OWN_WORDS]
        known += field_names(type(layer))
        raise TypeError(_unknown(where, name, known))


def _near(word: str, known: Iterable[str]) -> str:
    return "".join(f"; {text}" for text in did_you_mean(word, known))


def _unknown(where: str, name: str, known: Sequence[str]) -> str:
    return f'{where} has no parameter "{name}"{_near(name, known)}'


def _assign(message: Message, name: str, value: Any, where: str) -> None:
    fields = fields_of(message.DESCRIPTOR)
    if name not in fields:
        raise TypeError(_unknown(where, name, list(fields)))
    field, place = fields[name], f"{where}, {name}"
    many = isinstance(value, list | tuple | np.ndarray)
    if many and not field.repeated:
        raise TypeError(f"{place}: takes one value, not {len(value)}")
    for one in value if many else [value]:
        if field.message is None:
            _set_scalar(message, field, one, place)
        else:
            whole = getattr(message, name)
            _fill(whole.add() if field.repeated else whole, one, place)


def _fill(message: Message, value: Any, place: str) -> None:
    message.SetInParent()
    if isinstance(value, Message):
        if value.DESCRIPTOR.full_name != message.DESCRIPTOR.full_name:
            raise TypeError(f"{place}: a {value.DESCRIPTOR.name} is given")
        message.MergeFrom(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            _assign(message, name, inner, place)
    else:
        raise TypeError(f"{place}: takes a dict, not {value!r}")


def _set_scalar(message: Message, field: Field, value: Any, place: str) -> None:
    plain = value.item() if isinstance(value, np.generic) else value
    if field.enum is not None and isinstance(plain, str):
        known = field.enum.values_by_name
        if plain not in known:
            raise ValueError(f'{place}: there is no value "{plain}"{_near(plain, known)}')
        plain = known[plain].number
    try:
        if field.repeated:
            getattr(message, field.name).append(plain)
        else:
            setattr(message, field.name, plain)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{place}: {error}") from None
