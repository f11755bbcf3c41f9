"""Comparing, merging, cutting, converting, casting and averaging weight files, as commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_nets import Ended, ok, run
from tables.formats import CONV, CONV_BIAS, IP, SAMPLE, message, wire_net

import weights_tools
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import (
    LayerBlobs,
    format_names,
    read_weights,
    stream_weights,
    write_caffemodel,
    write_weights,
)
from kdnet.weights.registry import Stream


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the sample in a.caffemodel."""
    monkeypatch.chdir(tmp_path)
    write_caffemodel("a.caffemodel", SAMPLE, net_name="net")
    return tmp_path


def write(path: str, **layers: tuple[np.ndarray, ...]) -> None:
    write_weights(path, [LayerBlobs(name, "", blobs) for name, blobs in layers.items()])


def names(path: str) -> list[str]:
    return [layer.name for layer in read_weights(path).layers]


def fault(*arguments: object) -> tuple[int, str]:
    """The exit status and the first line on stderr."""
    ended = run("weights", *arguments)
    return ended.code, ended.err.splitlines()[0]


def weights(*arguments: object) -> Ended:
    return ok("weights", *arguments)


# --- diff


def test_equal_files_of_two_formats_do_not_differ() -> None:
    write_weights("a.npz", SAMPLE)
    assert weights("diff", "a.caffemodel", "a.npz").out == "3 blobs compared: 3 identical\n"


def test_a_difference_is_a_row_and_exit_status_1() -> None:
    bias = CONV_BIAS.copy()
    bias[0] += 0.25
    write("b.npz", conv1=(CONV.astype(np.float64), bias), ip1=(IP.T,), extra=(IP,))
    ended = run("weights", "diff", "a.caffemodel", "b.npz")
    assert ended.code == 1
    assert ended.out == (
        "layer  blob  status       max abs  max relative\n"
        "conv1  0     equal              0             0\n"
        "conv1  1     differs         0.25        0.3333\n"
        "ip1    0     4x6 and 6x4        -             -\n"
        "extra  -     only in B          -             -\n"
        "3 blobs compared: 1 differs, 1 equal, 1 other shape; 1 layers only in B\n"
    )


def test_differences_within_the_tolerance_count_as_close() -> None:
    write("b.npz", conv1=(CONV, CONV_BIAS + np.float32(0.25)), ip1=(IP,))
    assert run("weights", "diff", "a.caffemodel", "b.npz", "--tolerance", 0.2).code == 1
    ended = weights("diff", "a.caffemodel", "b.npz", "--tolerance", 0.25)
    assert "3 blobs compared: 1 close, 2 identical\n" in ended.out
    assert run("weights", "diff", "a.caffemodel", "b.npz", "--tolerance", -1).code == 2


def test_nan_equals_nan_and_nothing_else() -> None:
    nan, one, infinite = (np.array([x], np.float32) for x in (np.nan, 1, np.inf))
    write("b.npz", nan=(nan,), one=(nan,), same=(infinite,), Infinity=(infinite,))
    write("c.npz", nan=(-nan,), one=(one,), same=(infinite,), Infinity=(-infinite,))
    ended = run("weights", "diff", "b.npz", "c.npz", "--json", "--tolerance", "1e30")
    found = json.loads(ended.out)
    assert (ended.code, found["same"]) == (1, False)
    statuses = {layer["name"]: layer["blobs"][0]["status"] for layer in found["layers"]}
    assert statuses == {
        "nan": "equal",
        "one": "differs",
        "same": "identical",
        "Infinity": "differs",
    }
    assert found["layers"][1]["blobs"][0]["max_abs"] == "infinite"


def test_another_count_of_blobs_is_a_difference() -> None:
    write("b.npz", conv1=(CONV,), ip1=(IP,))
    ended = run("weights", "diff", "b.npz", "a.caffemodel")
    assert ended.code == 1
    assert "1 layers with other counts of blobs" in ended.out


# --- merge


def test_a_conflict_names_both_files_and_writes_nothing() -> None:
    write("b.npz", conv1=(CONV + 1, CONV_BIAS), ip1=(IP + 1,))
    ended = run("weights", "merge", "a.caffemodel", "b.npz", "-o", "c.caffemodel")
    assert ended.code == 1
    assert ended.err == "".join(
        f'error: "a.caffemodel" and "b.npz" both have a layer "{name}" [merge-conflict]\n'
        "help: --prefix b=teacher2/ keeps both apart\n"
        "help: --prefer first, or last, keeps one\n"
        for name in ("conv1", "ip1")
    )
    assert not Path("c.caffemodel").exists()


