"""Files as PyTorch, ONNX and Keras wrote them: Caffe's layers, given them, compute the same."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from oracles import conv_transpose, convolution
from oracles_catalogue import prelu
from oracles_layers import affine, batch_norm_stored, inner_product
from oracles_recurrent import lstm

from kdnet.errors import WeightsError
from kdnet.weights import assign, read_weights, stream_weights, write_weights
from kdnet.weights.pickles import read_pickle

GOLDEN = Path(__file__).parent / "golden" / "weights"
Blobs = dict[str, tuple[np.ndarray, ...]]

ONE = {"strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0]}


def blobs_of(name: str) -> Blobs:
    return {
        layer.name: tuple(blob.astype(np.float64) for blob in layer.blobs)
        for layer in read_weights(GOLDEN / name).layers
    }


def expected(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(GOLDEN / name) as archive:
        return archive["x"].astype(np.float64), archive["y"]


def steps(y: np.ndarray, blobs: Blobs) -> np.ndarray:
    """The recurrent layer over (T, N, D)."""
    cont = np.ones(y.shape[:2])
    cont[0] = 0
    (outputs,) = lstm(y, cont, *blobs["lstm"])
    return outputs


def torch_net(x: np.ndarray, blobs: Blobs) -> np.ndarray:
    y = convolution(x, *blobs["conv"])
    if "bn" in blobs:
        y = batch_norm_stored(y, *blobs["bn"], eps=1e-5)
        y = affine(y, *blobs["bn/scale"], axis=1)
    y = conv_transpose(prelu(y, *blobs["act"]), *blobs["up"], **ONE)
    return steps(inner_product(y, *blobs["fc"])[:, np.newaxis], blobs)


@pytest.mark.parametrize("file", ["checkpoint.pt", "net.onnx", "state.pt"])
def test_torch_net(file: str) -> None:
    x, y = expected("torch.npz")
    np.testing.assert_allclose(torch_net(x, blobs_of(file)), y, atol=2e-6)


def test_a_torch_state_goes_there_and_back(tmp_path: Path) -> None:
    state = read_weights(GOLDEN / "state.pt")
    write_weights(tmp_path / "a.pt", state.layers, layout="torch")
    with zipfile.ZipFile(tmp_path / "a.pt") as back, zipfile.ZipFile(GOLDEN / "state.pt") as its:
        names = set(read_pickle(back.read("archive/data.pkl")))
        wanted = set(read_pickle(its.read("state/data.pkl")))
    assert wanted - names == {"bn.num_batches_tracked"}
    for mine, theirs in zip(read_weights(tmp_path / "a.pt").layers, state.layers, strict=True):
        assert (mine.name, mine.type) == (theirs.name, theirs.type)
        for blob, values in zip(mine.blobs, theirs.blobs, strict=True):
            np.testing.assert_array_equal(blob, values)


def test_layers_of_a_torch_state() -> None:
    layers = read_weights(GOLDEN / "state.pt").layers
    assert [(layer.name, layer.type) for layer in layers] == [
        ("conv", ""),
        ("bn", "BatchNorm"),
        ("bn/scale", "Scale"),
        ("act", ""),
        ("up", ""),
        ("fc", ""),
        ("lstm", "LSTM"),
    ]


def test_layers_of_an_onnx_model() -> None:
    layers = read_weights(GOLDEN / "net.onnx").layers
    assert [(layer.name, layer.type) for layer in layers] == [
        ("conv", "Convolution"),
        ("act", "PReLU"),
        ("up", "Deconvolution"),
        ("fc", "InnerProduct"),
        ("lstm", "LSTM"),
    ]


def test_a_checkpoint_says_what_was_left_out() -> None:
    _, stream = stream_weights(GOLDEN / "checkpoint.pt")
    assert stream.notes == ()
    assert [layer.name for layer in stream.layers][:2] == ["conv", "bn"]


def test_torch_views() -> None:
    file = read_weights(GOLDEN / "views.pt")
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = {layer.name: (layer.blobs[0], layer.stored[0]) for layer in file.layers}
    for name, values, stored in (
        ("all", base, "float32"),
        ("turned", base.T, "float32"),
        ("part", base[1:, ::2], "float32"),
        ("half", base, "float16"),
        ("brain", base, "bfloat16"),
        ("whole", base, "int64"),
        ("none", np.zeros((0, 3)), "float32"),
        ("tied", base, "float32"),
        ("given", base, "float64"),
    ):
        blob, kind = found[name]
        np.testing.assert_array_equal(blob, values)
        assert kind == stored
        assert blob.flags.c_contiguous
        assert blob.flags.writeable


def refusal(path: Path) -> tuple[str, str]:
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, diagnostic.message


def test_a_pickle_that_calls_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = refusal(GOLDEN / "evil.pt")
    assert code == "unsafe-weights"
    assert '"posix.system"' in text
    assert list(tmp_path.iterdir()) == []


def test_a_pickled_module_is_refused_by_name() -> None:
    code, text = refusal(GOLDEN / "module.pt")
    assert code == "unsafe-weights"
    assert '"torch.nn.modules.linear.Linear"' in text


def test_the_old_format_is_refused_with_advice() -> None:
    code, text = refusal(GOLDEN / "old.pt")
    assert code == "foreign-weights"
    assert "before 1.6; save it again with PyTorch" in text


def keras_net(x: np.ndarray, blobs: Blobs) -> np.ndarray:
    y = convolution(np.moveaxis(x, -1, 1), *blobs["conv"])
    y = batch_norm_stored(y, *blobs["bn"], eps=1e-3)
    y = affine(y, *blobs["bn/scale"], axis=1)
    y = prelu(convolution(y, *blobs["depth"], group=3), *blobs["act"])
    y = convolution(y, *blobs["sep/depthwise"], group=6)
    y = convolution(y, *blobs["sep/pointwise"])
    y = conv_transpose(y, *blobs["up"], **ONE)
    y = inner_product(y, *blobs["fc"])
    return np.moveaxis(steps(y[np.newaxis], blobs), 0, 1)


def test_keras_model() -> None:
    x, y = expected("keras.npz")
    _, stream = stream_weights(GOLDEN / "keras_model.h5")
    assert stream.notes == ()
    np.testing.assert_allclose(keras_net(x, blobs_of("keras_model.h5")), y, atol=2e-6)


def test_loading_tells_what_is_not_known() -> None:
    _, audit = assign([], [read_weights(GOLDEN / "keras.weights.h5")])
    assert any("does not say where a Flatten is" in text for text in audit.warnings)


def test_keras_weights_alone_lack_the_flatten() -> None:
    _, stream = stream_weights(GOLDEN / "keras.weights.h5")
    (note,) = stream.notes
    assert "does not say where a Flatten is" in note
    whole, alone = blobs_of("keras_model.h5"), blobs_of("keras.weights.h5")
    assert sorted(whole) == sorted(alone)
    weight = alone["fc"][0].reshape(5, -1, 3).swapaxes(1, 2).reshape(5, -1)
    np.testing.assert_array_equal(weight, whole["fc"][0])
    for name in whole:
        for mine, theirs in zip(alone[name], whole[name], strict=True):
            if name != "fc":
                np.testing.assert_array_equal(mine, theirs)
