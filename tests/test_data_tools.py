"""kdnet data: databases from every collection, mean images, and fetching by digest."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image
from tables.sources import LABELS, PIXELS, database, png, write_images

from kdnet.cli import main
from kdnet.schema import kdnet_pb2 as pb

REPOSITORY = Path(__file__).parents[1]
DIGITS = REPOSITORY / "nets" / "mnist" / "data"
CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10"

RNG = np.random.default_rng(2)
GREY = RNG.integers(0, 256, (7, 4, 3), dtype=np.uint8)
CLASSES = np.array([0, 9, 200, 3, 4, 5, 6])


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `kdnet data ...`."""
    status = main(["data", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def records(folder: Path) -> list[tuple[str, pb.Datum]]:
    environment = lmdb.open(str(folder), readonly=True, lock=False)
    with environment, environment.begin() as transaction:
        return [(key.decode(), pb.Datum.FromString(value)) for key, value in transaction.cursor()]


def pixels(datum: pb.Datum) -> np.ndarray:
    shape = (datum.channels, datum.height, datum.width)
    values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data)
    return values.reshape(shape)


def assert_holds(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    found = records(folder)
    assert [key[:8] for key, _ in found] == [f"{row:08}" for row in range(len(images))]
    assert [datum.label for _, datum in found] == labels.tolist()
    for (_, datum), image in zip(found, images, strict=True):
        np.testing.assert_array_equal(pixels(datum), image)


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, prefix: str, *, pack: bool = True) -> list[Path]:
    made = []
    for name, array in (("images-idx3", GREY), ("labels-idx1", CLASSES)):
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if pack else ''}"
        path.write_bytes(gzip.compress(idx(array)) if pack else idx(array))
        made.append(path)
    return made


COLOUR = RNG.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
TENS = np.array([0, 9, 1, 8, 2, 7])


def batch(rows: slice) -> bytes:
    pairs = zip(TENS[rows], COLOUR[rows], strict=True)
    return b"".join(bytes([label]) + image.tobytes() for label, image in pairs)


