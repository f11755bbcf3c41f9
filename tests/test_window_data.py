"""WindowData: its windows are Caffe's, the choice of them is the seed's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tables.sources import layer_of, write_windows

from kdnet.data import Source, open_source
from kdnet.data.image_list import image_bytes
from kdnet.errors import DataError, SchemaError
from kdnet.net import NetState, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net
from kdnet.schema.reader import read_text

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from make_caffe_windows import CASES, OUT, build_files, prototxt


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(OUT) as found:
        return dict(found)


def source_of(text: str, folder: Path, seed: int = 0) -> Source:
    read = read_text(text, str(folder / "net.prototxt"), pb.NetParameter)
    net = resolve_net(read.message, read.source, NetState(pb.TEST))
    return open_source(net.layers[0], seed=seed)


@pytest.mark.parametrize("case", CASES)
def test_windows_are_those_of_caffe(case: str, golden, tmp_path: Path):
    build_files(tmp_path, golden["pixels"], golden["mean"], pb)
    wanted = golden[f"{case}/data"]
    with source_of(prototxt(case), tmp_path) as source:
        batches = [source.batch(index) for index in range(12 if "mirror" in case else 1)]
    for images, labels in batches:
        assert images.shape == wanted.shape
        np.testing.assert_array_equal(labels, golden[f"{case}/label"])
    if "mirror" not in case:
        np.testing.assert_array_equal(batches[0][0], wanted)
    else:
        ours = {image.tobytes() for images, _ in batches for image in images[1:]}
        assert len(ours) == 2
        assert {image.tobytes() for image in wanted[1:]} <= ours


WINDOWS = """name: "w" type: "WindowData" top: "data" top: "label"
    window_data_param { source: "@/windows.txt" bg_threshold: 0.3 batch_size: 64 }
    transform_param { crop_size: 4 mirror: true }"""


def drawn(folder: Path, seed: int, index: int, text: str = WINDOWS) -> tuple[np.ndarray, ...]:
    with open_source(layer_of(text, folder), seed=seed) as source:
        return source.batch(index)


def test_a_batch_has_its_share_of_objects_last(tmp_path: Path):
    write_windows(tmp_path)
    _, labels = drawn(tmp_path, 0, 0)
    assert set(labels[:48]) == {0}
    assert set(labels[48:]) == {2, 3}


def test_windows_belong_to_the_seed_and_the_number_of_the_batch(tmp_path: Path):
    write_windows(tmp_path)
    batches = [drawn(tmp_path, seed, index)[0] for seed in (0, 1) for index in (0, 1)]
    assert len({images.tobytes() for images in batches}) == 4


def test_files_are_read_again_unless_they_are_to_be_kept(tmp_path: Path, monkeypatch):
    write_windows(tmp_path)
    reads: list[str] = []

    def counted(entry, path, root):
        reads.append(entry.path)
        return image_bytes(entry, path, root)

    monkeypatch.setattr("kdnet.data.sources.window_data.image_bytes", counted)
    plain = drawn(tmp_path, 0, 0)
    assert len(reads) == 64
    reads.clear()
    kept = drawn(tmp_path, 0, 0, WINDOWS.replace("batch_size", "cache_images: true batch_size"))
    assert len(reads) == 1
    np.testing.assert_array_equal(plain[0], kept[0])


def test_a_scale_that_caffe_forgets_is_applied_and_said(tmp_path: Path):
    write_windows(tmp_path)
    scaled = layer_of(WINDOWS.replace("mirror", "scale: 0.5 mirror"), tmp_path)
    with open_source(scaled, seed=0) as source:
        (note,) = source.notes
        np.testing.assert_array_equal(source.batch(0)[0] * 2, drawn(tmp_path, 0, 0)[0])
    assert note.code == "window-scale"
    own = layer_of(WINDOWS.replace("batch_size", "scale: 0.5 batch_size"), tmp_path)
    with open_source(own, seed=0) as source:
        assert source.notes == ()
        np.testing.assert_array_equal(source.batch(0)[0] * 2, drawn(tmp_path, 0, 0)[0])


def test_a_file_on_one_line_is_read_as_caffe_reads_it(tmp_path: Path):
    write_windows(tmp_path)
    wanted = drawn(tmp_path, 0, 0)
    path = tmp_path / "windows.txt"
    path.write_text(path.read_text().replace("\n", " "))
    np.testing.assert_array_equal(drawn(tmp_path, 0, 0)[0], wanted[0])


def test_a_scale_of_its_own_is_no_forgotten_field(tmp_path: Path):
    path = tmp_path / "net.prototxt"
    path.write_text(prototxt("scale/inner"))
    assert read_net(str(path)).message.layer[0].window_data_param.scale == 0.25
    path.write_text(prototxt("scale/inner").replace("scale: 0.25", "crop_size: 9"))
    with pytest.raises(SchemaError, match="ignored-field"):
        read_net(str(path))


def test_a_file_too_large_for_a_list_is_not_read(tmp_path: Path):
    path = tmp_path / "windows.txt"
    with path.open("wb") as file:
        file.truncate(2**32 + 1)
    with pytest.raises(DataError, match="larger than 4 GiB"):
        drawn(tmp_path, 0, 0)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "windows.txt").write_bytes(b"\0\1\2")
    with pytest.raises(DataError, match="it holds zero bytes"):
        drawn(tmp_path, 0, 0)
