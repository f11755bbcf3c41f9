"""The layer catalogue as text, made from the classes themselves."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field

from kdnet.errors import UsageError, did_you_mean, fail
from kdnet.layers.base import ANY, Arity, Layer
from kdnet.layers.registry import class_of_type, layer_types
from kdnet.schema import kdnet_pb2 as pb

KINDS = {
    Field.TYPE_BOOL: "bool",
    Field.TYPE_FLOAT: "float",
    Field.TYPE_DOUBLE: "double",
    Field.TYPE_STRING: "string",
    Field.TYPE_BYTES: "bytes",
    Field.TYPE_INT32: "int",
    Field.TYPE_INT64: "int",
    Field.TYPE_UINT32: "uint",
}


def arity_text(arity: Arity) -> str:
    """``2``, ``1 to 3`` or ``1 or more``."""
    low, high = arity if isinstance(arity, tuple) else (arity, arity)
    if low == high:
        return str(low)
    return f"{low} or more" if high >= ANY else f"{low} to {high}"


def _kind(field: Any) -> str:
    if field.type == Field.TYPE_MESSAGE:
        return str(field.message_type.name)
    if field.type == Field.TYPE_ENUM:
        return " | ".join(value.name for value in field.enum_type.values)
    return KINDS[field.type]


def _default(field: Any) -> str:
    if field.type == Field.TYPE_ENUM:
        return str(field.enum_type.values_by_number[field.default_value].name)
    if field.type == Field.TYPE_BOOL:
        return str(field.default_value).lower()
    if field.type == Field.TYPE_FLOAT:
        return f"{field.default_value:g}"
    return str(field.default_value)


def _field_line(field: Any) -> str:
    repeated = field.is_repeated
    text = f"{field.name}: {'repeated ' if repeated else ''}{_kind(field)}"
    plain = not repeated and field.type != Field.TYPE_MESSAGE
    return f"{text}, default {_default(field)}" if plain and field.has_default_value else text


def describe(type_name: str) -> str:
    """One layer: its documentation, arity and parameter fields.

    Raises:
        UsageError: no-such-layer, with the nearest known type.
    """
    if type_name not in layer_types():
        hint = did_you_mean(type_name, layer_types())
        fail(UsageError, "no-such-layer", f'there is no layer type "{type_name}"', help=hint)
    cls = class_of_type(type_name)
    lines = [type_name, "", inspect.cleandoc(cls.__doc__ or ""), ""]
    lines += [f"Bottoms: {arity_text(cls.bottoms)}", f"Tops: {arity_text(cls.tops)}"]
    fields = parameter_lines(cls)
    if fields:
        lines += ["", f"{cls.params_field} {{", *(f"  {line}" for line in fields), "}"]
    return "\n".join(lines)


def parameter_lines(cls: type[Layer]) -> list[str]:
    """The fields of the layer's parameter message, a line each."""
    if not cls.params_field:
        return []
    descriptor: Any = pb.LayerParameter.DESCRIPTOR.fields_by_name[cls.params_field]
    return [_field_line(field) for field in descriptor.message_type.fields]


def summary(type_name: str) -> str:
    """The first line of a layer's documentation."""
    return inspect.cleandoc(class_of_type(type_name).__doc__ or "").partition("\n")[0]


def with_names(text: str) -> str:
    """A document with every layer type between its ``<!-- layers -->`` marks."""
    names = textwrap.fill(", ".join(layer_types()) + ".", 110)
    block = f"<!-- layers -->\n{names}\n<!-- /layers -->"
    return re.sub(r"<!-- layers -->.*?<!-- /layers -->", block, text, flags=re.DOTALL)


def catalogue() -> str:
    """Every layer as Markdown: ``docs/layers.md``."""
    lines = ["# Layers", "", "Made by `kdnet layers --markdown`; do not edit.", ""]
    lines += ["| type | bottoms | tops | what it does |", "|---|---|---|---|"]
    for name in layer_types():
        cls = class_of_type(name)
        arities = f"{arity_text(cls.bottoms)} | {arity_text(cls.tops)}"
        lines.append(f"| [{name}](#{name.lower()}) | {arities} | {summary(name)} |")
    for name in layer_types():
        lines += ["", f"## {name}", "", "```text", *describe(name).split("\n")[2:], "```"]
    return "\n".join(lines) + "\n"