@pytest.mark.parametrize(("prefer", "kept", "other"), [("first", "a", "b"), ("last", "b", "a")])
@pytest.mark.parametrize("ending", ["caffemodel", "npz"])
def test_a_preference_settles_conflicts(prefer: str, kept: str, other: str, ending: str) -> None:
    for name, shift in (("a", 0), ("b", 1)):
        blobs = {"conv1": (CONV + shift, CONV_BIAS), name: (IP,)}
        write(f"{name}.{ending}", **blobs)
    ended = weights(
        "merge", f"a.{ending}", f"b.{ending}", "-o", "c.caffemodel", "--prefer", prefer
    )
    assert ended.out == f"kept conv1 of {kept}.{ending}, not that of {other}.{ending}\n"
    made = weights_tools.open("c.caffemodel")
    assert set(made) == {"conv1/0", "conv1/1", "a/0", "b/0"}
    np.testing.assert_array_equal(made["conv1/0"], CONV + (kept == "b"))


def test_layers_that_are_the_same_are_no_conflict() -> None:
    write("b.npz", ip1=(IP,), more=(IP,))
    assert weights("merge", "a.caffemodel", "b.npz", "-o", "c.npz").out == ""
    assert names("c.npz") == ["conv1", "ip1", "more"]


def test_layers_without_blobs_give_way() -> None:
    write_caffemodel("b.caffemodel", [LayerBlobs(n, "ReLU", ()) for n in ("conv1", "relu", "x")])
    write_caffemodel("x.caffemodel", [LayerBlobs("x", "InnerProduct", (IP,))])
    files = ["a.caffemodel", "b.caffemodel", "x.caffemodel"]
    weights("merge", *files, "-o", "c.caffemodel")
    layers = read_weights("c.caffemodel").layers
    assert [(layer.name, len(layer.blobs)) for layer in layers] == [
        ("conv1", 2),
        ("ip1", 1),
        ("relu", 0),
        ("x", 1),
    ]


def test_merged_binary_files_keep_their_bytes() -> None:
    net = pb.NetParameter.FromString(Path("a.caffemodel").read_bytes())
    net.layer[0].convolution_param.num_output = 2
    net.layer[0].blobs[0].diff.extend([1.0, 2.0])
    Path("b.caffemodel").write_bytes(net.SerializeToString())
    weights("merge", "a.caffemodel", "b.caffemodel", "-o", "c.caffemodel", "--prefix", "b=t/")
    merged = pb.NetParameter.FromString(Path("c.caffemodel").read_bytes())
    for layer in net.layer:
        layer.name = f"t/{layer.name}"
    assert list(merged.layer[2:]) == list(net.layer)


def test_generations_of_caffe_are_not_mixed_in_a_file() -> None:
    net = pb.NetParameter(name="old")
    layer = net.layers.add(name="fc", type=pb.V1LayerParameter.LayerType.INNER_PRODUCT)
    layer.blobs.add(data=[1, 2], shape=pb.BlobShape(dim=[2]))
    Path("old.caffemodel").write_bytes(net.SerializeToString())
    weights("merge", "a.caffemodel", "old.caffemodel", "-o", "c.caffemodel")
    merged = pb.NetParameter.FromString(Path("c.caffemodel").read_bytes())
    assert [layer.name for layer in merged.layer] == ["conv1", "ip1", "fc"]
    assert not merged.layers


@pytest.mark.parametrize("prefix", ["no=x", "a=x"])
def test_a_prefix_names_one_file(prefix: str) -> None:
    Path("sub").mkdir()
    write_weights("sub/a.npz", SAMPLE)
    arguments = ["merge", "a.caffemodel", "sub/a.npz", "-o", "c", "--prefix", prefix]
    code, line = fault(*arguments)
    assert code == 2
    assert "[unknown-merge-file]" in line
    assert fault(*arguments[:-1], "x")[1] == 'error: "x" is not NAME=PREFIX [bad-prefix]'
    weights("merge", "a.caffemodel", "sub/a.npz", "-o", "c", "--prefix", "sub/a.npz=x/")
    assert names("c") == ["conv1", "ip1", "x/conv1", "x/ip1"]


# --- extract


@pytest.mark.parametrize("out", ["b.caffemodel", "b.npz"])
def test_extract_keeps_what_patterns_match(out: str) -> None:
    ended = weights("extract", "a.caffemodel", "-o", out, "--layers", "conv?", "--layers", "con*")
    assert ended.out == "kept conv1\n"
    assert names(out) == ["conv1"]