def write_batches(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(batch(slice(number - 1, number)))
    (folder / "test_batch.bin").write_bytes(batch(slice(5, 6)))


def write_archive(path: Path) -> None:
    """The published order: not that of the numbers."""
    with tarfile.open(path, "w:gz") as archive:
        for number in (1, 4, 3, 5, 2):
            data = batch(slice(number - 1, number))
            member = tarfile.TarInfo(f"cifar-10-batches-bin/data_batch_{number}.bin")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("pack", [True, False])
def test_idx_folders_and_pairs_become_databases(pack, tmp_path, capsys):
    images, labels = write_idx(tmp_path, "t10k", pack=pack)
    status, out, err = run(capsys, "lmdb", tmp_path, tmp_path / "a")
    assert (status, out, err) == (0, f"{tmp_path / 'a'}: 7 images, 1 x 4 x 3\n", "")
    assert run(capsys, "lmdb", labels, images, tmp_path / "b")[0] == 0
    for name in "ab":
        assert_holds(tmp_path / name, GREY[:, None], CLASSES)


def test_the_shipped_digits_become_databases_by_part(tmp_path, capsys):
    for part, count in (("train", 8000), ("test", 2000)):
        status, out, _ = run(capsys, "lmdb", DIGITS, tmp_path / part, "--part", part)
        assert (status, out) == (0, f"{tmp_path / part}: {count} images, 1 x 28 x 28\n")
        assert {datum.label for _, datum in records(tmp_path / part)} == set(range(10))


def test_cifar_batches_become_databases_in_their_order(tmp_path, capsys):
    write_batches(tmp_path / "cifar-10-batches-bin")
    write_archive(tmp_path / "cifar.tar.gz")
    first = tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin"
    for name, words, rows in (
        ("folder", [tmp_path, "--part", "train"], slice(0, 5)),
        ("test", [tmp_path / "cifar-10-batches-bin", "--part", "test"], slice(5, 6)),
        ("archive", [tmp_path / "cifar.tar.gz", "--part", "train"], slice(0, 5)),
        ("batch", [first], slice(0, 1)),
    ):
        status, _, err = run(capsys, "lmdb", words[0], tmp_path / name, *words[1:])
        assert (status, err) == (0, "")
        assert_holds(tmp_path / name, COLOUR[rows], TENS[rows])


@pytest.mark.parametrize(
    ("names", "images", "planes", "words"),
    [
        (("x", "y"), GREY, GREY[:, None], []),
        (("images", "labels"), PIXELS[:7], PIXELS[:7], []),
        (("data", "label"), PIXELS[:7].transpose(0, 2, 3, 1), PIXELS[:7], []),
        (("x", "y"), GREY.astype(np.float64) / 2, GREY[:, None].astype(np.float32) / 2, []),
        (("x_test", "y_test"), GREY, GREY[:, None], ["--part", "test"]),
    ],
    ids=["grey", "planes", "channels-last", "numbers", "part"],
)
def test_arrays_become_databases(names, images, planes, words, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **{names[0]: images, names[1]: CLASSES})
    assert run(capsys, "lmdb", tmp_path / "a.npz", tmp_path / "db", *words)[::2] == (0, "")
    assert_holds(tmp_path / "db", planes, CLASSES)


def write_jpegs(path: Path) -> list[bytes]:
    files = []
    for image in COLOUR:
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG")
        files.append(file.getvalue())
    offsets = np.cumsum([0, *map(len, files)])
    whole = np.frombuffer(b"".join(files), np.uint8)
    np.savez(path, jpeg=whole, offsets=offsets, labels=TENS.astype(np.uint8))
    return files


@pytest.mark.parametrize("words", [[], ["--gray"], ["--encoded"]])
def test_an_archive_of_jpegs_becomes_a_database(words, tmp_path, capsys):
    files = write_jpegs(tmp_path / "train.npz")
    status, out, _ = run(capsys, "lmdb", tmp_path, tmp_path / "db", *words)
    assert (status, out.split(", ")[1]) == (0, f"{1 if '--gray' in words else 3} x 32 x 32\n")
    for (_, datum), file in zip(records(tmp_path / "db"), files, strict=True):
        if words == ["--encoded"]:
            assert (datum.encoded, datum.data) == (True, file)
            continue
        with Image.open(io.BytesIO(file)) as image:
            wanted = np.asarray(image.convert("RGB"))[:, :, ::-1].transpose(2, 0, 1)
        if words == []:
            np.testing.assert_array_equal(pixels(datum), wanted)


@pytest.mark.skipif(not CIFAR.is_dir(), reason="needs shared/data/cifar10")
def test_real_jpegs_are_read(tmp_path, capsys):
    status, out, _ = run(capsys, "lmdb", CIFAR, tmp_path / "db", "--part", "test", "--encoded")
    assert (status, out) == (0, f"{tmp_path / 'db'}: 10000 images, 3 x 32 x 32\n")


def test_an_image_list_becomes_a_database(tmp_path, capsys):
    write_images(tmp_path)
    assert run(capsys, "lmdb", tmp_path / "list.txt", tmp_path / "db")[0] == 0
    assert_holds(tmp_path / "db", PIXELS, LABELS)
    assert records(tmp_path / "db")[3][0] == "00000003_an image3.png"
    words = ["--root", f"{tmp_path}/an ", "--resize", "3", "5", "--gray"]
    lines = (tmp_path / "list.txt").read_text().replace("an ", "")
    (tmp_path / "list.txt").write_text(lines)
    status, out, _ = run(capsys, "lmdb", tmp_path / "list.txt", tmp_path / "small", *words)
    assert (status, out) == (0, f"{tmp_path / 'small'}: 10 images, 1 x 3 x 5\n")


def test_a_shuffled_list_has_every_image_once_in_an_order_of_its_seed(tmp_path, capsys):
    write_images(tmp_path)
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ["--shuffle", "--seed", seed, "--encoded"]
        assert run(capsys, "lmdb", tmp_path / "list.txt", tmp_path / name, *words)[0] == 0
        found = records(tmp_path / name)
        orders.append([datum.label for _, datum in found])
        rows = [int(key[len("00000000_an image") : -len(".png")]) for key, _ in found]
        assert [datum.data for _, datum in found] == [png(PIXELS[row]) for row in rows]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(LABELS)


def test_the_mean_image_is_written_and_its_channels_told(tmp_path, capsys):
    database()(tmp_path)
    status, out, err = run(capsys, "mean", tmp_path / "db", tmp_path / "mean.binaryproto")
    blob = pb.BlobProto.FromString((tmp_path / "mean.binaryproto").read_bytes())
    wanted = PIXELS.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(np.reshape(blob.data, wanted.shape), wanted, rtol=1e-7)
    channels = " ".join(f"mean_value: {value:.6g}" for value in wanted.mean(axis=(1, 2)))
    wanted_out = f"{tmp_path / 'mean.binaryproto'}: mean of 10 images, 3 x 6 x 5; {channels}\n"
    assert (status, out, err) == (0, wanted_out, "")
