"""Random messages of the schema, for properties of the reader and the writer."""

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

from kdnet.schema import kdnet_pb2 as pb

_SCALARS = {
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: st.text(max_size=8),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
}
_ROOTS = (pb.NetParameter, pb.SolverParameter, pb.LayerParameter, pb.V1LayerParameter, pb.Datum)


def _labels(descriptor):
    declared = descriptor_pb2.DescriptorProto()
    descriptor.CopyToProto(declared)
    return {field.name: field.label for field in declared.field}


def _value(draw, field):
    if field.enum_type is not None:
        return draw(st.sampled_from([value.number for value in field.enum_type.values]))
    return draw(_SCALARS[field.type])


def _fill(draw, message, size):
    labels = _labels(message.DESCRIPTOR)
    label = descriptor_pb2.FieldDescriptorProto
    fields = list(message.DESCRIPTOR.fields)
    chosen = draw(st.lists(st.sampled_from(fields), max_size=size, unique_by=lambda f: f.name))
    needed = [f for f in fields if labels[f.name] == label.LABEL_REQUIRED and f not in chosen]
    for field in chosen + needed:
        if labels[field.name] != label.LABEL_REPEATED:
            if field.message_type is None:
                setattr(message, field.name, _value(draw, field))
            else:
                getattr(message, field.name).SetInParent()
                _fill(draw, getattr(message, field.name), size - 1)
            continue
        for _ in range(draw(st.integers(1, 2))):
            if field.message_type is None:
                getattr(message, field.name).append(_value(draw, field))
            else:
                _fill(draw, getattr(message, field.name).add(), size - 1)


@st.composite
def messages(draw):
    """A valid message of one of the larger types."""
    message = draw(st.sampled_from(_ROOTS))()
    _fill(draw, message, 4)
    return message
