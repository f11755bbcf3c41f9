"""Images of several sizes in one batch, each cropped from its own."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tables.sources import IMAGES, LMDB, layer_of, png, write_lmdb

from kdnet.cli import main
from kdnet.data import Source, cache, open_source, static_shapes
from kdnet.data.transform import Transformer
from kdnet.errors import DataError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import philox

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from make_caffe_sizes import BATCHES, CASES, OUT, build_files, images_of

RNG = np.random.default_rng(3)
SIZES = ((6, 5), (6, 5), (6, 5), (6, 5), (9, 4), (4, 4), (8, 11))
ITEMS = [RNG.integers(0, 256, (3, *size), dtype=np.uint8) for size in SIZES]
LABELS = [3, 1, 4, 1, 5, 16777217, 2]
CROP = "transform_param { crop_size: 4 mirror: true scale: 0.5 mean_value: 7 }"


def raw(items: list[np.ndarray], folder: Path) -> str:
    """A database of records as Caffe's tools write them, and a layer that reads it."""
    records = []
    for item, label in zip(items, LABELS, strict=False):
        channels, height, width = item.shape
        record = pb.Datum(channels=channels, height=height, width=width, label=label)
        record.data = item.tobytes()
        records.append(record.SerializeToString())
    write_lmdb(folder / "db", records)
    return LMDB


def encoded(items: list[np.ndarray], folder: Path) -> str:
    records = [
        pb.Datum(data=png(item), label=label, encoded=True).SerializeToString()
        for item, label in zip(items, LABELS, strict=False)
    ]
    write_lmdb(folder / "db", records)
    return LMDB


def files(items: list[np.ndarray], folder: Path) -> str:
    for row, item in enumerate(items):
        (folder / f"{row}.png").write_bytes(png(item))
    lines = [f"{row}.png {LABELS[row]}\n" for row in range(len(items))]
    (folder / "list.txt").write_text("".join(lines))
    return IMAGES


STORES = [raw, encoded, files]
Store = Callable[[list[np.ndarray], Path], str]
each_store = pytest.mark.parametrize("store", STORES)


def opened(
    store: Store,
    folder: Path,
    transform: str = CROP,
    *,
    items: list[np.ndarray] = ITEMS,
    phase: int = pb.TRAIN,
) -> Source:
    folder.mkdir(exist_ok=True)
    text = store(items, folder)
    return open_source(layer_of(text + transform, folder, phase), seed=5)


def by_hand(name: str, index: int, *, random: bool) -> tuple[np.ndarray, np.ndarray]:
    """Batch ``index`` of four: three numbers an image, taken of the image's own room."""
    draws = philox(5, name, "transform", index).random((3, 4))
    rows = [row % len(ITEMS) for row in range(4 * index, 4 * index + 4)]
    images = np.empty((4, 3, 4, 4), np.float32)
    for place, row in enumerate(rows):
        _, height, width = ITEMS[row].shape
        y, x = (height - 4) // 2, (width - 4) // 2
        if random:
            y, x = int(draws[0, place] * (height - 3)), int(draws[1, place] * (width - 3))
        image = (ITEMS[row][:, y : y + 4, x : x + 4].astype(np.float32) - 7) * np.float32(0.5)
        images[place] = image[..., ::-1] if draws[2, place] < 0.5 else image
    return images, np.array([LABELS[row] for row in rows], np.float32)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(OUT) as found:
        return dict(found)


@pytest.mark.parametrize("case", sorted(CASES))
def test_tops_are_those_of_caffe(case: str, golden, tmp_path: Path) -> None:
    build_files(tmp_path, golden["pixels"], golden["labels"], pb)
    assert len({image.shape for image in images_of(golden["pixels"])}) > 4
    layer = layer_of('name: "data" top: "top0" top: "top1" ' + CASES[case], tmp_path, pb.TEST)
    with open_source(layer, seed=0) as source:
        for index in range(BATCHES):
            images, labels = source.batch(index)
            assert images.shape == source.shapes[0]
            np.testing.assert_array_equal(images, golden[f"{case}/top0"][index])
            np.testing.assert_array_equal(labels, golden[f"{case}/top1"][index])


