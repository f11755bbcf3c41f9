"""``kdnet.io`` against pycaffe's own results, and what it does with what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kdnet
from kdnet.errors import DataError, WeightsError
from kdnet.schema import kdnet_pb2 as pb

GOLDEN = np.load(Path(__file__).parent / "golden" / "caffe" / "api.npz")
RESIZED = [key for key in GOLDEN.files if key.startswith("resize/") and "bytes" not in key]
MEANS = ("channels", "plain", "other size")


@pytest.mark.parametrize("key", RESIZED)
def test_resize_is_pycaffes(key):
    _, channels, dims, order = key.split("/")
    height, width = map(int, dims.split("x"))
    made = kdnet.io.resize_image(GOLDEN[f"image/{channels}"], (height, width), int(order))
    assert made.dtype == np.float32
    assert made == pytest.approx(GOLDEN[key], abs=2e-6)


def test_resize_of_bytes_and_of_one_value():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    made = kdnet.io.resize_image(image, (6, 3))
    assert made == pytest.approx(GOLDEN["resize/grey bytes"], abs=1e-4)
    flat = kdnet.io.resize_image(np.full((3, 3, 3), 0.25, np.float32), (2, 5))
    assert flat.shape == (2, 5, 3)
    assert (flat == 0.25).all()


def test_resize_to_the_nearest_pixel():
    image = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    made = kdnet.io.resize_image(image, (4, 4), 0)
    assert (made == image.repeat(2, 0).repeat(2, 1)).all()


def test_oversample_is_pycaffes():
    assert (kdnet.io.oversample(GOLDEN["pair"], (5, 6)) == GOLDEN["oversample"]).all()


def _transformer():
    transformer = kdnet.io.Transformer({"data": (1, 3, 6, 5)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_input_scale("data", 0.017)
    return transformer


@pytest.mark.parametrize("mean", MEANS)
def test_transformer_is_pycaffes(mean):
    transformer = _transformer()
    transformer.set_mean("data", GOLDEN[f"mean/{mean}"])
    made = transformer.preprocess("data", GOLDEN["image/3"])
    assert made.dtype == np.float32
    assert made == pytest.approx(GOLDEN[f"preprocess/{mean}"], abs=2e-4)
    back = transformer.deprocess("data", made)
    assert back == pytest.approx(GOLDEN[f"deprocess/{mean}"], abs=2e-5)


def test_preprocess_leaves_the_image_alone():
    transformer = kdnet.io.Transformer({"data": (1, 3, 7, 9)})
    transformer.set_raw_scale("data", 255)
    image = np.ones((7, 9, 3), np.float32)
    assert (transformer.preprocess("data", image) == 255).all()
    assert (image == 1).all()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda t: t.set_transpose("dta", (2, 0, 1)), 'did you mean "data"'),
        (lambda t: t.set_transpose("data", (0, 1)), "no order of 3 axes"),
        (lambda t: t.set_channel_swap("data", (2, 1)), "no order of 3 channels"),
        (lambda t: t.set_mean("data", np.zeros(4)), "a mean of 4 channels"),
        (lambda t: t.set_mean("data", np.zeros((1, 3, 6, 5))), "1, 2 or 3 axes"),
        (lambda t: t.preprocess("x", np.zeros((2, 2, 3))), 'it has "data"'),
        (lambda _: kdnet.io.resize_image(np.zeros((2, 2, 3)), (2, 3), 3), "0 or 1, not 3"),
        (lambda _: kdnet.io.resize_image(np.zeros((2, 3)), (2, 3)), "(H, W, K) is wanted"),
        (lambda _: kdnet.io.oversample(np.zeros((1, 4, 4, 3)), (5, 2)), "does not fit"),
        (lambda _: kdnet.io.array_to_datum(np.zeros(3)), "(C, H, W)"),
        (lambda _: kdnet.io.array_to_blobproto([1.0], diff=[1.0, 2.0]), "diff has shape (2,)"),
    ],
)
def test_misuse_is_told(call, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        call(_transformer())


def test_blobs_there_and_back():
    values = np.arange(6, dtype=np.float32).reshape(1, 2, 3) / 7
    blob = kdnet.io.array_to_blobproto(values, diff=-values)
    assert kdnet.io.blobproto_to_array(blob).dtype == np.float64
    assert (kdnet.io.blobproto_to_array(blob) == values).all()
    assert (kdnet.io.blobproto_to_array(blob, return_diff=True) == -values).all()
    old = pb.BlobProto(num=1, channels=1, height=2, width=3, data=values.ravel())
    assert kdnet.io.blobproto_to_array(old).shape == (1, 1, 2, 3)
    text = kdnet.io.arraylist_to_blobprotovector_str([values, values[0]])
    shapes = [found.shape for found in kdnet.io.blobprotovector_str_to_arraylist(text)]
    assert shapes == [(1, 2, 3), (2, 3)]


def test_damaged_blobs_are_told():
    blob = pb.BlobProto(data=[1, 2, 3])
    blob.shape.dim.extend((2, 2))
    with pytest.raises(WeightsError, match="bad-blob"):
        kdnet.io.blobproto_to_array(blob)
    with pytest.raises(WeightsError, match="bad-blob"):
        kdnet.io.blobprotovector_str_to_arraylist(b"\xff\xff")


def test_datums_there_and_back():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    datum = kdnet.io.array_to_datum(pixels, 7)
    assert (datum.label, datum.channels) == (7, 3)
    assert (kdnet.io.datum_to_array(datum) == pixels).all()
    floats = kdnet.io.datum_to_array(kdnet.io.array_to_datum(pixels / 2))
    assert floats.dtype == np.float64
    assert (floats == pixels / 2).all()
    datum.height = 5
    with pytest.raises(DataError, match="bad-datum"):
        kdnet.io.datum_to_array(datum)


def test_images_are_read_as_pycaffe_reads_them(tmp_path):
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3) * 7
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    alpha = np.concatenate([pixels, np.full((3, 4, 1), 99, np.uint8)], 2)
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    colour = kdnet.io.load_image(tmp_path / "colour.png")
    assert colour.dtype == np.float32
    assert colour == pytest.approx(pixels / 255.0)
    luma = (pixels / 255.0) @ [0.2125, 0.7154, 0.0721]
    assert kdnet.io.load_image(tmp_path / "colour.png", False)[:, :, 0] == pytest.approx(luma)
    assert kdnet.io.load_image(str(tmp_path / "grey.png"), False).shape == (3, 4, 1)
    grey = kdnet.io.load_image(tmp_path / "grey.png")
    assert grey == pytest.approx(np.repeat(pixels[:, :, :1], 3, 2) / 255.0)
    assert (kdnet.io.load_image(tmp_path / "alpha.png") == colour).all()


def test_images_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(DataError, match="missing-image"):
        kdnet.io.load_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match="corrupt-image"):
        kdnet.io.load_image(tmp_path / "text.png")