def test_extract_keeps_the_bytes_of_a_net() -> None:
    weights("extract", "a.caffemodel", "-o", "b.caffemodel", "--layers", "ip1")
    net = pb.NetParameter.FromString(Path("a.caffemodel").read_bytes())
    del net.layer[0]
    assert Path("b.caffemodel").read_bytes() == net.SerializeToString()


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    arguments = ["extract", "a.caffemodel", "-o", "b", "--layers", "conv2"]
    text = 'error: "a.caffemodel" has no layer that "conv2" matches [unmatched-layers]'
    assert fault(*arguments) == (1, text)
    assert fault(*arguments, "--allow-unmatched") == (1, text)
    assert not Path("b").exists()
    weights(*arguments, "--layers", "ip1", "--allow-unmatched")
    assert names("b") == ["ip1"]


# --- convert


@pytest.mark.parametrize("name", format_names(writable=True))
def test_there_and_back_changes_no_bit(name: str) -> None:
    weights("convert", "a.caffemodel", "-o", "b", "--to", name)
    assert weights_tools.open("b").format == name
    weights("convert", "b", "-o", "c.caffemodel")
    first, last = weights_tools.open("a.caffemodel"), weights_tools.open("c.caffemodel")
    assert {n: a.tobytes() for n, a in last.items()} == {n: a.tobytes() for n, a in first.items()}
    assert [first[n].shape for n in first] == [last[n].shape for n in first]


def test_convert_needs_a_format() -> None:
    code, line = fault("convert", "a.caffemodel", "-o", "b.unknown")
    assert code == 1
    assert "[unknown-format]" in line
    assert run("weights", "convert", "a.caffemodel", "-o", "b", "--to", "foo").code == 2


def test_convert_says_that_halves_are_widened() -> None:
    weights("cast", "fp16", "a.caffemodel", "-o", "h.caffemodel")
    ended = weights("convert", "h.caffemodel", "-o", "b.npz")
    assert ended.out == "b.npz: 2 layers, 3 blobs\n16-bit floats became 32-bit ones in 3 blobs\n"


# --- cast


def test_casts_go_there_and_back() -> None:
    ended = weights("cast", "fp16", "a.caffemodel", "-o", "h.caffemodel")
    assert ended.out == "h.caffemodel: 3 of 3 blobs cast to fp16\n"
    assert {weights_tools.open("h.caffemodel").stored("conv1/0")} == {"float16"}
    weights("cast", "fp32", "h.caffemodel", "-o", "b.caffemodel")
    assert Path("b.caffemodel").read_bytes() == Path("a.caffemodel").read_bytes()


def test_a_cast_tells_its_largest_error() -> None:
    write("b.npz", x=(np.array([1 + 2**-12, np.nan, np.inf], np.float32),))
    ended = weights("cast", "fp16", "b.npz", "-o", "h.npz")
    assert ended.out == "h.npz: 1 of 1 blobs cast to fp16, largest error 0.000244\n"
    made = weights_tools.open("h.npz")["x/0"]
    np.testing.assert_array_equal(made, np.array([1, np.nan, np.inf]))


@pytest.mark.parametrize(("kind", "value"), [("fp16", 65520.0), ("fp32", 1e39)])
def test_values_that_are_too_large_are_an_error(kind: str, value: float) -> None:
    write("b.npz", x=(np.array([value, 1]),))
    arguments = ["cast", kind, "b.npz", "-o", "h.npz"]
    code, line = fault(*arguments)
    assert code == 1
    assert line.endswith(f'layer "x" has values that {kind} cannot hold: 1 [cast-overflow]')
    assert not Path("h.npz").exists()
    assert "1 values became infinite" in weights(*arguments, "--allow-overflow").out


# --- average


def test_the_average_is_weighted_and_keeps_types() -> None:
    write("b.npz", conv1=(CONV + 4, CONV_BIAS + 4), ip1=(IP + 4,))
    ended = weights("average", "a.caffemodel", "b.npz", "-o", "c.caffemodel", "--shares", "3,1")
    assert ended.out == "c.caffemodel: the mean of 2 files\n"
    made = weights_tools.open("c.caffemodel")
    np.testing.assert_array_equal(made["ip1/0"], IP + 1)
    assert made["ip1/0"].dtype == np.float32
    assert [layer.type for layer in made.layers] == ["Convolution", "InnerProduct"]
    weights("average", "a.caffemodel", "b.npz", "-o", "c.caffemodel")
    np.testing.assert_array_equal(weights_tools.open("c.caffemodel")["conv1/1"], CONV_BIAS + 2)


def test_files_of_other_layers_have_no_average() -> None:
    write("b.npz", conv1=(CONV, CONV_BIAS), fc=(IP.T,))
    write("c.npz", conv1=(CONV, CONV_BIAS), ip1=(IP.T,))
    ended = run("weights", "average", "a.caffemodel", "b.npz", "c.npz", "-o", "d.npz")
    assert ended.code == 1
    assert ended.err.splitlines() == [
        'error: layer "ip1": shapes (4, 6) in "a.caffemodel" and is not in "b.npz" '
        "[average-mismatch]",
        'error: layer "fc": is not in "a.caffemodel" and shapes (6, 4) in "b.npz" '
        "[average-mismatch]",
        'error: layer "ip1": shapes (4, 6) in "a.caffemodel" and shapes (6, 4) in "c.npz" '
        "[average-mismatch]",
    ]
    assert not Path("d.npz").exists()


