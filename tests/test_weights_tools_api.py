"""weights_tools as a library: files as mappings of parameter names to arrays."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tables.formats import CASES, CONV, CONV_BIAS, IP, SAMPLE

import weights_tools
from kdnet.errors import KdnetError, UsageError, WeightsError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import LayerBlobs, read_weights, write_caffemodel, write_weights
from weights_tools.copying import write_pieces
from weights_tools.parameters import Weights

ROOT = Path(__file__).parent.parent


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "a.caffemodel"
    write_caffemodel(path, SAMPLE, net_name="net")
    return path


def codes(error: KdnetError) -> list[str]:
    return [found.code for found in error.diagnostics]


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_every_format_is_a_mapping_of_parameters(case: object, tmp_path: Path) -> None:
    path = tmp_path / "a"
    case.build(path)
    weights = weights_tools.open(path)
    wanted = {
        f"{case.prefix}{layer}/{index}": array
        for layer, blobs in case.layers.items()
        for index, array in enumerate(blobs)
    }
    assert set(weights) == set(wanted)
    assert len(weights) == len(wanted)
    assert weights.format == case.format
    plain = {name: tuple(blob.shape for blob in blobs) for name, blobs in case.layers.items()}
    for name, layer in weights.by_layer.items():
        assert layer.shapes == (case.shapes or plain)[name.removeprefix(case.prefix)]
    # Backwards, so that a file that is read front to back starts again.
    for name in reversed(list(weights)):
        np.testing.assert_array_equal(weights[name].ravel(), wanted[name].ravel())
        assert weights.stored(name) == case.stored


def test_a_file_read_front_to_back_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    write_weights(path, SAMPLE)
    weights = weights_tools.open(path)
    passes = []
    stream = Weights.stream
    monkeypatch.setattr(Weights, "stream", lambda self: passes.append(1) or stream(self))
    assert [array.shape for array in weights.values()] == [(2, 1, 3, 3), (2,), (4, 6)]
    assert len(passes) == 1
    assert weights["conv1/0"].shape == (2, 1, 3, 3)
    assert len(passes) == 2


def test_layers_tell_names_types_and_shapes(sample: Path) -> None:
    weights = weights_tools.open(str(sample))
    assert [(layer.name, layer.type) for layer in weights.layers] == [
        ("conv1", "Convolution"),
        ("ip1", "InnerProduct"),
    ]
    assert weights.layers[0].parameters == ("conv1/0", "conv1/1")
    assert weights.net_name == "net"
    assert repr(weights) == f"<caffemodel {str(sample)!r}: 3 parameters>"
    with pytest.raises(KeyError):
        weights["conv1/2"]
    assert "conv1/weight" not in weights


def test_of_a_repeated_layer_the_first_with_blobs_counts(tmp_path: Path) -> None:
    path = tmp_path / "a"
    none, first, second = ((), (CONV_BIAS,), (IP, CONV_BIAS))
    write_caffemodel(path, [LayerBlobs("x", "", blobs) for blobs in (none, first, second)])
    weights = weights_tools.open(path)
    assert list(weights) == ["x/0"]
    np.testing.assert_array_equal(weights["x/0"], CONV_BIAS)
    assert len(weights.layers) == 3


def test_save_keeps_what_like_says(sample: Path, tmp_path: Path) -> None:
    weights = weights_tools.open(sample)
    out = tmp_path / "b.caffemodel"
    weights_tools.save(out, {name: 2 * array for name, array in weights.items()}, like=weights)
    saved = read_weights(out)
    assert (saved.net_name, [layer.type for layer in saved.layers]) == (
        "net",
        ["Convolution", "InnerProduct"],
    )
    np.testing.assert_array_equal(saved.layers[0].blobs[0], 2 * CONV)
    weights_tools.save(out, weights)
    assert out.read_bytes() == sample.read_bytes()
    weights_tools.save(out, dict(weights), format="npz")
    assert dict(np.load(out)).keys() >= {"conv1/0", "conv1/1", "ip1/0"}


def test_save_keeps_messages_and_layers_without_blobs(tmp_path: Path) -> None:
    path, out = tmp_path / "a.caffemodel", tmp_path / "b.caffemodel"
    net = pb.NetParameter(name="net")
    net.layer.add(name="relu", type="ReLU", bottom=["a"], top=["b"])
    for name in ("ip1", "ip2"):
        layer = net.layer.add(name=name, type="InnerProduct", bottom=["b"])
        layer.inner_product_param.num_output = 2
        layer.blobs.add(data=[1, 2], shape=pb.BlobShape(dim=[2]))
    path.write_bytes(net.SerializeToString())
    weights = weights_tools.open(path)
    weights_tools.save(out, weights)
    assert out.read_bytes() == path.read_bytes()
    three = np.full(2, 3, np.float32)
    weights_tools.save(out, {"new/0": three, "ip2/0": three}, like=weights)
    del net.layer[1]
    net.layer[1].blobs[0].data[:] = [3, 3]
    net.layer.add(name="new").blobs.add(data=[3, 3], shape=pb.BlobShape(dim=[2]))
    assert pb.NetParameter.FromString(out.read_bytes()) == net


def test_save_may_write_over_the_file_it_reads(tmp_path: Path) -> None:
    for name in ("a.caffemodel", "a.npz"):
        path = tmp_path / name
        write_weights(path, SAMPLE)
        before = {name: array.copy() for name, array in weights_tools.open(path).items()}
        weights_tools.save(path, weights_tools.open(path))
        after = weights_tools.open(path)
        assert list(after) == list(before)
        assert all(np.array_equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("name", ["conv1", "/0", "conv1/weight", "conv1/01", "conv1/-1", ""])
def test_odd_parameter_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        weights_tools.save(tmp_path / "a.npz", {name: CONV})
    assert codes(caught.value) == ["bad-parameter-name"]
    assert not list(tmp_path.iterdir())


def test_a_layer_with_a_gap_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match='layer "a" has no blob 1') as caught:
        weights_tools.save(tmp_path / "a.npz", {"a/2": CONV, "a/0": CONV})
    assert codes(caught.value) == ["missing-blob"]


def test_damaged_numbers_are_named_when_the_file_is_opened(sample: Path) -> None:
    damaged = sample.read_bytes().replace(b"\x0a\x04\x02\x01\x03\x03", b"\x0a\x04\x02\x01\x03\x04")
    sample.write_bytes(damaged)
    with pytest.raises(WeightsError, match=r'layer 0 \("conv1"\).*takes 24 values'):
        weights_tools.open(sample)


def test_rename_takes_a_dictionary_and_any_path(sample: Path, tmp_path: Path) -> None:
    made = weights_tools.rename(sample, tmp_path / "b", {"conv1": "conv_st_1"})
    assert made == (("conv1", "conv_st_1"),)
    assert list(weights_tools.open(tmp_path / "b")) == ["conv_st_1/0", "conv_st_1/1", "ip1/0"]
    rules = weights_tools.make_mapping((), (), "teacher/{name}")
    weights_tools.rename(sample, tmp_path / "c.npz", rules)
    assert weights_tools.open(tmp_path / "c.npz").format == "npz"


def test_the_example_of_the_package_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blobs = (np.ones((64, 3, 3, 3), np.float32), np.ones(64, np.float32))
    write_caffemodel("vgg16.caffemodel", [LayerBlobs("conv1_1", "Convolution", blobs)])
    failed, tried = doctest.testmod(weights_tools)
    assert (failed, tried) == (0, 6)


SCRIPT = """\
import weights_tools
for old, new in weights_tools.rename("vgg.caffemodel", "preloaded.caffemodel", MAPPING):
    print(f"mapped {old} to {new}")
