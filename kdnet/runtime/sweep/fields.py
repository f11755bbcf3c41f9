"""Fields of layers and solvers by name, and how a text becomes their value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from kdnet.errors import SchemaError, UsageError, did_you_mean, fail
from kdnet.layers import layer_class
from kdnet.net import LayerModel
from kdnet.runtime.sweep.values import FILE, Value
from kdnet.schema import Path, field_names, read_text
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.fields import Field, fields_of

# What joins layers to each other: every student of a sweep has the same wiring.
WIRING = ("name", "bottom", "top", "include", "exclude", "propagate_down")
_WORD = re.compile(r"[-+]?[\w.+-]+")


@dataclass(frozen=True)
class Edit:
    """One field of the layers of one name, and what it becomes."""

    layer: str
    path: Path
    value: object


def edited(layer: LayerModel, edits: tuple[Edit, ...]) -> LayerModel:
    """The layer with those of the edits that name it."""
    mine = [edit for edit in edits if edit.layer == layer.name]
    if not mine:
        return layer
    message = pb.LayerParameter()
    message.CopyFrom(layer.message)
    for edit in mine:
        apply(message, edit)
    return LayerModel(
        layer.name,
        message.type,
        layer.bottoms,
        layer.tops,
        message.phase if message.HasField("phase") else layer.phase,
        message,
        layer.source,
    )


def apply(message: pb.LayerParameter, edit: Edit) -> None:
    """Set the field in a layer's message."""
    inner: Any = message
    for step in edit.path[:-1]:
        inner = _element(inner, step) if isinstance(step, int) else getattr(inner, step)
    last = edit.path[-1]
    if isinstance(last, int):
        inner[last : last + 1] = [edit.value]
    elif fields_of(inner.DESCRIPTOR)[last].repeated:
        values = getattr(inner, last)
        # A loss may have further tops, whose weights stay.
        wanted = max(1, len(message.top)) if edit.path == ("loss_weight",) else 1
        kept = [*values[1:], *[0.0] * (wanted - max(1, len(values)))]
        values[:] = [edit.value, *kept]
    else:
        setattr(inner, last, edit.value)


def _element(values: Any, index: int) -> Any:
    while index >= len(values):
        values.add()
    return values[index]


def find_field(layer: LayerModel, dotted: str, value: Value) -> Path:
    """The path of a field that ``LAYER.field`` names, below the layer's message.

    Names of the layer's own parameters need no message before them.

    Raises:
        UsageError: unknown-sweep-field, swept-wiring.
    """
    own = layer_class(layer).params_field
    bases: dict[str, tuple[str, ...]] = dict.fromkeys(field_names(pb.LayerParameter), ())
    for base in filter(None, (own, "loss_param" if layer_class(layer).is_loss else "")):
        for name in field_names(getattr(layer.message, base)):
            bases.setdefault(name, (base,))
    steps = tuple(int(step) if step.isdecimal() else step for step in dotted.split("."))
    if steps[0] in WIRING:
        text = f'"{steps[0]}" wires layer "{layer.name}": all students of a sweep are wired alike'
        fail(UsageError, "swept-wiring", text, span=value.span)
    path = (*bases.get(str(steps[0]), ()), *steps)
    _check_path(layer, path, sorted(bases), value)
    return path


def _check_path(layer: LayerModel, path: Path, known: list[str], value: Value) -> None:
    """Every step exists, and the last is one number, word or text."""
    here: Any = layer.message.DESCRIPTOR
    field: Field | None = None
    for index, step in enumerate(path):
        if isinstance(step, int):
            _check_index(layer, path, index, value)
            continue
        if field is not None and field.repeated and isinstance(path[index - 1], str):
            _which(layer, path[:index], path[index:], value)
        names = fields_of(here) if here is not None else {}
        if step not in names:
            text = f'layer "{layer.name}" ({layer.type}) has no field "{step}"'
            hint = did_you_mean(step, known if index == 0 else names)
            fail(UsageError, "unknown-sweep-field", text, span=value.span, help=hint)
        field = names[step]
        here = field.message
    if here is not None:
        text = f'"{".".join(map(str, path))}" is a message, not a value'
        hint = (f"it has {', '.join(fields_of(here))}",)
        fail(UsageError, "unknown-sweep-field", text, span=value.span, help=hint)
    several = field is not None and field.repeated and isinstance(path[-1], str)
    if several and len(_at(layer.message, path)) > 1 and path != ("loss_weight",):
        _which(layer, path, (), value)


def _check_index(layer: LayerModel, path: Path, index: int, value: Value) -> None:
    values = _at(layer.message, path[:index])
    repeated = _is_list(values)
    if not repeated or int(path[index]) > len(values):
        found = f"{len(values)} of them" if repeated else "one"
        text = (
            f'layer "{layer.name}": no {".".join(map(str, path[: index + 1]))}, there is {found}'
        )
        fail(UsageError, "unknown-sweep-field", text, span=value.span)


def _which(layer: LayerModel, path: Path, rest: Path, value: Value) -> NoReturn:
    """Ask for the number of an element."""
    dotted = ".".join(map(str, path))
    text = f'layer "{layer.name}" may have several {dotted}'
    hint = (f"say which: {'.'.join(map(str, (layer.name, *path, 0, *rest)))}",)
    fail(UsageError, "unknown-sweep-field", text, span=value.span, help=hint)


def _at(message: pb.LayerParameter, path: Path) -> Any:
    """What lies at the path, in a copy; an element beyond the end has the defaults."""
    found: Any = pb.LayerParameter()
    found.CopyFrom(message)
    for step in path:
        found = _element(found, step) if isinstance(step, int) else getattr(found, step)
    return found


def layer_value(path: Path, value: Value) -> object:
    """What the text stands for in the field of a layer at ``path``.

    Raises:
        UsageError: bad-sweep-value.
    """
    return _parsed(pb.LayerParameter, [step for step in path if isinstance(step, str)], value)


def solver_value(field: str, value: Value) -> object:
    """What the text stands for in a field of the solver.

    Raises:
        UsageError: bad-sweep-value.
    """
    return _parsed(pb.SolverParameter, [field], value)


def _parsed(
    kind: type[pb.LayerParameter | pb.SolverParameter], names: list[str], value: Value
) -> object:
    """Read a prototxt that says nothing but this field."""
    descriptor: Any = kind.DESCRIPTOR
    for name in names[:-1]:
        descriptor = fields_of(descriptor)[name].message
    text = value.text
    if fields_of(descriptor)[names[-1]].parse is None:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        text = f'"{quoted}"'
    elif not _WORD.fullmatch(text):
        fault = f'"{names[-1]}" wants one value, not "{text}"'
        fail(UsageError, "bad-sweep-value", fault, span=value.span)
    opened = "".join(f"{name} {{ " for name in names[:-1])
    try:
        found: Any = read_text(
            f"{opened}{names[-1]}: {text}{' }' * (len(names) - 1)}", FILE, kind
        ).message
    except SchemaError as error:
        first = error.diagnostics[0]
        fail(UsageError, "bad-sweep-value", first.message, span=value.span, help=first.help)
    for name in names:
        found = getattr(found, name)
        found = found[0] if _is_list(found) else found
    return cast("object", found)


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes)
