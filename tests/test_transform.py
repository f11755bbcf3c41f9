"""Mean, scale, crop and mirror against Caffe's formulas, written out image by image."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tables.sources import LMDB, layer_of

from kdnet.data.mean import read_mean, write_mean
from kdnet.data.transform import Transformer
from kdnet.errors import DataError, WeightsError
from kdnet.schema import kdnet_pb2 as pb

RNG = np.random.default_rng(11)
ITEMS = RNG.integers(0, 256, (64, 3, 9, 8), dtype=np.uint8)
MEAN = RNG.uniform(0, 255, (3, 9, 8)).astype(np.float32)
SCALE = np.float32(0.00390625 * 1.5)


def transformer(
    text: str, folder: Path, *, phase: int = pb.TRAIN, seed: int = 1, name: str = "d"
) -> Transformer:
    prototxt = LMDB.replace('"d"', f'"{name}"') + "transform_param { " + text + " }"
    return Transformer(layer_of(prototxt, folder, phase), ITEMS.shape[1:], seed)


def mean_file(folder: Path) -> str:
    write_mean(folder / "mean.binaryproto", MEAN)
    return 'mean_file: "@/mean.binaryproto" '


def by_formula(item: np.ndarray, mean: np.ndarray, place: tuple[int, int, bool]) -> np.ndarray:
    """(x - mean) * scale pixel by pixel; the mean is read where the pixel was."""
    top, left, flip = place
    out = np.empty((3, 5, 5), np.float32)
    for c, y, x in np.ndindex(3, 5, 5):
        pixel = np.float32(item[c, top + y, left + x])
        at = 4 - x if flip else x
        out[c, y, at] = (pixel - np.float32(mean[c, top + y, left + x])) * SCALE
    return out


def places(images: np.ndarray, mean: np.ndarray, items: np.ndarray) -> list[tuple[int, int, bool]]:
    """Where each image was cropped and whether it was flipped, by trying every place."""
    found = []
    for image, item in zip(images, items, strict=True):
        every = [(y, x, flip) for y in range(5) for x in range(4) for flip in (False, True)]
        (match,) = (place for place in every if (by_formula(item, mean, place) == image).all())
        found.append(match)
    return found


@pytest.mark.parametrize("kind", ["file", "value", "values", "none"])
def test_training_images_are_crops_at_random_places_half_of_them_flipped(kind, tmp_path):
    values = np.array([104.5, 117.25, 123], np.float32)
    text, mean = {
        "file": (mean_file(tmp_path), MEAN),
        "value": ("mean_value: 33.5 ", np.full_like(MEAN, 33.5)),
        "values": (
            "mean_value: 104.5 mean_value: 117.25 mean_value: 123 ",
            np.broadcast_to(values[:, None, None], MEAN.shape),
        ),
        "none": ("", np.zeros_like(MEAN)),
    }[kind]
    made = transformer(text + f"scale: {SCALE} crop_size: 5 mirror: true", tmp_path)
    assert made.shape == (3, 5, 5)
    found = places(made.apply(ITEMS[:24], 3), mean, ITEMS[:24])
    assert len(set(found)) > 12
    assert 4 <= sum(flip for *_, flip in found) <= 20


def test_every_place_is_as_likely_as_any_other(tmp_path: Path):
    ramp = np.arange(72, dtype=np.float32).reshape(1, 1, 9, 8).repeat(3, axis=1)
    items = ramp.repeat(64, axis=0)
    made = transformer("crop_size: 5 mirror: true", tmp_path)
    seen: Counter[tuple[float, float]] = Counter()
    for index in range(125):
        seen.update((image[0, 0, 0], image[0, 0, 4]) for image in made.apply(items, index))
    corners = {(8.0 * y + x, 8.0 * y + x + 4) for y in range(5) for x in range(4)}
    assert set(seen) == corners | {(right, left) for left, right in corners}
    # 8000 draws of 40 outcomes: 200 each, with a standard deviation of 14.
    assert all(130 < count < 270 for count in seen.values())


def test_testing_crops_the_middle_and_still_mirrors(tmp_path: Path):
    text = mean_file(tmp_path) + f"scale: {SCALE} crop_size: 5 mirror: true"
    found = places(transformer(text, tmp_path, phase=pb.TEST).apply(ITEMS, 0), MEAN, ITEMS)
    # (9 - 5) / 2 and (8 - 5) / 2, rounded down.
    assert {place[:2] for place in found} == {(2, 1)}
    assert 16 <= sum(flip for *_, flip in found) <= 48


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST])
def test_without_mirror_nothing_is_flipped(phase: int, tmp_path: Path):
    text = mean_file(tmp_path) + f"scale: {SCALE} crop_size: 5"
    found = places(transformer(text, tmp_path, phase=phase).apply(ITEMS, 0), MEAN, ITEMS)
    assert not any(flip for *_, flip in found)


def test_a_whole_image_loses_the_whole_mean(tmp_path: Path):
    made = transformer(mean_file(tmp_path) + "scale: 0.5", tmp_path)
    wanted = (ITEMS.astype(np.float32) - MEAN) * np.float32(0.5)
    np.testing.assert_array_equal(made.apply(ITEMS, 0), wanted)


def test_without_parameters_bytes_become_the_same_numbers(tmp_path: Path):
    found = transformer("", tmp_path).apply(ITEMS, 0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ITEMS)


def test_stored_numbers_are_transformed_like_bytes_and_left_as_they_were(tmp_path: Path):
    items = ITEMS.astype(np.float32) / 7
    kept = items.copy()
    made = transformer("scale: 2 mean_value: 1 mirror: true", tmp_path)
    found = made.apply(items, 0)
    plain = (kept - 1) * 2
    same = (found == plain).all(axis=(1, 2, 3))
    flipped = (found == plain[..., ::-1]).all(axis=(1, 2, 3))
    assert (same ^ flipped).all()
    assert 0 < same.sum() < len(items)
    np.testing.assert_array_equal(items, kept)


def test_choices_belong_to_seed_layer_and_batch(tmp_path: Path):
    text = "crop_size: 5 mirror: true"
    first = transformer(text, tmp_path).apply(ITEMS, 4)
    np.testing.assert_array_equal(transformer(text, tmp_path).apply(ITEMS, 4), first)
    others = [
        transformer(text, tmp_path).apply(ITEMS, 5),
        transformer(text, tmp_path, seed=2).apply(ITEMS, 4),
        transformer(text, tmp_path, name="e").apply(ITEMS, 4),
    ]
    assert all((other != first).any() for other in others)


def test_a_crop_of_the_image_s_own_size_takes_all_of_it(tmp_path: Path):
    layer = layer_of(LMDB + "transform_param { crop_size: 8 }", tmp_path)
    items = ITEMS[:, :, :8]
    np.testing.assert_array_equal(Transformer(layer, (3, 8, 8), 0).apply(items, 0), items)


def test_mean_files_are_read_in_caffe_s_shapes(tmp_path: Path):
    path = tmp_path / "mean.binaryproto"
    write_mean(path, MEAN)
    written = pb.BlobProto.FromString(path.read_bytes())
    assert (written.num, written.channels, written.height, written.width) == (1, 3, 9, 8)
    np.testing.assert_array_equal(read_mean(path), MEAN)
    for dims in ((3, 9, 8), (1, 3, 9, 8)):
        blob = pb.BlobProto(shape=pb.BlobShape(dim=dims), data=MEAN.ravel().tolist())
        path.write_bytes(blob.SerializeToString())
        np.testing.assert_array_equal(read_mean(path), MEAN)


def test_what_is_no_mean_file_is_refused(tmp_path: Path):
    path = tmp_path / "mean.binaryproto"
    for content in (b"", b"\xff" * 9, b"layer {}"):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_mean(path)
        assert caught.value.diagnostics[0].code == "bad-mean-file"
    with pytest.raises(DataError, match="Is a directory"):
        read_mean(tmp_path)


def test_a_mean_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    with pytest.raises(WeightsError, match="cannot-write"):
        write_mean(tmp_path / "none" / "mean", MEAN)
    assert list(tmp_path.iterdir()) == []
