"""Records and images by themselves: Datum, JPEG and PNG, OpenCV's resizing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kdnet.data.datum import Item, RawReader, read_datum, write_datum
from kdnet.data.image import decode, resize
from kdnet.schema import kdnet_pb2 as pb

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)

labels = st.integers(-(2**31), 2**31 - 1)


@given(labels)
def test_a_datum_reads_back_as_it_was_written(label: int):
    for pixels in (PIXELS, PIXELS.astype(np.float32) / 3):
        found = read_datum(write_datum(Item(pixels, label)))
        assert found.label == label
        assert found.pixels.dtype == pixels.dtype
        np.testing.assert_array_equal(found.pixels, pixels)


@given(labels, st.booleans(), st.booleans())
def test_the_short_way_reads_what_parsing_reads(label: int, has_label: bool, states_raw: bool):
    datum = pb.Datum(channels=2, height=3, width=4, data=PIXELS.tobytes())
    if has_label:
        datum.label = label
    if states_raw:
        datum.encoded = False
    row = np.zeros(24, np.uint8)
    reader = RawReader((2, 3, 4))
    for _ in range(2):
        row[:] = 0
        assert reader.read(datum.SerializeToString(), row) == datum.label
        np.testing.assert_array_equal(row, PIXELS.ravel())


@pytest.mark.parametrize(
    "record",
    [
        pb.Datum(channels=2, height=4, width=3, data=PIXELS.tobytes()),
        pb.Datum(channels=2, height=3, width=4, data=PIXELS.tobytes()[:-1]),
        pb.Datum(channels=2, height=3, width=4, data=PIXELS.tobytes(), float_data=[1]),
        pb.Datum(channels=2, height=3, width=4, data=PIXELS.tobytes(), encoded=True),
        pb.Datum(),
    ],
)
def test_the_short_way_leaves_other_layouts_alone(record: pb.Datum):
    row = np.full(24, 7, np.uint8)
    assert RawReader((2, 3, 4)).read(record.SerializeToString(), row) is None
    assert (row == 7).all()


def test_the_short_way_sees_what_overrides_the_shape_after_the_pixels():
    record = pb.Datum(channels=2, height=3, width=4, data=PIXELS.tobytes()).SerializeToString()
    for tail in (pb.Datum(height=4, width=3).SerializeToString(), b"\xff"):
        assert RawReader((2, 3, 4)).read(record + tail, np.zeros(24, np.uint8)) is None


def encoded(mode: str, kind: str, **more: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(file, kind, **more)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 4), ("P", 4), ("RGB", 3), ("RGBA", 4)]
)
def test_a_png_keeps_its_channels_blue_first(mode: str, channels: int):
    data = encoded(mode, "PNG")
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    found = decode(data)
    assert found.shape == (channels, 16, 24)
    if channels == 1:
        np.testing.assert_array_equal(found[0], wanted)
    else:
        for plane, source in zip(found, (2, 1, 0, 3), strict=False):
            np.testing.assert_array_equal(plane, wanted[:, :, source])


def test_a_palette_is_looked_up():
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 4, 5, 6])
    image.putpixel((1, 0), 1)
    file = io.BytesIO()
    image.save(file, "PNG")
    assert decode(file.getvalue()).tolist() == [[[3, 6]], [[2, 5]], [[1, 4]]]


def test_a_colour_jpeg_is_grey_by_its_own_luma():
    data = encoded("RGB", "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as image:
        image.draft("L", image.size)
        wanted = np.asarray(image)
    np.testing.assert_array_equal(decode(data, 1)[0], wanted)
    assert decode(data).shape == decode(data, 3).shape == (3, 16, 24)


def test_a_colour_png_is_grey_by_libpng_s_weights():
    colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9], [255, 255, 255], [200, 100, 50]]
    file = io.BytesIO()
    Image.fromarray(np.array([colours], np.uint8)).save(file, "PNG")
    # What cv2.imread(file, IMREAD_GRAYSCALE) of OpenCV 4.14 makes of it.
    assert decode(file.getvalue(), 1).tolist() == [[[76, 149, 29, 9, 255, 124]]]


def test_a_printer_s_jpeg_is_read_as_colour():
    assert decode(encoded("CMYK", "JPEG")).shape == (3, 16, 24)


@given(st.binary(max_size=64))
def test_bytes_that_are_no_image_are_refused(data: bytes):
    with pytest.raises(ValueError, match="cannot be decoded as an image"):
        decode(data)


def test_a_format_nobody_lists_is_refused():
    with pytest.raises(ValueError, match="cannot identify"):
        decode(encoded("RGB", "GIF"))


# What cv2.resize of OpenCV 4.14 makes of this image: (3, 4) and (7, 9).
IMAGE = np.array(
    [
        [245, 114, 147, 21, 73, 183, 241],
        [94, 212, 196, 176, 46, 119, 52],
        [123, 235, 210, 176, 136, 195, 32],
        [32, 214, 26, 9, 133, 161, 104],
        [108, 100, 75, 64, 124, 119, 122],
    ],
    np.uint8,
)
SHRUNK = [[177, 152, 65, 172], [165, 206, 141, 93], [103, 57, 117, 122]]
GROWN = [
    [245, 158, 128, 119, 21, 61, 134, 202, 241],
    [159, 166, 172, 160, 110, 69, 107, 142, 133],
    [102, 180, 210, 195, 176, 95, 110, 109, 46],
    [123, 198, 224, 202, 176, 145, 169, 141, 32],
    [58, 166, 157, 74, 57, 117, 154, 141, 83],
    [65, 132, 113, 44, 32, 107, 137, 132, 112],
    [108, 102, 89, 72, 64, 111, 121, 120, 122],
]


@pytest.mark.parametrize("wanted", [SHRUNK, GROWN], ids=["shrunk", "grown"])
def test_resizing_is_that_of_opencv_to_one_grey_level(wanted: list[list[int]]):
    found = resize(IMAGE[None], len(wanted), len(wanted[0]))
    assert found.dtype == np.uint8
    assert np.abs(found[0].astype(int) - wanted).max() <= 1


def test_halving_averages_four_pixels_and_channels_do_not_mix():
    image = np.random.default_rng(1).integers(0, 256, (3, 8, 6), dtype=np.uint8)
    blocks = image.reshape(3, 4, 2, 3, 2).astype(int).sum(axis=(2, 4))
    np.testing.assert_array_equal(resize(image, 4, 3), (blocks + 2) >> 2)


def test_resizing_to_the_same_size_changes_nothing():
    np.testing.assert_array_equal(resize(IMAGE[None], 5, 7), IMAGE[None])