@pytest.mark.parametrize("shares", ["1", "a,b", "1,-1", "0,0", "1,inf", "nan,1"])
def test_bad_shares(shares: str) -> None:
    files = ["a.caffemodel", "a.caffemodel"]
    code, line = fault("average", *files, "-o", "b", "--shares", shares)
    assert code == 2
    assert "[bad-shares]" in line


# --- rename


def test_allowances_of_rename() -> None:
    arguments = ["rename", "a.caffemodel", "-o", "b.caffemodel"]
    code, line = fault(*arguments, "--map", "no=x", "--map", "ip1=y")
    assert (code, line) == (1, 'error: the file has no layer "no" [unmatched-mapping]')
    ended = weights(*arguments, "--map", "no=x", "--map", "ip1=y", "--allow-unmatched")
    assert ended.out == "mapped ip1 to y\n"
    assert "[rename-collision]" in fault(*arguments, "--map", "ip1=conv1")[1]
    ended = weights(*arguments, "--map", "ip1=conv1", "--allow-collision")
    assert ended.out == ("mapped ip1 to conv1\nleft out conv1: another layer has its new name\n")
    made = read_weights("b.caffemodel").layers
    assert [(layer.name, layer.blobs[0].shape) for layer in made] == [("conv1", (4, 6))]
    code, line = fault(*arguments, "--map", "no=x", "--map", "ip1=conv1", "--allow-collision")
    assert "[unmatched-mapping]" in line
    code, line = fault(*arguments, "--regex", "s/.*//", "--allow-collision")
    assert line == 'error: layer "conv1" would have no name [rename-collision]'


def test_renaming_into_another_format_is_a_conversion() -> None:
    weights("rename", "a.caffemodel", "-o", "b.npz", "--map", "ip1=y")
    assert names("b.npz") == ["conv1", "y"]
    weights("rename", "a.caffemodel", "-o", "b.x", "--map", "ip1=y", "--to", "npz")
    assert Path("b.x").read_bytes() == Path("b.npz").read_bytes()


def test_fields_that_rename_does_not_know_survive() -> None:
    layer = message(1, b"conv1") + message(15, b"?") + message(7, message(5, bytes(4)))
    Path("a.caffemodel").write_bytes(wire_net(layer) + message(9, b"of the net"))
    weights("rename", "a.caffemodel", "-o", "b.caffemodel", "--map", "conv1=c")
    expected = wire_net(layer.replace(b"\x0a\x05conv1", b"\x0a\x01c")) + message(9, b"of the net")
    assert Path("b.caffemodel").read_bytes() == expected


def test_what_is_not_kept_is_named() -> None:
    old = pb.NetParameter(name="net", input=["data"])
    layer = old.layers.add(name="fc", type=pb.V1LayerParameter.LayerType.INNER_PRODUCT)
    layer.blobs.add(data=[1, 2], shape=pb.BlobShape(dim=[2]))
    Path("old.caffemodel").write_bytes(old.SerializeToString())
    ended = weights("convert", "old.caffemodel", "-o", "b.npz")
    assert ended.err == (
        "note: the settings of 1 layers of the old kind (V0, V1) are not kept\n"
        "note: fields of the net that are not kept: input\n"
    )
    assert weights("convert", "a.caffemodel", "-o", "b.npz").err == ""
    assert weights("rename", "old.caffemodel", "-o", "c", "--map", "fc=x").err == ""


def test_what_is_not_certain_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(path: str, flattened: dict[str, int]) -> tuple[object, Stream]:
        found, stream = stream_weights(path, flattened)
        return found, replace(stream, doubts=("columns may be in another order",))

    monkeypatch.setattr("weights_tools.show.stream_weights", stream)
    ended = weights("show", "a.caffemodel")
    assert ended.out.endswith("\nnote: columns may be in another order\n")
    facts = json.loads(weights("show", "a.caffemodel", "--json").out)
    assert facts["doubts"] == ["columns may be in another order"]


def test_layer_messages_survive_a_cast() -> None:
    found = read_weights("a.caffemodel").layers[0]
    sent = message(3, b"data") + message(4, b"conv1")
    write_caffemodel("b.caffemodel", [replace(found, message=sent)])
    weights("cast", "fp16", "b.caffemodel", "-o", "h.caffemodel")
    assert read_weights("h.caffemodel").layers[0].message == sent
