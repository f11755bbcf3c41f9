"""Reading every weight format, writing .caffemodel, and random damage to either."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables.formats import CASES, LAYERS, SAMPLE, FormatCase, message, wire_net

from kdnet.errors import WeightsError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import LayerBlobs, read_weights, stream_weights, write_caffemodel
from kdnet.weights.files import _MAP_FROM_BYTES
from kdnet.weights.registry import registered_formats

GOLDEN = Path(__file__).parent / "golden" / "caffe" / "files"
CASE_IDS = [case.id for case in CASES]


def test_every_format_has_a_row() -> None:
    assert {case.format for case in CASES} == {known.name for known in registered_formats()}
    assert sorted(set(CASE_IDS)) == CASE_IDS


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_format(case: FormatCase, tmp_path: Path) -> None:
    path = tmp_path / "weights.data"
    case.build(path)
    file = read_weights(str(path))
    assert file.format == case.format
    assert file.path == str(path)
    layers = {layer.name: layer for layer in file.layers if layer.blobs}
    assert list(layers) == [case.prefix + name for name in case.layers]
    for name, expected in case.layers.items():
        layer = layers[case.prefix + name]
        shapes = case.shapes[name] if case.shapes else tuple(blob.shape for blob in expected)
        assert tuple(blob.shape for blob in layer.blobs) == shapes
        assert set(layer.stored) == {case.stored}
        assert layer.type == case.types.get(name, "")
        for blob, values in zip(layer.blobs, expected, strict=True):
            assert blob.dtype == (np.float64 if case.stored == "float64" else np.float32)
            assert blob.flags.c_contiguous
            assert blob.flags.aligned
            assert blob.flags.writeable
            np.testing.assert_array_equal(blob.reshape(values.shape), values)


def test_raw_integers_become_double(tmp_path: Path) -> None:
    net = pb.NetParameter()
    blob = net.layer.add(name="a", type="X").blobs.add(raw_data_type=pb.BlobProto.INT)
    blob.shape.dim.append(2)
    blob.raw_data = np.array([-5, 2**31 - 1], "<i4").tobytes()
    path = tmp_path / "ints"
    path.write_bytes(net.SerializeToString())
    (layer,) = read_weights(str(path)).layers
    assert layer.stored == ("int32",)
    assert layer.blobs[0].tolist() == [-5.0, 2.0**31 - 1]


def test_types_that_caffe_never_had_are_left_empty(tmp_path: Path) -> None:
    path = tmp_path / "a"
    v1 = message(4, b"a") + b"\x28\xc8\x01"
    v0 = message(1, message(1, b"b"), message(2, b"warp"))
    padding = message(1, message(1, b"c"), message(2, b"padding"))
    v1_as_text = message(4, b"d") + message(5, b"conv")
    path.write_bytes(b"".join(message(2, layer) for layer in (v1, v0, padding, v1_as_text)))
    layers = read_weights(str(path)).layers
    assert [(layer.name, layer.type) for layer in layers] == [(n, "") for n in "abcd"]


def test_layers_without_blobs_and_repeated_names_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    write_caffemodel(str(path), [*SAMPLE, LayerBlobs("relu", "ReLU", ()), *SAMPLE])
    names = [layer.name for layer in read_weights(str(path)).layers]
    assert names == ["conv1", "ip1", "relu", "conv1", "ip1"]


def test_large_unpacked_blob(tmp_path: Path) -> None:
    count = 2000
    values = np.arange(count, dtype=np.float32)
    numbers = b"".join(b"\x2d" + struct.pack("<f", value) for value in values)
    blob = message(7, b"\x08\xd0\x0f") + numbers
    path = tmp_path / "unpacked"
    path.write_bytes(wire_net(message(1, b"a") + message(7, blob)))
    (layer,) = read_weights(str(path)).layers
    np.testing.assert_array_equal(layer.blobs[0], values)


def test_large_files_are_mapped_and_outlive_the_mapping(tmp_path: Path) -> None:
    path = tmp_path / "large.caffemodel"
    values = np.arange(_MAP_FROM_BYTES // 4 + 10, dtype=np.float32)
    write_caffemodel(str(path), [LayerBlobs("fc", "InnerProduct", (values,))])
    found, stream = stream_weights(str(path))
    (layer,) = stream.layers
    path.write_bytes(b"")
    assert found.name == "caffemodel"
    np.testing.assert_array_equal(layer.blobs[0], values)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden files of real Caffe here")
class TestBytesOfRealCaffe:
    @pytest.fixture
    def expected(self) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / "expected.npz") as archive:
            saved = {key: archive[key] for key in archive.files if key.startswith("saved/")}
        return {key.removeprefix("saved/"): value for key, value in saved.items()}

    @pytest.mark.parametrize("ending", ["caffemodel", "caffemodel.h5"])
    def test_every_blob_is_read(self, ending: str, expected: dict[str, np.ndarray]) -> None:
        file = read_weights(str(GOLDEN / f"lenet_tiny_iter_3.{ending}"))
        found = {
            f"{layer.name}/{index}": blob
            for layer in file.layers
            for index, blob in enumerate(layer.blobs)
        }
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values)

    def test_blobs_are_written_with_caffes_bytes(self, tmp_path: Path) -> None:
        source = GOLDEN / "lenet_tiny_iter_3.caffemodel"
        net = pb.NetParameter.FromString(source.read_bytes())
        copy = tmp_path / "copy.caffemodel"
        write_caffemodel(str(copy), read_weights(str(source)).layers, net_name=net.name)
        bare = pb.NetParameter(name=net.name, layer=net.layer)
        assert copy.read_bytes() == bare.SerializeToString()

    @pytest.mark.parametrize("ending", ["solverstate", "solverstate.h5"])
    def test_solver_states_hold_the_history(
        self, ending: str, expected: dict[str, np.ndarray]
    ) -> None:
        path = GOLDEN / f"lenet_tiny_iter_3.{ending}"
        found, stream = stream_weights(path)
        layers = list(stream.layers)
        assert found.name == "solverstate"
        assert "the weights are in its .caffemodel" in stream.notes[0]
        assert [layer.name for layer in layers] == [f"history/{i}" for i in range(len(expected))]
        shapes = [layer.blobs[0].shape for layer in layers]
        assert shapes == [values.shape for values in expected.values()]


def test_written_bytes_are_those_of_protobuf(tmp_path: Path) -> None:
    double = LayerBlobs("double", "Scale", (np.array([[0.1, -0.0]]), np.zeros((0, 3))))
    scalar = LayerBlobs("scalar", "Power", (np.full((), 3, np.float32),))
    path = tmp_path / "a.caffemodel"
    write_caffemodel(str(path), [*SAMPLE, double, scalar], net_name="net")
    content = path.read_bytes()
    net = pb.NetParameter.FromString(content)
    assert net.SerializeToString() == content
    assert net.name == "net"
    assert list(net.layer[0].blobs[0].data) == LAYERS["conv1"][0].ravel().tolist()
    assert list(net.layer[2].blobs[0].double_data) == [0.1, -0.0]


def test_write_then_read_is_the_identity(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    special = np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)
    layers = [
        LayerBlobs("übung/1", "Convolution", (rng.normal(size=(3, 2, 5, 5)), special)),
        LayerBlobs("strided", "X", (rng.normal(size=(6, 4)).astype(np.float32).T,)),
        LayerBlobs("empty", "X", (np.zeros((0, 3), np.float32),)),
    ]
    path = tmp_path / "a.caffemodel"
    write_caffemodel(path, layers, net_name="n")
    file = read_weights(path)
    assert file.path == str(path)
    assert file.net_name == "n"
    for found, layer in zip(file.layers, layers, strict=True):
        assert (found.name, found.type) == (layer.name, layer.type)
        for blob, values in zip(found.blobs, layer.blobs, strict=True):
            assert blob.dtype == values.dtype
            assert blob.shape == values.shape
            assert blob.tobytes() == values.tobytes()


def test_other_types_are_refused_before_the_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="int8"):
        write_caffemodel(str(path), [LayerBlobs("a", "X", (np.zeros(3, np.int8),))])
    assert path.read_bytes() == b"old"


def refusal(path: Path) -> tuple[str, str]:
    """The code and the message of reading ``path``."""
    with pytest.raises(WeightsError) as caught:
        read_weights(str(path))
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, diagnostic.message


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("fuzz") / "whole"
    found = {}
    for case in CASES:
        case.build(path)
        found[case.id] = path.read_bytes()
    return found


# (where, as a part of the file; what stands there then; how many bytes it replaces)
DAMAGES = st.lists(
    st.tuples(st.floats(0, 1), st.binary(max_size=12), st.integers(0, 12)), min_size=1, max_size=4
)


@pytest.mark.parametrize("case_id", CASE_IDS)
@settings(max_examples=25, deadline=None)
@given(damages=DAMAGES)
def test_random_damage_is_a_named_fault(
    case_id: str,
    whole_files: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    damages: list[tuple[float, bytes, int]],
) -> None:
    content = whole_files[case_id]
    for where, replacement, length in damages:
        at = int(where * len(content))
        content = content[:at] + replacement + content[at + length :]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    # Anything else than a WeightsError fails the test.
    with contextlib.suppress(WeightsError):
        file = read_weights(str(path))
        assert all(blob.dtype.kind == "f" for layer in file.layers for blob in layer.blobs)
