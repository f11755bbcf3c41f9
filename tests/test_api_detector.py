"""``kdnet.Detector`` against pycaffe's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kdnet

CAFFE = Path(__file__).parent / "golden" / "caffe"
KNOWN, GOLDEN = np.load(CAFFE / "api.npz"), np.load(CAFFE / "detector.npz")
LOOK = {"mean": np.array([0.4, 0.5, 0.6]), "raw_scale": 2, "channel_swap": (2, 1, 0)}
WAYS = [
    ("plain", {}),
    ("look", LOOK),
    ("context", {"context_pad": 1}),
    ("both", {**LOOK, "context_pad": 2}),
]


@pytest.fixture
def detector(tmp_path, monkeypatch):
    """Makes a Detector of the net of pycaffe's results; its image lies in the folder."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(str(KNOWN["classes/net"]))
    net = kdnet.Net("net.prototxt")
    for name, params in net.params.items():
        for index, param in enumerate(params):
            param.data[...] = KNOWN[f"classes/start/{name}/{index}"]
    net.save("net.caffemodel")
    Image.fromarray(GOLDEN["image"]).save("image.png")
    return lambda **options: kdnet.Detector("net.prototxt", "net.caffemodel", **options)


@pytest.mark.parametrize(("way", "options"), WAYS)
def test_crops_and_predictions_are_pycaffes(detector, way, options):
    found = detector(**options)
    image = kdnet.io.load_image("image.png")
    for index, window in enumerate(GOLDEN["windows"]):
        wanted = GOLDEN[f"{way}/crop/{index}"]
        assert found.crop(image, window) == pytest.approx(wanted, abs=1e-6), index
    told = found.detect_windows([("image.png", GOLDEN["windows"])])
    predictions = np.array([one["prediction"] for one in told])
    assert predictions == pytest.approx(GOLDEN[f"{way}/predictions"], rel=1e-4)
    assert [one["filename"] for one in told] == ["image.png"] * len(told)
    assert (told[2]["window"] == GOLDEN["windows"][2]).all()


def test_windows_may_come_from_several_images(detector):
    found = detector(context_pad=1)
    windows = [(2, 3, 9, 12), [0, 0, 5, 5]]
    told = found.detect_windows(iter([("image.png", windows[:1]), ("image.png", windows[1:])]))
    wanted = GOLDEN["context/predictions"][:2]
    assert np.array([one["prediction"] for one in told]) == pytest.approx(wanted, rel=1e-4)
    assert found.detect_windows([]) == []


def test_what_cannot_be_is_told(detector):
    found = detector()
    with pytest.raises(ValueError, match=r"window \(3, 4, 3, 9\) holds no pixel"):
        found.detect_windows([("image.png", [(3, 4, 3, 9)])])
    with pytest.raises(ValueError, match="context_pad is 3, the input"):
        detector(context_pad=3)
