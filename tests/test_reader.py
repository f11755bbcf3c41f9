"""The located reader: what it reads, what it refuses, where it says things are."""

import os
from pathlib import Path

import pytest

from kdnet.errors import SchemaError
from kdnet.schema import (
    SourceMap,
    read_net,
    read_solver,
    read_text,
)
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.files import LARGEST_TEXT_BYTES

CASES = Path(__file__).parent / "cases" / "reader"
GOLDEN = Path(__file__).parent / "golden"
READERS = {"net": read_net, "solver": read_solver}


def read(text, message_type=pb.NetParameter):
    return read_text(text, "net.prototxt", message_type)


def codes(text, message_type=pb.NetParameter):
    with pytest.raises(SchemaError) as caught:
        read(text, message_type)
    return [fault.code for fault in caught.value.diagnostics]


# Faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.prototxt")))
def test_golden_faults(name, monkeypatch):
    monkeypatch.chdir(CASES)
    file = f"{name}.prototxt"
    with open(file, encoding="utf-8") as stream:
        reader = READERS[stream.readline().split()[-1]]
    with pytest.raises(SchemaError) as caught:
        reader(file)
    assert f"{caught.value}\n" == (CASES / f"{name}.txt").read_text(encoding="utf-8")


def test_every_case_has_a_golden_file_and_the_other_way_round():
    assert {p.stem for p in CASES.glob("*.prototxt")} == {p.stem for p in CASES.glob("*.txt")}


@pytest.mark.parametrize(
    "escape", [r"\q", r"\x", r"\u12", r"\ud800", r"\udc00\ud800", r"\U00110000", r"\777", r"\8"]
)
def test_bad_escapes(escape):
    assert codes(f'name: "a{escape}"') == ["bad-escape"]


@pytest.mark.parametrize("text", ["name: $", 'name: "a" \0', "\ufeff\ufeff", "name: é", "\u00a0"])
def test_letters_that_mean_nothing(text):
    assert "syntax-error" in codes(text)


def test_nesting_without_end_is_stepped_over():
    assert codes("foo " + "{" * 200_000) == ["unknown-field", "syntax-error"]
    assert codes("foo " + "{" * 200_000 + "}" * 200_000) == ["unknown-field"]


def test_digits_without_end_are_refused():
    assert codes(f"force_backward: {'1' * 100_000}") == ["bad-value"]
    assert codes(f"input_dim: {'1' * 100_000}") == ["number-out-of-range"]
    assert codes(f"loss_weight: {'1' * 100_000}", pb.LayerParameter) == ["number-out-of-range"]


def test_reading_stops_where_nothing_makes_sense():
    found = codes("wrong: 1\n" * 10_000)
    assert 20 < len(found) <= 1000


def test_a_faulty_second_value_leaves_no_message():
    assert codes('name: "a" name: 3') == ["duplicate-field", "bad-value"]


# Files -----------------------------------------------------------------------------------------


def file_fault(path, reader=read_net):
    with pytest.raises(SchemaError) as caught:
        reader(path)
    return str(caught.value)


def test_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lenet.prototxt").touch()
    assert file_fault("leNet.prototext") == (
        'error: there is no file "leNet.prototext" [file-not-found]\n'
        'help: did you mean "lenet.prototxt"?'
    )
    assert file_fault("nowhere/net.prototxt") == (
        'error: there is no file "nowhere/net.prototxt" [file-not-found]\n'
        'help: there is no folder "nowhere"'
    )
    assert file_fault("zzz") == 'error: there is no file "zzz" [file-not-found]'


def test_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    assert file_fault("nets") == 'error: "nets" is a folder, not a prototxt [not-a-file]'
    (tmp_path / "nets" / "a.prototxt").touch()
    assert file_fault("nets").endswith("\nhelp: it holds a.prototxt")


