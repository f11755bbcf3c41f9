"""Writing weights in every format, and reading back what was written."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables.formats import SAMPLE

from kdnet.errors import WeightsError
from kdnet.weights import (
    LayerBlobs,
    WeightFile,
    format_names,
    read_weights,
    stream_weights,
    write_weights,
)
from kdnet.weights.registry import registered_formats

WRITABLE = format_names(writable=True)
REAL_MODELS = "KDNET_CAFFE_MODELS"

# A signalling and a quiet NaN with a payload, a negative zero and the smallest number.
ODD_BITS = np.array([0x7F800001, 0x7FC12345, 0x80000000, 1], np.uint32).view(np.float32)
ODD_DOUBLES = np.array([0x7FF0000000000001, 0x7FF8123456789ABC], np.uint64).view(np.float64)
LAYERS = (
    LayerBlobs("data", "Input", (), (), b"\x22\x01d"),
    LayerBlobs("übung/conv 1", "Convolution", (np.zeros((3, 2, 5, 5), np.float32), ODD_BITS)),
    LayerBlobs("bn", "BatchNorm", (ODD_BITS, ODD_BITS, np.full(1, 999.5, np.float32))),
    LayerBlobs("a.b", "", (ODD_DOUBLES.reshape(1, 2), np.full((), 3, np.float32))),
    LayerBlobs("turned", "X", (np.arange(24, dtype=np.float32).reshape(6, 4).T,)),
    LayerBlobs("empty", "X", (np.zeros((0, 3), np.float32),)),
    LayerBlobs("many", "Recurrent", tuple(np.full(2, i, np.float32) for i in range(12))),
    LayerBlobs("relu", "ReLU", ()),
)


def same(found: WeightFile, layers: tuple[LayerBlobs, ...]) -> None:
    assert [(a.name, a.type, a.message) for a in found.layers] == [
        (b.name, b.type, b.message) for b in layers
    ]
    for mine, theirs in zip(found.layers, layers, strict=True):
        assert [a.shape for a in mine.blobs] == [b.shape for b in theirs.blobs]
        assert [a.dtype for a in mine.blobs] == [b.dtype for b in theirs.blobs]
        assert [a.tobytes() for a in mine.blobs] == [b.tobytes() for b in theirs.blobs]


def fault(path: Path, layers: object = SAMPLE, **options: str) -> tuple[str, str]:
    with pytest.raises(WeightsError) as caught:
        write_weights(path, layers, **options)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, str(caught.value)


@pytest.mark.parametrize("name", WRITABLE)
def test_every_bit_comes_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    written = write_weights(path, LAYERS, format=name, net_name="größer")
    assert (written.format, written.layers, written.lost) == (name, len(LAYERS), ())
    found = read_weights(path)
    assert (found.format, found.net_name) == (name, "größer")
    same(found, LAYERS)


@pytest.mark.parametrize("name", WRITABLE)
def test_halves_are_kept_as_halves(name: str, tmp_path: Path) -> None:
    values = np.array([0.1, -65504, 6e-8, np.inf], np.float16)
    write_weights(tmp_path / "a", [LayerBlobs("a", "X", (values,))], format=name)
    (layer,) = read_weights(tmp_path / "a").layers
    assert layer.stored == ("float16",)
    np.testing.assert_array_equal(layer.blobs[0], values.astype(np.float32))


@pytest.mark.parametrize("name", WRITABLE)
def test_the_same_layers_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    for copy in "ab":
        write_weights(tmp_path / copy, iter(LAYERS), format=name, net_name="n")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.mark.parametrize("name", WRITABLE)
@settings(max_examples=25, deadline=None)
@given(names=st.lists(NAMES, max_size=4, unique=True))
def test_any_names_come_back_or_are_refused(
    name: str, tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"names-{name}"
    layers = tuple(LayerBlobs(one, "X", (np.ones(2, np.float32),)) for one in names)
    if name == "caffemodel" and not layers:
        return
    try:
        write_weights(path, layers, format=name)
    except WeightsError as error:
        assert error.diagnostics[0].code == "unwritable-layer"  # noqa: PT017  # both may be
    else:
        if layers:
            same(read_weights(path), layers)


def test_formats_by_ending(tmp_path: Path) -> None:
    for known in registered_formats():
        for suffix in known.suffixes:
            path = tmp_path / f"a.x{suffix.upper()}"
            assert write_weights(path, SAMPLE).format == known.name
    code, text = fault(tmp_path / "a.txt")
    assert code == "unknown-format"
    assert ".caffemodel" in text
    assert ".safetensors" in text


def test_unknown_and_unwritten_formats_are_named(tmp_path: Path) -> None:
    code, text = fault(tmp_path / "a", format="safetensor")
    assert code == "unknown-format"
    assert 'did you mean "safetensors"?' in text
    code, text = fault(tmp_path / "a", format="keras")
    assert code == "unknown-format"
    assert "does not write them" in text
    assert not (tmp_path / "a").exists()
    assert set(format_names()) - set(WRITABLE) == {"keras", "solverstate"}


@pytest.mark.parametrize("name", [name for name in WRITABLE if name != "caffemodel"])
def test_repeated_layers_are_refused_but_in_a_caffemodel(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code, text = fault(path, [*SAMPLE, SAMPLE[0]], format=name)
    assert code == "unwritable-layer"
    assert "'conv1'" in text
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["npz", "onnx", "safetensors", "torch"])
@pytest.mark.parametrize("layer", ["a\0b", "a" * 70_000])
def test_names_without_room_are_refused(name: str, layer: str, tmp_path: Path) -> None:
    layers = [LayerBlobs(layer, "X", (np.ones(2),))]
    code, text = fault(tmp_path / "a", layers, format=name)
    assert code == "unwritable-layer"
    assert len(text) < 400


@pytest.mark.parametrize("name", ["", "a//b", "./a", "a/0"])
def test_names_that_hdf5_has_no_group_for(name: str, tmp_path: Path) -> None:
    layers = [LayerBlobs("a", "X", (np.ones(2),)), LayerBlobs(name, "X", (np.ones(2),))]
    assert fault(tmp_path / "a.h5", layers)[0] == "unwritable-layer"


@pytest.mark.parametrize("name", WRITABLE)
def test_arrays_must_be_floats(name: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="int8"):
        write_weights(tmp_path / "a", [LayerBlobs("a", "X", (np.zeros(3, np.int8),))], format=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITABLE)
def test_one_layer_is_in_memory_at_a_time(name: str, tmp_path: Path) -> None:
    made: list[weakref.ref[np.ndarray]] = []
    most = 0

    def layers() -> Iterator[LayerBlobs]:
        nonlocal most
        for index in range(6):
            blob = np.full(1000, index, np.float32)
            made.append(weakref.ref(blob))
            gc.collect()
            most = max(most, sum(one() is not None for one in made))
            yield LayerBlobs(f"ip{index}", "InnerProduct", (blob,))
            del blob

    write_weights(tmp_path / "a", layers(), format=name)
    assert most <= 2


@pytest.mark.parametrize("name", WRITABLE)
def test_a_fault_of_the_source_leaves_the_old_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_weights(path, SAMPLE, format=name)
    before = path.read_bytes()
    cut = tmp_path / "cut.caffemodel"
    write_weights(cut, LAYERS)
    cut.write_bytes(cut.read_bytes()[:-300])
    _, stream = stream_weights(tmp_path / "a")
    with pytest.raises(WeightsError):
        write_weights(path, [*stream.layers, *read_weights(cut).layers], format=name)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "cut.caffemodel"]


CONVERT = """
import sys
from kdnet.weights import stream_weights, write_weights
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if "VmHWM" in line)
before = peak()
_, stream = stream_weights(sys.argv[1])
write_weights(sys.argv[2], stream.layers, format=sys.argv[3])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("name", ["caffemodel", "safetensors", "torch"])
def test_memory_follows_the_largest_layer_and_not_the_file(name: str, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    blob = np.zeros(1 << 20, np.float32)
    layers = (LayerBlobs(f"ip{index}", "InnerProduct", (blob,)) for index in range(24))
    write_weights(source, layers, format=name)
    program = [sys.executable, "-c", CONVERT, str(source), str(copy), "safetensors"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    # Four megabytes a layer, 96 in all.
    assert int(done.stdout) < 40


def test_a_file_may_be_written_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    big = LayerBlobs("big", "X", (np.arange(1 << 19, dtype=np.float32),))
    write_weights(path, [big])
    _, stream = stream_weights(path)
    write_weights(path, stream.layers, format="torch")
    same(read_weights(path), (big,))


def test_progress_is_told_of_every_layer_once_it_is_written(tmp_path: Path) -> None:
    seen: list[str] = []
    write_weights(tmp_path / "a.npz", LAYERS, progress=lambda layer: seen.append(layer.name))
    assert seen == [layer.name for layer in LAYERS]


def test_other_programs_read_what_was_written(tmp_path: Path) -> None:
    write_weights(tmp_path / "a.npz", SAMPLE)
    with np.load(tmp_path / "a.npz") as archive:
        np.testing.assert_array_equal(archive["conv1/0"], SAMPLE[0].blobs[0])
    write_weights(tmp_path / "a.h5", SAMPLE)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["data/conv1/1"][()], SAMPLE[0].blobs[1])
    write_weights(tmp_path / "a.onnx", SAMPLE)
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model)
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    np.testing.assert_array_equal(arrays["ip1.weight"], SAMPLE[1].blobs[0])


