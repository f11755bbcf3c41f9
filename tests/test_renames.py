"""Renaming the layers of weight files: mappings, map files, and bytes that stay as they were."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables.formats import CASES, LAYERS, SAMPLE, message, wire_net

from kdnet.errors import KdnetError, UsageError, WeightsError
from kdnet.net.rename import parse_pair, parse_substitution
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import LayerBlobs, read_weights, write_caffemodel
from weights_tools import Mapping, Pair, make_mapping, rename_file, rename_layers
from weights_tools.mapping import read_map_file

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
