"""kdnet weights: renaming layers of files, and what show prints."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables.formats import CASES, LAYERS, SAMPLE, message, wire_net

from kdnet.cli import main as kdnet
from kdnet.cli import weights as cli
from kdnet.errors import KdnetError, UsageError, WeightsError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import LayerBlobs, read_weights, write_caffemodel
from weights_tools import Mapping, Pair, make_mapping, rename_file, rename_layers
from weights_tools.mapping import parse_pair, parse_substitution, read_map_file

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "caffe" / "files" / "lenet_tiny_iter_3.caffemodel"
CAFFEMODELS = [case for case in CASES if case.format == "caffemodel"]


def mapping(**pairs: str) -> Mapping:
    return make_mapping(Pair(old, new) for old, new in pairs.items())


def codes(error: KdnetError) -> list[str]:
    return [found.code for found in error.diagnostics]


# Files


@pytest.mark.parametrize("case", CAFFEMODELS, ids=[case.id for case in CAFFEMODELS])
def test_only_names_change(case: object, tmp_path: Path) -> None:
    source, copy, back = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    case.build(source)
    renames = rename_file(str(source), str(copy), mapping(conv1="teacher/conv1" * 20, ip1="i"))
    assert renames == (("conv1", "teacher/conv1" * 20), ("ip1", "i"))
    layers = {layer.name: layer for layer in read_weights(str(copy)).layers if layer.blobs}
    assert set(layers) == {"teacher/conv1" * 20, "i"}
    assert len(copy.read_bytes()) > len(source.read_bytes()) + 200
    rename_file(str(copy), str(back), mapping(i="ip1", **{"teacher/conv1" * 20: "conv1"}))
    assert back.read_bytes() == source.read_bytes()


def test_a_file_may_be_renamed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_caffemodel(str(path), SAMPLE)
    rename_file(str(path), str(path), mapping(conv1="c"))
    assert [layer.name for layer in read_weights(str(path)).layers] == ["c", "ip1"]


@pytest.mark.skipif(not GOLDEN.is_file(), reason="no golden files of real Caffe here")
def test_a_file_of_real_caffe_equals_protobufs_own_rename(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    rename_file(str(GOLDEN), str(copy), make_mapping((), (), "teacher/{name}"))
    net = pb.NetParameter.FromString(GOLDEN.read_bytes())
    for layer in net.layer:
        layer.name = f"teacher/{layer.name}"
    assert copy.read_bytes() == net.SerializeToString()


def test_a_layer_without_a_name_gets_one(tmp_path: Path) -> None:
    source, copy = tmp_path / "a", tmp_path / "b"
    source.write_bytes(wire_net(message(2, b"ReLU"), message(1, b"x")))
    rename_file(str(source), str(copy), make_mapping((), (), "t/{name}"))
    assert [layer.name for layer in read_weights(str(copy)).layers] == ["t/", "t/x"]


def test_a_name_given_twice_is_replaced_twice(tmp_path: Path) -> None:
    source, copy = tmp_path / "a", tmp_path / "b"
    source.write_bytes(wire_net(message(1, b"old") + message(2, b"ReLU") + message(1, b"x")))
    rename_file(str(source), str(copy), mapping(x="y"))
    expected = wire_net(message(1, b"y") + message(2, b"ReLU") + message(1, b"y"))
    assert copy.read_bytes() == expected


@pytest.mark.parametrize("id_", ["hdf5", "npz"])
def test_other_formats_become_a_caffemodel(id_: str, tmp_path: Path) -> None:
    source, copy = tmp_path / "a", tmp_path / "b"
    next(case for case in CASES if case.id == id_).build(source)
    rename_file(str(source), str(copy), mapping(conv1="c"))
    file = read_weights(str(copy))
    assert file.format == "caffemodel"
    layers = {layer.name: layer for layer in file.layers if layer.blobs}
    np.testing.assert_array_equal(layers["c"].blobs[0], LAYERS["conv1"][0])


def test_damaged_files_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source, copy = tmp_path / "a", tmp_path / "b"
    copy.write_bytes(b"old")
    source.write_bytes(wire_net(message(1, b"a"), message(1, b"b") + b"\x3a\x7f")[:-1])
    with pytest.raises(WeightsError, match="truncated-weights"):
        rename_file(str(source), str(copy), mapping(a="b"))
    source.write_bytes(wire_net(message(1, b"a") + b"\x0b", message(1, b"b")))
    with pytest.raises(WeightsError, match="layer 0 at byte"):
        rename_file(str(source), str(copy), mapping(a="b"))
    assert copy.read_bytes() == b"old"


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    source, copy = tmp_path / "a", tmp_path / "b"
    values = np.zeros(40 << 20, np.float32)
    write_caffemodel(str(source), [LayerBlobs("fc", "InnerProduct", (values,))])
    script = (
        "import resource, sys\n"
        "from weights_tools import make_mapping, rename_file\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "rename_file(*sys.argv[1:], make_mapping((), (), 't/{name}'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", script, str(source), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert copy.stat().st_size == source.stat().st_size + 2
    assert int(done.stdout) < 16 * 1024


# Mappings


def test_layers_in_memory() -> None:
    layers, made = rename_layers(SAMPLE, mapping(ip1="teacher/ip1"))
    assert [layer.name for layer in layers] == ["conv1", "teacher/ip1"]
    assert layers[1].blobs is SAMPLE[1].blobs
    assert made == (("ip1", "teacher/ip1"),)


def test_names_may_be_swapped() -> None:
    assert mapping(a="b", b="a").resolve(["a", "b"]) == {"a": "b", "b": "a"}


def test_repeated_names_stay_repeated() -> None:
    assert mapping(a="b").resolve(["a", "c", "a"]) == {"a": "b", "c": "c"}


def test_pairs_settle_their_layer_before_patterns() -> None:
    rules = make_mapping(
        [Pair("ip1", "head")], [parse_substitution("s/conv/c/")], "teacher/{name}"
    )
    assert rules.resolve(["conv1", "ip1", "relu"]) == {
        "conv1": "teacher/c1",
        "ip1": "head",
        "relu": "teacher/relu",
    }


@pytest.mark.parametrize(
    ("text", "name", "new"),
    [
        (r"s/^/teacher\//", "conv1", "teacher/conv1"),
        ("s|^|teacher/|", "conv1", "teacher/conv1"),
        (r"s/conv(\d)_(\d)/conv_st_\1_\2/", "conv1_2", "conv_st_1_2"),
        ("s/a/b/", "aaa", "baa"),
        ("s/a/b/g", "aaa", "bbb"),
        ("s/A/b/gi", "aaa", "bbb"),
        ("s/_t$//", "conv1_t", "conv1"),
        (r"s#\##-#g", "a#b#", "a-b-"),
    ],
)
def test_substitutions(text: str, name: str, new: str) -> None:
    assert make_mapping((), [parse_substitution(text)]).resolve([name]) == {name: new}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "a/b/c/",
        "s/a/b",
        "s/a/b/c/d",
        "s/a/b/x",
        "s/(/b/",
        r"s/a/\1/",
        "sabac",
        "s\\a\\b\\",
    ],
)
def test_bad_substitutions(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_substitution(text)
    assert codes(caught.value) == ["bad-mapping"]


@pytest.mark.parametrize("text", ["", "a", "a=", "=b"])
def test_bad_pairs(text: str) -> None:
    with pytest.raises(UsageError, match="is not OLD=NEW"):
        parse_pair(text)


def test_a_mapping_must_say_something_and_once() -> None:
    with pytest.raises(UsageError, match="nothing is to be renamed"):
        make_mapping([])
    with pytest.raises(UsageError, match=r"does not contain \{name\}"):
        make_mapping([], [], "teacher")
    with pytest.raises(UsageError, match='"a" is mapped to "b" and to "c"'):
        make_mapping([Pair("a", "b"), Pair("a", "c")])
    assert make_mapping([Pair("a", "b"), Pair("a", "b")]).pairs == (Pair("a", "b"),)


def test_what_matches_nothing_is_an_error() -> None:
    rules = make_mapping([Pair("con1", "x")], [parse_substitution("s/fc/ip/")])
    with pytest.raises(WeightsError) as caught:
        rules.resolve(["conv1", "ip1"])
    assert str(caught.value) == (
        'error: the file has no layer "con1" [unmatched-mapping]\n'
        'help: did you mean "conv1"?\n'
        'error: the file has no layer that "s/fc/ip/" matches [unmatched-mapping]'
    )


def test_two_layers_of_one_name_are_an_error() -> None:
    with pytest.raises(WeightsError) as caught:
        mapping(a="b").resolve(["a", "b", "c"])
    assert str(caught.value) == (
        'error: layers "a" and "b" would both be called "b" [rename-collision]'
    )
    with pytest.raises(WeightsError, match='layer "a" would have no name'):
        make_mapping((), [parse_substitution("s/a//")]).resolve(["a", "b"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, unique=True))
def test_the_inverse_mapping_undoes_a_mapping(names: list[str]) -> None:
    there = make_mapping([Pair(name, f"teacher/{name}") for name in names])
    back = make_mapping([Pair(f"teacher/{name}", name) for name in names])
    renamed = there.resolve(names)
    assert list(back.resolve(list(renamed.values())).values()) == names


# Map files

MAP_FILES = {
    "csv": '# old,new\nconv1,teacher/conv1\n\n"ip,1", head \n',
    "json": '{"conv1": "teacher/conv1", "ip,1": "head"}',
    "lines": 'conv1: "teacher/conv1"\n  "ip,1" : "head"\n',
    "bom": '\ufeffconv1,teacher/conv1\r\n"ip,1",head\r\n',
}


@pytest.mark.parametrize("name", MAP_FILES)
def test_map_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text(MAP_FILES[name], encoding="utf-8", newline="")
    pairs = [(pair.old, pair.new) for pair in read_map_file(str(path))]
    assert pairs == [("conv1", "teacher/conv1"), ("ip,1", "head")]


BAD_MAP_FILES = {
    "columns": ("a,b\na,b,c\nalone\n", ["bad-map-file"] * 2, ":2:1: "),
    "csv-field": ("a," + "b" * 200_000, ["bad-map-file"], ":1:1: "),
    "empty-name": ("a,\n", ["bad-map-file"], ":1:1: "),
    "json": ('{"a": "b",\n "c"}', ["bad-map-file"], ":2:5: "),
    "json-deep": ('{"a":' * 100_000, ["bad-map-file"], "nested too deeply"),
    "json-empty-name": ('{"a": ""}', ["bad-map-file"], "one JSON object of names"),
    "json-value": ('{"a": {"b": "c"}}', ["bad-map-file"], "one JSON object of names"),
}


@pytest.mark.parametrize("name", BAD_MAP_FILES)
def test_bad_map_files(name: str, tmp_path: Path) -> None:
    content, expected, text = BAD_MAP_FILES[name]
    path = tmp_path / "map"
    path.write_text(content)
    with pytest.raises(WeightsError) as caught:
        read_map_file(str(path))
    assert codes(caught.value) == expected
    assert text in str(caught.value)


def test_unreadable_map_files(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in ("missing", "binary", "."):
        with pytest.raises(WeightsError) as caught:
            read_map_file(str(tmp_path / path))
        assert codes(caught.value) == ["unreadable-map-file"]


# The command


def command(*args: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "weights_tools", *args]
    return subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT)


def test_rename_says_what_it_mapped(tmp_path: Path) -> None:
    source, copy, pairs = tmp_path / "a", tmp_path / "b", tmp_path / "pairs.csv"
    write_caffemodel(str(source), SAMPLE)
    pairs.write_text("ip1,head\n")
    done = command(
        "rename", str(source), "-o", str(copy), "--map-file", str(pairs), "--regex", "s/c/C/"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "mapped conv1 to Conv1\nmapped ip1 to head\n"
    assert [layer.name for layer in read_weights(str(copy)).layers] == ["Conv1", "head"]


def test_faults_and_exit_codes(tmp_path: Path) -> None:
    source = tmp_path / "a"
    write_caffemodel(str(source), SAMPLE)
    output = ("-o", str(tmp_path / "b"))
    done = command("rename", str(source), *output, "--map", "cnv1=b")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        'error: the file has no layer "cnv1" [unmatched-mapping]\nhelp: did you mean "conv1"?\n'
    )
    assert command("rename", str(source), *output).returncode == 2
    assert command("rename", str(source)).returncode == 2
    assert command("show", str(tmp_path / "none")).returncode == 1
    assert not (tmp_path / "b").exists()


def test_a_reader_that_leaves_early_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_caffemodel(str(path), SAMPLE)
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "weights_tools", "show", str(path)]
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, check=False, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_kdnet_weights_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a"
    write_caffemodel(str(path), SAMPLE)
    assert kdnet(["weights", "show", str(path)]) == 0
    assert capsys.readouterr().out == command("show", str(path)).stdout
    assert kdnet(["weights", "show", str(tmp_path)]) == 1
    assert capsys.readouterr().err == command("show", str(tmp_path)).stderr


FACTS = """\
{path}: caffemodel, net "net"
layer  type          blob  shape    dtype    bytes    mean    std  zeros  bad
conv1  Convolution   0     2x1x3x3  float32     72   0.125  1.297      1    0
conv1  Convolution   1     2        float32      8   0.125  0.375      0    0
ip1    InnerProduct  0     4x6      float32     96  -0.125  1.731      1    0
odd    -             0     2x2      float64     32       1      1      1    2
odd    -             1     scalar   float32      4       -      -      0    1
3 layers, 5 blobs, 49 values, 212 bytes
"""


def odd_file(path: Path) -> None:
    odd = (np.array([[0, 2], [np.nan, np.inf]]), np.full((), np.nan, np.float32))
    write_caffemodel(str(path), [*SAMPLE, LayerBlobs("odd", "", odd)], net_name="net")


def show(path: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> str:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    assert cli.run(parser.parse_args(["show", str(path), *options])) == 0
    return capsys.readouterr().out


def test_show_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a"
    odd_file(path)
    assert show(path, capsys=capsys) == FACTS.format(path=path)


def test_show_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a"
    odd_file(path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    facts = json.loads(show(path, "--json", capsys=capsys), parse_constant=refuse)
    assert facts["format"] == "caffemodel"
    assert [layer["name"] for layer in facts["layers"]] == ["conv1", "ip1", "odd"]
    conv = LAYERS["conv1"][0].astype(float)
    assert facts["layers"][0]["blobs"][0] == {
        "shape": [2, 1, 3, 3],
        "dtype": "float32",
        "bytes": 72,
        "mean": pytest.approx(conv.mean()),
        "std": pytest.approx(conv.std()),
        "zeros": 1,
        "non_finite": 0,
    }
    assert facts["layers"][2]["blobs"][1]["mean"] is None


def test_show_tells_types_and_bytes_as_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["data/ip/0"] = np.ones(3, np.float16)
    text = show(path, capsys=capsys)
    assert text.startswith(f"{path}: hdf5\n")
    assert text.endswith("1 layers, 1 blobs, 3 values, 6 bytes\n")
    assert "float16" in text