"""


def test_the_first_script_of_this_kind_is_three_lines(tmp_path: Path) -> None:
    names = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "fc8")
    layers = [LayerBlobs(name, "", (CONV + i, CONV_BIAS + i)) for i, name in enumerate(names)]
    write_caffemodel(tmp_path / "vgg.caffemodel", layers)
    mapping = {name: name.replace("conv", "conv_st_") for name in names[:4]}
    code = SCRIPT.replace("MAPPING", repr(mapping))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "".join(f"mapped {a} to {b}\n" for a, b in mapping.items())
    made = weights_tools.open(tmp_path / "preloaded.caffemodel")
    for index, name in enumerate(names[:4]):
        assert made[f"{mapping[name]}/0"].tobytes() == (CONV + index).tobytes()
        assert made[f"{mapping[name]}/1"].tobytes() == (CONV_BIAS + index).tobytes()


def test_opening_needs_neither_onnx_nor_a_runtime() -> None:
    heavy = {"onnx", "onnxruntime", "h5py", "rich"}
    code = f"import sys, weights_tools; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_source_that_shrinks_is_a_fault_and_leaves_the_old_file(tmp_path: Path) -> None:
    from weights_tools.copying import Range

    source, out = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"short")
    out.write_bytes(b"old")
    with pytest.raises(WeightsError, match="became shorter") as caught:
        write_pieces(str(out), [Range(str(source), 0, 50)])
    assert codes(caught.value) == ["cannot-write"]
    assert out.read_bytes() == b"old"


def _refuses(*_arguments: object) -> int:
    raise OSError(18, "Invalid cross-device link")


def _stops_early(source: int, target: int, count: int, offset: int) -> int:
    return os.sendfile(target, source, offset, min(count, 1 << 20)) if offset < 2_000_000 else 0


@pytest.mark.parametrize("system", ["as it is", "without", _refuses, _stops_early])
def test_large_blobs_are_copied_whatever_the_system_does(
    system: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system == "without":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
    elif callable(system):
        monkeypatch.setattr(os, "copy_file_range", system, raising=False)
    source, copy, back = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    values = np.random.default_rng(1).standard_normal(3 << 20, np.float32)
    layers = [LayerBlobs(name, "InnerProduct", (values,)) for name in ("fc6", "fc7")]
    write_caffemodel(source, layers)
    weights_tools.rename(source, copy, {"fc6": "a/longer/name"})
    assert list(weights_tools.open(copy)) == ["a/longer/name/0", "fc7/0"]
    weights_tools.rename(copy, back, {"a/longer/name": "fc6"})
    assert back.read_bytes() == source.read_bytes()