def test_an_account_of_other_arrays_does_not_count(tmp_path: Path) -> None:
    write_weights(tmp_path / "a.onnx", SAMPLE, net_name="n")
    model = onnx.load(tmp_path / "a.onnx")
    del model.graph.initializer[-1]
    onnx.save(model, tmp_path / "b.onnx")
    found = read_weights(tmp_path / "b.onnx")
    assert (found.net_name, [layer.name for layer in found.layers]) == ("", ["conv1"])


@pytest.mark.parametrize("text", ["{", "[1]", '{"net": 1, "layers": []}', "[" * 100_000])
def test_a_damaged_account_does_not_count(text: str, tmp_path: Path) -> None:
    write_weights(tmp_path / "a.onnx", SAMPLE, net_name="n")
    model = onnx.load(tmp_path / "a.onnx")
    model.metadata_props[0].value = text
    onnx.save(model, tmp_path / "b.onnx")
    found = read_weights(tmp_path / "b.onnx")
    assert (found.net_name, [layer.type for layer in found.layers]) == ("", ["", ""])


NORM = np.array([2, 4, 8], np.float32)


@pytest.mark.parametrize("name", ["npz", "onnx", "safetensors", "torch"])
def test_torch_layout(name: str, tmp_path: Path) -> None:
    layers = [
        LayerBlobs("bn", "BatchNorm", (NORM, NORM, np.full(1, 2, np.float32))),
        LayerBlobs("sc", "Scale", (NORM, NORM)),
    ]
    written = write_weights(tmp_path / "a", layers, format=name, layout="torch")
    assert "scale factors" in written.lost[0]
    if name == "npz":
        with np.load(tmp_path / "a") as archive:
            assert list(archive.files)[:2] == ["bn.running_mean", "bn.running_var"]
        return
    found = read_weights(tmp_path / "a").layers
    assert [(layer.name, layer.type) for layer in found] == [
        ("bn", "BatchNorm"),
        ("bn/scale", "Scale"),
    ]
    np.testing.assert_array_equal(found[0].blobs[0], NORM / 2)
    np.testing.assert_array_equal(found[0].blobs[2], [1])