@each_store
@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST])
def test_each_image_is_cropped_from_its_own_size(store: Store, phase, tmp_path: Path) -> None:
    with opened(store, tmp_path, phase=phase) as source:
        name = source.layer.name
        for index in (0, 1, 5, 0):
            images, labels = source.batch(index)
            assert images.flags.c_contiguous
            wanted = by_hand(name, index, random=phase == pb.TRAIN)
            np.testing.assert_array_equal(images, wanted[0])
            np.testing.assert_array_equal(labels, wanted[1])


@each_store
@pytest.mark.parametrize("limit", [0, 1400])
def test_memory_has_a_limit_and_no_say(store: Store, limit: int, tmp_path, monkeypatch) -> None:
    with opened(store, tmp_path / "kept") as source:
        kept = [source.batch(index) for index in (1, 3, 1)]
    monkeypatch.setattr(cache, "LIMIT_BYTES", limit)
    with opened(store, tmp_path / "read") as source:
        for wanted, index in zip(kept, (1, 3, 1), strict=True):
            for one, other in zip(wanted, source.batch(index), strict=True):
                np.testing.assert_array_equal(one, other)


def test_whole_images_without_room_are_held_one_at_a_time(tmp_path: Path, monkeypatch) -> None:
    items = [np.full((3, 600, 600), row, np.uint8) for row in range(4)]
    monkeypatch.setattr(cache, "LIMIT_BYTES", 2**20)
    crop = "transform_param { crop_size: 4 }"
    with opened(encoded, tmp_path, crop, items=items) as source:
        tracemalloc.start()
        images, _ = source.batch(0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (images == np.arange(4)[:, None, None, None]).all()
    assert peak < 3.5 * items[0].nbytes


def test_what_has_no_room_is_read_again() -> None:
    read: list[int] = []

    def item(row: int) -> tuple[np.ndarray, int]:
        read.append(row)
        return np.full((1, 1000, 100 * (row + 1)), row, np.uint8), row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "LIMIT_BYTES", 500_000)
        kept = cache.ItemCache(item)
    for row in (0, 4, 1, 0, 4, 1, 2):
        image, label = kept.take(row)
        assert (image[0, 0, 0], label) == (row, row)
    assert read == [0, 4, 1, 4, 2]


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST])
@pytest.mark.parametrize("text", ["crop_size: 4 mirror: true mean_value: 3", "@ crop_size: 6"])
def test_equal_images_come_out_the_same_one_by_one(text: str, phase: int, tmp_path: Path) -> None:
    mean = pb.BlobProto(num=1, channels=3, height=6, width=7)
    mean.data.extend(RNG.uniform(0, 255, 126).tolist())
    (tmp_path / "mean").write_bytes(mean.SerializeToString())
    transform = text.replace("@", f'mean_file: "{tmp_path}/mean" scale: 0.017')
    layer = layer_of(LMDB + "transform_param { " + transform + " }", tmp_path, phase)
    items = RNG.integers(0, 256, (9, 3, 6, 7), dtype=np.uint8)
    made = Transformer(layer, (3, 6, 7), 1, several=True)
    for index in range(3):
        wanted = Transformer(layer, (3, 6, 7), 1).apply(items, index)
        np.testing.assert_array_equal(made.apply(items, index), wanted)
        np.testing.assert_array_equal(made.apply_each(iter(items), 9, index), wanted)


def test_a_crop_as_large_as_the_first_image_is_random_in_the_others(tmp_path: Path) -> None:
    items = [ITEMS[5], *[ITEMS[6]] * 3]
    with opened(raw, tmp_path, "transform_param { crop_size: 4 }", items=items) as source:
        assert source.varies == "crop_size in TRAIN crops images at random"
        seen = [source.batch(index)[0] for index in range(20)]
    for batch in seen:
        np.testing.assert_array_equal(batch[0], items[0])
    assert len({batch[1].tobytes() for batch in seen}) > 5


def test_centre_crops_belong_to_their_records(tmp_path: Path) -> None:
    text = "transform_param { crop_size: 4 }"
    with opened(raw, tmp_path / "a", text, phase=pb.TEST) as source:
        assert source.varies == ""
        assert source.record_count == len(ITEMS)
        first, again = source.batch(1)[0], source.batch(1 + len(ITEMS))[0]
        known = source.identity()
    np.testing.assert_array_equal(first, again)
    with opened(raw, tmp_path / "b", text, items=ITEMS[:-1], phase=pb.TEST) as source:
        assert source.identity()["contents"] != known["contents"]


