"""``kdnet.Classifier`` against pycaffe's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kdnet

GOLDEN = np.load(Path(__file__).parent / "golden" / "caffe" / "api.npz")


@pytest.fixture
def files(tmp_path):
    path, weights = tmp_path / "classes.prototxt", tmp_path / "classes.caffemodel"
    path.write_text(str(GOLDEN["classes/net"]))
    net = kdnet.Net(path)
    for name, params in net.params.items():
        for index, param in enumerate(params):
            param.data[...] = GOLDEN[f"classes/start/{name}/{index}"]
    net.save(weights)
    return path, weights


@pytest.mark.parametrize(("way", "ten"), [("ten", True), ("middle", False)])
def test_scores_are_pycaffes(files, way, ten):
    mean = np.array([0.4, 0.5, 0.6])
    found = kdnet.Classifier(*files, (9, 8), mean=mean, raw_scale=2, channel_swap=(2, 1, 0))
    scores = found.predict([GOLDEN["classes/0"], GOLDEN["classes/1"]], ten)
    assert scores == pytest.approx(GOLDEN[f"classes/{way}"], rel=1e-4)


def test_images_of_the_inputs_size_are_taken_whole(files):
    found = kdnet.Classifier(*files, input_scale=0.5)
    assert found.image_dims == found.crop_dims == (6, 6)
    image = np.random.default_rng(0).random((6, 6, 3), np.float32)
    want = found.forward_all(data=image.transpose(2, 0, 1)[None] / 2)["prob"]
    assert found.predict([image], False) == pytest.approx(want)


def test_a_net_without_images_is_told():
    n = kdnet.NetSpec()
    n.data = kdnet.layers.Input(shape={"dim": [2, 3]})
    with pytest.raises(ValueError, match="begins with no input of shape"):
        kdnet.Classifier(n)
