"""The schema: Caffe's numbers, our numbers, the comments, and bytes that Caffe wrote."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from kdnet.schema import enum_name, field_names
from kdnet.schema import kdnet_pb2 as pb

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"


def declared():
    proto = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(proto)
    return proto


def field_row(message, field):
    kinds = descriptor_pb2.FieldDescriptorProto
    kind = kinds.Type.Name(field.type).removeprefix("TYPE_").lower()
    row = [
        f"{message.name}.{field.name} {field.number}",
        kinds.Label.Name(field.label).removeprefix("LABEL_").lower(),
        field.type_name.removeprefix(".kdnet.") or kind,
    ]
    row += ["packed"] if field.options.packed else []
    if field.HasField("default_value"):
        # Releases of protobuf print the same 32-bit number with more or with fewer digits.
        number = kind in ("float", "double")
        row.append(f"= {float(field.default_value):g}" if number else f"= {field.default_value}")
    return " ".join(row)


def rows(proto):
    for message in proto.message_type:
        yield from (field_row(message, field) for field in message.field)
        for enum in message.enum_type:
            yield from (f"{message.name}.{enum.name}.{v.name} = {v.number}" for v in enum.value)
    for enum in proto.enum_type:
        yield from (f"{enum.name}.{value.name} = {value.number}" for value in enum.value)


def numbered(row):
    """The message of a row, and the number of its field; 0 for the value of an enum."""
    name, number = row.split()[:2]
    return name.split(".")[0], 0 if number == "=" else int(number)


def test_caffes_numbers_types_and_defaults_never_change():
    golden = (GOLDEN / "schema_fields.txt").read_text().splitlines()
    caffes = {numbered(row)[0] for row in golden}
    in_caffes = [row for row in rows(declared()) if numbered(row)[0] in caffes]
    assert sorted(row for row in in_caffes if numbered(row)[1] < 10000) == golden
    assert not [row for row in in_caffes if numbered(row)[1] >= 19000]


def test_generated_module_is_the_proto(tmp_path):
    out = tmp_path / "schema.bin"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"]
    command += [f"--descriptor_set_out={out}", "kdnet.proto"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        if b"No module named" in error.stderr:
            pytest.skip("grpcio-tools is not installed")
        raise
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    assert list(rows(files.file[0])) == list(rows(declared()))


def test_generated_module_runs_on_every_protobuf():
    text = (ROOT / "kdnet" / "schema" / "kdnet_pb2.py").read_text()
    assert "runtime_version" not in text


def test_every_field_value_and_message_has_a_comment():
    lines = (ROOT / "proto" / "kdnet.proto").read_text().splitlines()
    for before, line in pairwise(lines):
        if re.match(r" *(optional|repeated|required|message|enum) ", line):
            assert re.fullmatch(r" *// \S.*", before), line
        elif re.match(r" *[A-Z0-9_]+ = \d+;", line):
            assert re.search(r"; *// \S", line), line


def test_comments_state_the_defaults():
    lines = (ROOT / "proto" / "kdnet.proto").read_text().splitlines()
    for before, line in pairwise(lines):
        found = re.search(r"\[default = (.*)\]", line)
        if found:
            said = re.search(r"[Dd]efault:? ([^\s(]+?)\.?(?:$| \()", before)
            assert said, line
            wanted, got = found[1].strip("'\""), said[1].strip('"')
            number = re.fullmatch(r"[-.0-9e]+", wanted)
            assert float(got) == float(wanted) if number else got == wanted, line


def test_serialising_caffes_bytes_again_gives_the_same_bytes():
    for name in ("v0", "v1", "v2"):
        data = (GOLDEN / f"schema_{name}.caffemodel").read_bytes()
        net = pb.NetParameter.FromString(data)
        assert net.SerializeToString() == data
        assert sum(len(layer.blobs) for layer in net.layer) > 2
        assert all(blob.data for layer in net.layer for blob in layer.blobs)


def test_caffes_bytes_hold_what_the_text_says():
    net = pb.NetParameter.FromString((GOLDEN / "schema_v2.caffemodel").read_bytes())
    conv = next(layer for layer in net.layer if layer.name == "conv")
    assert conv.type == "Convolution"
    assert conv.param[0].decay_mult == 250
    assert conv.convolution_param.weight_filler.variance_norm == pb.FillerParameter.AVERAGE
    assert list(conv.blobs[0].shape.dim) == [4, 3, 3, 2]
    assert len(conv.blobs[0].data) == 72


def test_blobs_of_forks_keep_their_numbers():
    blob = pb.BlobProto(raw_data_type=pb.BlobProto.FLOAT16, raw_data=b"\0<")
    assert blob.SerializeToString() == b"\x50\x02\x62\x02\0<"


def test_field_names_come_in_declaration_order():
    assert field_names(pb.LayerParameter)[:4] == ("name", "type", "bottom", "top")
    assert field_names(pb.BlobShape.DESCRIPTOR) == ("dim",)


def test_enum_names():
    assert enum_name(pb.Phase, pb.TEST) == "TEST"
    assert enum_name(pb.PoolingParameter.PoolMethod, 1) == "AVE"
    assert enum_name(pb.HingeLossParameter.Norm.DESCRIPTOR, 7) == "7"