@pytest.mark.parametrize("path", ["bad\0name", "x" * 5000])
def test_impossible_path(path):
    assert "[unreadable-file]" in file_fault(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file(tmp_path):
    path = tmp_path / "net.prototxt"
    path.touch(mode=0)
    assert "Permission denied [unreadable-file]" in file_fault(path)


def test_huge_file(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b" " * (LARGEST_TEXT_BYTES + 1))
    assert "is larger than 16 MiB [file-too-large]" in file_fault(path)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ((GOLDEN / "schema_v2.caffemodel").read_bytes(), "a binary NetParameter (.caffemodel)"),
        (
            pb.SolverState(iter=3, learned_net="a", history=[{"data": [0]}]).SerializeToString(),
            "a binary SolverState (.solverstate)",
        ),
        (
            pb.BlobProto(num=1, data=[0.5] * 2000).SerializeToString(),
            "a binary BlobProto (.binaryproto)",
        ),
        # As old writers did it: every number with a tag of its own.
        (b"\x2d\0\0\0\0" * 2 + b"\x3a\x03\x0a\x01\x02", "a binary BlobProto (.binaryproto)"),
        (b"\x41" + b"\0" * 8 + b"\x3a\x03\x0a\x01\x02", "a binary BlobProto (.binaryproto)"),
        (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file (.h5)"),
        (b"PK\x03\x04\0", "a zip archive (.npz)"),
        (b"\x1f\x8b\0", "a gzip archive"),
        (b"\xff\xfel\0a\0", "text in UTF-16; save it as UTF-8"),
    ],
)
def test_binary_files_are_named(tmp_path, monkeypatch, data, kind):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_bytes(data)
    assert file_fault("net.prototxt") == (
        f'error: "net.prototxt" is no prototxt: this looks like {kind} [not-a-text-file]'
    )


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (
            b'name: "a"\nname: "caf\xe9"',
            "2:11: error: the file is no text: byte 0xe9 is not UTF-8",
        ),
        (b'name: "a"\n\n x\0', "3:3: error: the file is no text: a NUL character"),
        ("é\0".encode(), "1:2: error: the file is no text: a NUL character"),
        (b"a" * 5000 + b"\0", "1:5001: error: the file is no text: a NUL character"),
        (b"\x0a\x80\0\x80" + b"\x80" * 12, "2:2: error: the file is no text: a NUL character"),
        (b"\0\x80", "1:1: error: the file is no text: a NUL character"),
        (b"\xff\0", "1:2: error: the file is no text: a NUL character"),
    ],
)
def test_bytes_that_are_no_text(tmp_path, monkeypatch, data, where):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_bytes(data)
    assert file_fault("net.prototxt") == (
        f"net.prototxt:{where} [not-a-text-file]\nhelp: a prototxt is text in UTF-8"
    )


def test_marks_and_line_ends_of_other_systems(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'\xef\xbb\xbfname: "a"\r\n# text\r\nlayer { type: 3 }\r\n')
    lines = file_fault(path).splitlines()
    assert lines[0].startswith(f"{path}:3:15: error:")
    assert lines[1] == "  3 | layer { type: 3 }"


# Places ----------------------------------------------------------------------------------------

PLACED = """\
name: "net"
layer {
  name: "conv"
  bottom: "a" bottom: "b"
  convolution_param { num_output: 20 kernel_size: [3, -0] }
}
layer: [{ top: "x"
  'y' }, < >]
input_shape { dim: 1 dim: 3 }
"""


@pytest.mark.parametrize(
    ("path", "line", "column", "length"),
    [
        (("name",), 1, 7, 5),
        (("layer", 0), 2, 1, 5),
        (("layer",), 2, 1, 5),
        (("layer", 0, "name"), 3, 9, 6),
        (("layer", 0, "bottom", 1), 4, 23, 3),
        (("layer", 0, "bottom"), 4, 11, 3),
        (("layer", 0, "convolution_param"), 5, 3, 17),
        (("layer", 0, "convolution_param", "num_output"), 5, 35, 2),
        (("layer", 0, "convolution_param", "kernel_size", 1), 5, 55, 2),
        (("layer", 1), 7, 9, 1),
        (("layer", 1, "top", 0), 7, 16, 9),
        (("layer", 2), 8, 10, 1),
        (("input_shape", 0, "dim", 1), 9, 27, 1),
        (("layer", 0, "convolution_param", "pad", 0), 5, 3, 17),
        (("layer", 0, "bottom", 2), 2, 1, 5),
        (("layer", 9), 1, 1, 1),
        (("state", "phase"), 1, 1, 1),
    ],
)
def test_places(path, line, column, length):
    source = read(PLACED).source
    span = source.span(path)
    assert (span.line, span.column, span.length) == (line, column, length)
    assert span.file == "net.prototxt"
    assert span.text == PLACED.split("\n")[line - 1]
    for cut in range(len(path)):
        assert source.at(path[:cut]).span(path[cut:]) == span


def test_without_a_file_there_are_no_places():
    assert SourceMap.empty().span(("layer", 0, "name")) is None
    assert SourceMap.empty().at(("layer", 0)).span() is None


def test_maps_are_built_from_parts():
    source = read(PLACED).source
    moved = SourceMap.empty().with_child(("layer", 4, "top", 0), source.child("name"))
    assert moved.span(("layer", 4, "top", 0)) == source.span(("name",))
    assert moved.span(("layer", 4)) is None
    without = source.with_child(("layer", 0, "bottom", 1), None)
    assert without.span(("layer", 0, "bottom", 1)) == source.span(("layer", 0))
    assert source.span(("layer", 0, "bottom", 1)).column == 23
    assert source.child("layer", 0, "name", 0, "x") is None
