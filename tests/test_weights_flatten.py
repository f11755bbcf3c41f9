"""What a Keras file of weights alone does not say of dense layers, and a user then says."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import weights_tools
from kdnet.cli import main
from kdnet.errors import WeightsError
from kdnet.weights import read_weights, stream_weights

GOLDEN = Path(__file__).parent / "golden" / "weights"
# Maps of 3 rows, 2 columns and 4 channels, each place with a number that says where it is.
ROWS, COLUMNS, CHANNELS, UNITS = 3, 2, 4, 5
PLACES = np.arange(ROWS * COLUMNS * CHANNELS, dtype=np.float32).reshape(ROWS, COLUMNS, CHANNELS)
IN_CAFFE = PLACES.transpose(2, 0, 1).reshape(-1)
SEQUENTIAL = {
    "class_name": "Sequential",
    "config": {
        "layers": [
            {"class_name": "Functional", "config": {"name": "body"}},
            {"class_name": "Flatten", "config": {"name": "flat"}},
            {"class_name": "Dense", "config": {"name": "fc"}},
        ]
    },
}


def kernel(values: np.ndarray) -> np.ndarray:
    """Keras's kernel of a dense layer: an input a row, here the same in every column."""
    return np.repeat(values.reshape(-1, 1), UNITS, axis=1)


def alone(path: Path) -> None:
    """As Keras 3 writes ``save_weights``: a dense layer behind a Flatten, another behind it."""
    with h5py.File(path, "w") as file:
        for name, values in (("dense", PLACES), ("dense_1", np.arange(8, dtype=np.float32))):
            file[f"layers/{name}/vars/0"] = kernel(values)
            file[f"layers/{name}/vars/1"] = np.zeros(UNITS, np.float32)
        file["layers/conv2d/vars/0"] = np.zeros((1, 1, 2, CHANNELS), np.float32)


def model(path: Path) -> None:
    """A model that begins with another, of whose channels its configuration says nothing."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(SEQUENTIAL)
        file.attrs["layer_names"] = [b"body", b"fc"]
        for layer, names in (("body", ("inner", "other")), ("fc", ("fc",))):
            group = file.create_group(layer)
            weights = [f"{name}/kernel:0" for name in names]
            group.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight in weights:
                group[weight] = kernel(PLACES)


def columns(path: Path, flattened: dict[str, int]) -> dict[str, np.ndarray]:
    """The first row of every dense layer's weight."""
    _, stream = stream_weights(path, flattened)
    found = {layer.name: layer for layer in stream.layers}
    return {
        name: layer.blobs[0][0] for name, layer in found.items() if layer.type == "InnerProduct"
    }


def test_columns_are_put_in_caffe_s_order(tmp_path: Path) -> None:
    alone(tmp_path / "a.weights.h5")
    found = columns(tmp_path / "a.weights.h5", {"dense": CHANNELS})
    np.testing.assert_array_equal(found["dense"], IN_CAFFE)
    np.testing.assert_array_equal(found["dense_1"], np.arange(8))
    untold = columns(tmp_path / "a.weights.h5", {})
    np.testing.assert_array_equal(untold["dense"], PLACES.reshape(-1))


def test_weights_alone_become_those_of_the_whole_model() -> None:
    _, stream = stream_weights(GOLDEN / "keras.weights.h5", {"fc": 3})
    assert stream.doubts == ()
    whole = {layer.name: layer for layer in read_weights(GOLDEN / "keras_model.h5").layers}
    for layer in stream.layers:
        for mine, theirs in zip(layer.blobs, whole[layer.name].blobs, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_layer_that_is_settled_is_no_longer_in_doubt(tmp_path: Path) -> None:
    model(tmp_path / "a.h5")
    assert len(stream_weights(tmp_path / "a.h5")[1].doubts) == 2
    _, told = stream_weights(tmp_path / "a.h5", {"fc": CHANNELS})
    [doubt] = told.doubts
    assert 'before or within "body" is not known' in doubt
    assert "--flatten LAYER=CHANNELS" in doubt
    found = columns(tmp_path / "a.h5", {"fc": CHANNELS, "body/inner": CHANNELS})
    for name in ("fc", "body/inner"):
        np.testing.assert_array_equal(found[name], IN_CAFFE)


FAULTS = {
    "no-layer": ({"dens": 4}, 'has no dense layer "dens"', 'did you mean "dense"?'),
    "not-dense": ({"conv2d": 4}, 'has no dense layer "conv2d"', ""),
    "remainder": ({"dense": 5}, 'layer "dense" takes 24 values, no multiple of 5', ""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_fit_the_file_is_a_fault(name: str, tmp_path: Path) -> None:
    alone(tmp_path / "a.weights.h5")
    flattened, message, hint = FAULTS[name]
    with pytest.raises(WeightsError) as caught:
        stream_weights(tmp_path / "a.weights.h5", flattened)
    [fault] = caught.value.diagnostics
    assert fault.code == "wrong-flatten"
    assert message in fault.message
    assert fault.help == ((hint,) if hint else ())


def test_what_the_file_says_itself_is_not_said_again(tmp_path: Path) -> None:
    known = json.loads(json.dumps(SEQUENTIAL))
    known["config"]["layers"][1]["class_name"] = "GlobalAveragePooling2D"
    model(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["model_config"] = json.dumps(known)
    for path, layer, message in (
        (tmp_path / "a.h5", "fc", 'says itself what dense layer "fc" flattens'),
        (GOLDEN / "keras_model.h5", "fc", "says itself in which order the columns"),
    ):
        with pytest.raises(WeightsError, match=message):
            stream_weights(path, {layer: 4})


def test_convert_and_show_take_it_as_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    alone(Path("a.weights.h5"))
    flags = ["--flatten", f"dense={CHANNELS}"]
    assert main(["weights", "convert", "a.weights.h5", "-o", "a.caffemodel", *flags]) == 0
    assert capsys.readouterr().err == ""
    found = weights_tools.open("a.caffemodel")
    np.testing.assert_array_equal(found["dense/0"][0], IN_CAFFE)
    blobs = []
    for words in (["a.weights.h5", *flags], ["a.caffemodel"]):
        assert main(["weights", "show", "--json", *words]) == 0
        layers = json.loads(capsys.readouterr().out)["layers"]
        blobs.append({layer["name"]: layer["blobs"] for layer in layers})
    assert blobs[0] == blobs[1]


def test_an_opened_file_takes_it_too(tmp_path: Path) -> None:
    alone(tmp_path / "a.weights.h5")
    found = weights_tools.open(tmp_path / "a.weights.h5", flattened={"dense": CHANNELS})
    np.testing.assert_array_equal(found["dense/0"][0], IN_CAFFE)
    assert found.notes == ()


@pytest.mark.parametrize("text", ["dense", "=4", "dense=", "dense=0", "dense=4x", "dense=-1"])
def test_a_flag_of_another_form_is_a_fault(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "show", "a.h5", "--flatten", text]) == 2
    assert f'"{text}" is not LAYER=CHANNELS [bad-flatten]' in capsys.readouterr().err


def test_flags_that_contradict_one_another_are_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--flatten", "fc=4", "--flatten", "fc=4", "--flatten", "fc=8"]
    assert main(["weights", "show", "a.h5", *flags]) == 2
    assert 'two --flatten differ on layer "fc" [bad-flatten]' in capsys.readouterr().err
