"""The arrays of a model: those that are not what they claim, and those in files of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_programs as models
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_programs import fault, opset

from kdnet.errors import KdnetError

X = np.ones((2, 6), np.float32)
FLAT = "(float[n, 6] x) => (float[a, b] y)"
WEIGHTED = f"{FLAT} {{ y = MatMul (x, w) }}"


def weighted(folder: Path, tensor: TensorProto) -> Path:
    """A model with one array of the file's own making."""
    model = onnx.parser.parse_model(opset(13, WEIGHTED))
    model.graph.initializer.append(tensor)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def array(**more) -> TensorProto:
    """An array of 6 x 4 float32 named w, or what is said instead."""
    given = {"name": "w", "data_type": TensorProto.FLOAT, "dims": (6, 4), **more}
    return TensorProto(**given)


def outside(location: str, **more: object) -> TensorProto:
    """The array in a file beside the model."""
    tensor = array(data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


HUGE = 1 << 40
ARRAYS = {
    "claims": (
        array(dims=(HUGE, HUGE), raw_data=bytes(8)),
        "corrupt-model",
        f'array "w" of shape ({HUGE}, {HUGE}) has 8 bytes, not',
    ),
    "few-numbers": (array(float_data=[1, 2]), "corrupt-model", "has 2 numbers, not 24"),
    "negative": (array(dims=(-6, 4)), "corrupt-model", 'array "w" has shape (-6, 4)'),
    "no-type": (array(data_type=99), "unsupported-model", "is element type 99"),
    "thin": (
        array(data_type=TensorProto.BFLOAT16, raw_data=bytes(48)),
        "unsupported-model",
        'array "w" is bfloat16: kdnet computes in float32',
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_not_what_it_claims_is_refused(name, tmp_path):
    tensor, code, text = ARRAYS[name]
    found = fault(weighted(tmp_path, tensor))
    assert found[0] == code, found
    assert text in found[1]


def test_sparse_arrays_are_refused(tmp_path):
    model = onnx.parser.parse_model(opset(13, WEIGHTED))
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    places = numpy_helper.from_array(np.zeros(1, np.int64), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [6, 4]))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert fault(path) == ("unsupported-model", "its sparse arrays are not supported")


# ---- arrays in files of their own ----

NUMBERS = np.arange(24, dtype=np.float32).reshape(6, 4)


@pytest.mark.parametrize("location", ["model.bin", "arrays/model.bin", "./model.bin"])
def test_an_array_below_the_folder_is_read(location, tmp_path):
    path = tmp_path / location
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\0" * 16 + NUMBERS.tobytes())
    found = models.loaded(weighted(tmp_path, outside(location, offset=16, length=96)), X)
    np.testing.assert_array_equal(found.arrays["weight0"], NUMBERS)
    np.testing.assert_allclose(models.run(found)["top0"], X @ NUMBERS)


def test_constants_too_may_lie_in_a_file(tmp_path):
    model = onnx.parser.parse_model(opset(13, f"{FLAT} {{ y = Gather <axis = 1> (x, i) }}"))
    tensor = TensorProto(name="i", data_type=TensorProto.INT64, dims=(2,))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="model.bin")
    model.graph.initializer.append(tensor)
    (tmp_path / "model.bin").write_bytes(np.array([5, 0]).tobytes())
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    x = np.arange(12.0).reshape(2, 6)
    np.testing.assert_array_equal(models.tops(path, x)[0], x[:, [5, 0]])


@pytest.mark.parametrize("location", ["../secret.bin", "link.bin", "sub/link.bin", ""])
def test_a_file_that_is_not_below_the_folder_is_not_read(location, tmp_path):
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(NUMBERS.tobytes())
    (folder / "link.bin").symlink_to(secret)
    (folder / "sub" / "link.bin").symlink_to(secret)
    code, text = fault(weighted(folder, outside(location)))
    assert code == "unsafe-model-path"
    assert "is not a file below" in text


def test_an_absolute_path_is_not_read(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(NUMBERS.tobytes())
    code, _ = fault(weighted(tmp_path, outside(str(secret))))
    assert code == "unsafe-model-path"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"offset": 4}, "the model says 96 from byte 4 on"),
        ({"offset": -1}, "the model says 96 from byte -1 on"),
        ({"length": 8}, "takes 96 bytes; the model says 8 from byte 0 on"),
        ({"offset": "some"}, "invalid literal for int()"),
    ],
)
def test_an_array_that_its_file_does_not_hold_is_refused(more, text, tmp_path):
    (tmp_path / "model.bin").write_bytes(NUMBERS.tobytes())
    found = fault(weighted(tmp_path, outside("model.bin", **more)))
    assert found[0] == "corrupt-model"
    assert text in found[1]


def test_a_data_file_that_is_not_there_is_named(tmp_path):
    code, text = fault(weighted(tmp_path, outside("model.bin")))
    assert (code, "model.bin" in text) == ("corrupt-model", True)


def test_a_data_file_that_shrinks_meanwhile_is_told(tmp_path):
    (tmp_path / "model.bin").write_bytes(NUMBERS.tobytes())
    [weight] = models.loaded(weighted(tmp_path, outside("model.bin")), X).weights
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(KdnetError, match="corrupt-model"):
        weight.stored.read()