def test_a_view_crops_at_the_same_share_of_each_image(tmp_path: Path) -> None:
    crop = "transform_param { crop_size: 4 mirror: true }"
    view = 'transform_param { crop_size: 4 mirror: true scale: 2 draws_of: "d" }'
    with opened(raw, tmp_path / "a", crop) as one:
        other_text = raw(ITEMS, tmp_path).replace('"d"', '"e"')
        with open_source(layer_of(other_text + view, tmp_path), seed=5) as other:
            for index in range(4):
                np.testing.assert_array_equal(other.batch(index)[0], one.batch(index)[0] * 2)


def test_a_stated_shape_says_the_channels_where_images_are_cropped(tmp_path: Path) -> None:
    text = files(ITEMS, tmp_path) + CROP
    layer = layer_of(text, tmp_path)
    assert static_shapes(layer, shape=(3, 256, 256)) == ((4, 3, 4, 4), (4,))
    with open_source(layer, seed=0, shape=(3, 256, 256)) as source:
        assert source.shapes == ((4, 3, 4, 4), (4,))
    with pytest.raises(DataError, match="item-shape"):
        open_source(layer, seed=0, shape=(1, 6, 5))


GREY = RNG.integers(0, 256, (1, 9, 9), dtype=np.uint8)
RECORD = 'record 2 (key "00000002") of "@/db"'


@pytest.mark.parametrize(
    "case",
    [
        (raw, "", ITEMS[6], "record-shape", f"{RECORD} has shape (3, 8, 11); the first has", '"@'),
        (raw, CROP, GREY, "record-shape", f"{RECORD} has shape (1, 9, 9); the first has", '"@'),
        (
            raw,
            CROP.replace("4", "5"),
            ITEMS[4],
            "crop-too-large",
            f"larger than {RECORD}, 9 x",
            "5",
        ),
        (
            encoded,
            CROP.replace("4", "5"),
            ITEMS[5],
            "crop-too-large",
            f"crop_size 5 is larger than {RECORD}, 4 x 4",
            "5",
        ),
        (
            files,
            CROP.replace("4", "5"),
            ITEMS[5],
            "crop-too-large",
            'crop_size 5 is larger than "2.png" (line 3 of "@/list.txt"), 4 x 4',
            "5",
        ),
        (
            files,
            'transform_param { crop_size: 4 mean_file: "@/mean" }',
            ITEMS[6],
            "mean-shape",
            '"2.png" (line 3 of "@/list.txt") has shape (3, 8, 11); the mean image has (3, 6, 5)',
            '"@/mean"',
        ),
    ],
)
def test_an_image_that_cannot_join_is_named(case: tuple, tmp_path: Path) -> None:
    store, transform, bad, code, message, at = case
    mean = pb.BlobProto(num=1, channels=3, height=6, width=5, data=[1.0] * 90)
    (tmp_path / "mean").write_bytes(mean.SerializeToString())
    text = store([ITEMS[0], ITEMS[1], bad], tmp_path) + transform
    with (
        open_source(layer_of(text, tmp_path), seed=0) as source,
        pytest.raises(DataError) as caught,
    ):
        source.batch(0)
    (found,) = caught.value.diagnostics
    assert found.code == code
    assert message.replace("@", str(tmp_path)) in found.message
    assert found.notes == ()
    written = text.replace("@", str(tmp_path))[found.span.column - 1 :]
    assert written.startswith(at.replace("@", str(tmp_path)))


def test_answers_to_images_of_several_sizes_belong_to_their_records(tmp_path: Path) -> None:
    encoded(ITEMS, tmp_path)
    net = """layer { name: "d" type: "Data" top: "data" include { phase: TEST }
        transform_param { crop_size: 4 } data_param { source: "db" batch_size: 3 } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {
        num_output: 2 weight_filler { value: 1 } } }"""
    path, answers = tmp_path / "net.prototxt", tmp_path / "a.npz"
    path.write_text(net)
    command = ["data", "soft-labels", str(path), "--blob", "ip", "--data", "test"]
    more = ["--allow-unloaded", "--device", "cpu", "-o", str(answers)]
    assert main([*command, *more]) == 0
    sums = []
    for item in ITEMS:
        y, x = ((extent - 4) // 2 for extent in item.shape[1:])
        sums.append(float(item[:, y : y + 4, x : x + 4].sum()))
    with np.load(answers) as found:
        np.testing.assert_array_equal(found["logits"], np.array([sums, sums]).T)
