"""The data layers against what Caffe's own put into their tops."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from kdnet.data import Source, open_source
from kdnet.data.image import decode, resize
from kdnet.net import NetState, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.reader import read_text

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from make_caffe_data import BATCHES, CASES, OUT, build_files, prototxt

OPENCV = Path(__file__).parent / "golden" / "opencv" / "resized.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(OUT) as found:
        return dict(found)


def source_of(case: str, folder: Path, golden: dict[str, np.ndarray]) -> Source:
    build_files(folder, golden["pixels"], golden["labels"], pb)
    read = read_text(prototxt(case), str(folder / "net.prototxt"), pb.NetParameter)
    net = resolve_net(read.message, read.source, NetState(pb.TEST))
    return open_source(net.layers[0], seed=0)


@pytest.mark.parametrize("case", sorted(set(CASES) - {"mirror"}))
def test_tops_are_those_of_caffe(case: str, golden, tmp_path: Path):
    with source_of(case, tmp_path, golden) as source:
        for index in range(BATCHES):
            images, labels = source.batch(index)
            wanted = golden[f"{case}/top0"][index]
            assert images.shape == wanted.shape
            np.testing.assert_array_equal(labels, golden[f"{case}/top1"][index])
            np.testing.assert_array_equal(images, wanted)


def test_mirrored_tops_are_those_of_caffe_flipped_or_not(golden, tmp_path: Path):
    with source_of("mirror", tmp_path, golden) as source:
        ours = np.concatenate([source.batch(index)[0] for index in range(BATCHES)])
    caffes = golden["mirror/top0"].reshape(ours.shape)
    same = (ours == caffes).all(axis=(1, 2, 3))
    flipped = (ours == caffes[..., ::-1]).all(axis=(1, 2, 3))
    assert (same ^ flipped).all()
    assert same.any()
    assert flipped.any()
    # Caffe itself mirrors in TEST: the seven images come again and again, not always alike.
    passes = caffes.reshape(BATCHES, 7, *caffes.shape[1:])
    assert (passes[0] != passes[1:]).any()


def test_resized_bytes_are_those_of_opencv():
    with np.load(OPENCV) as found:
        golden = dict(found)
    for number in range(len(golden) // 2):
        wanted = golden[f"{number}/resized"]
        resized = resize(golden[f"{number}/image"], *wanted.shape[1:])
        np.testing.assert_array_equal(resized, wanted)


@pytest.mark.parametrize("kind", ["bmp", "jpg", "png", "ppm", "tif", "webp"])
def test_decoded_pixels_are_those_of_opencv(kind: str):
    with np.load(OPENCV.with_name("decoded.npz")) as found:
        data = found[f"{kind}/file"].tobytes()
        for name, channels in (("colour", 3), ("grey", 1)):
            np.testing.assert_array_equal(decode(data, channels), found[f"{kind}/{name}"])
