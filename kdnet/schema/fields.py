"""What the reader and the writer know of a message type, gathered once per type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

from kdnet.schema.literals import Parser, scalar_parser


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message type.

    ``parse`` turns a scalar token into a value; it is None for messages and strings.
    """

    name: str
    repeated: bool
    required: bool
    message: Descriptor | None
    enum: EnumDescriptor | None
    type: int
    parse: Parser | None


@cache
def fields_of(descriptor: Descriptor) -> dict[str, Field]:
    """The fields of a message type by name, in the order of their declaration."""
    # The labels are read from the descriptor's own message: the attributes that hold them
    # differ among protobuf releases.
    declared = descriptor_pb2.DescriptorProto()
    descriptor.CopyToProto(declared)
    labels = {field.name: field.label for field in declared.field}
    return {
        field.name: Field(
            name=field.name,
            repeated=labels[field.name] == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
            required=labels[field.name] == descriptor_pb2.FieldDescriptorProto.LABEL_REQUIRED,
            message=field.message_type,
            enum=field.enum_type,
            type=field.type,
            parse=scalar_parser(field),
        )
        for field in descriptor.fields
    }


def is_bytes(field: Field) -> bool:
    """Whether the field holds bytes rather than text."""
    return field.type == FieldDescriptor.TYPE_BYTES


def field_names(message_type: type[Message] | Descriptor) -> tuple[str, ...]:
    """The field names of a message type, in the order of their declaration."""
    descriptor = message_type if isinstance(message_type, Descriptor) else message_type.DESCRIPTOR
    return tuple(fields_of(descriptor))


def enum_name(enum: EnumTypeWrapper | EnumDescriptor, number: int) -> str:
    """The name of an enum's value; the number itself where it has no name."""
    descriptor = enum if isinstance(enum, EnumDescriptor) else enum.DESCRIPTOR
    value = descriptor.values_by_number.get(number)
    return str(number) if value is None else str(value.name)