def test_unknown_layouts_are_named(tmp_path: Path) -> None:
    assert fault(tmp_path / "a.npz", layout="torhc")[0] == "unknown-layout"
    code, text = fault(tmp_path / "a.caffemodel", layout="torch")
    assert code == "unknown-layout"
    assert "has Caffe's layout" in text


def test_an_onnx_file_ends_at_two_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnet.weights.formats.onnx._MOST_BYTES", 100)
    code, text = fault(tmp_path / "a.onnx")
    assert code == "weights-too-large"
    assert "safetensors" in text


def real_models() -> list[Path]:
    folder = os.environ.get(REAL_MODELS)
    return sorted(Path(folder).glob("*.caffemodel")) if folder else []


@pytest.mark.skipif(
    not real_models(), reason=f"${REAL_MODELS} names no folder of .caffemodel files"
)
@pytest.mark.parametrize("name", WRITABLE)
def test_real_models_go_there_and_back(name: str, tmp_path: Path) -> None:
    for source in real_models():
        original = read_weights(source)
        _, stream = stream_weights(source)
        write_weights(tmp_path / "a", stream.layers, format=name, net_name=stream.net_name)
        _, stream = stream_weights(tmp_path / "a")
        write_weights(tmp_path / "b", stream.layers, format="caffemodel", net_name=stream.net_name)
        back = read_weights(tmp_path / "b")
        assert back.net_name == original.net_name
        same(back, original.layers)
        if original.net_name:
            assert (tmp_path / "b").read_bytes() == source.read_bytes()
        shutil.rmtree(tmp_path, ignore_errors=True)
        tmp_path.mkdir()
