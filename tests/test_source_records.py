"""Which record each item of a batch is, whether it varies, and what decides its values."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from tables.sources import COUNT, HDF5, LMDB, SOURCES, SourceCase, database, layer_of, write_hdf5

from kdnet.data import content, open_source
from kdnet.data.content import content_hash
from kdnet.errors import DataError
from kdnet.schema import kdnet_pb2 as pb

# What they show is made up, or drawn anew for each batch.
WITHOUT_RECORDS = {"DummyData", "WindowData"}


@pytest.mark.parametrize("case", SOURCES, ids=lambda case: case.id)
def test_items_of_one_record_are_alike_unless_they_vary(case: SourceCase, tmp_path: Path) -> None:
    case.build(tmp_path)
    with open_source(layer_of(case.prototxt, tmp_path, case.phase), seed=5) as source:
        if case.type in WITHOUT_RECORDS:
            assert source.record_count is None
            assert source.varies == f"a {case.type} layer has no records"
            with pytest.raises(ValueError, match="has no records"):
                source.records(0)
            return
        assert source.record_count == COUNT
        values, differ = {}, False
        for index in range(8):
            records = source.records(index)
            assert records.dtype == np.int64
            assert len(records) == case.shapes[0][0]
            for record, item in zip(records.tolist(), source.batch(index)[0], strict=True):
                differ |= (values.setdefault(record, item) != item).any()
        assert bool(source.varies) == differ
        assert sorted(values) == list(range(COUNT))


@pytest.mark.parametrize(
    ("transform", "why"),
    [
        ("mirror: true", "mirror flips images at random"),
        ("crop_size: 3", "crop_size in TRAIN crops images at random"),
        ("scale: 2", ""),
    ],
)
def test_why_values_vary(transform: str, why: str, tmp_path: Path) -> None:
    database()(tmp_path)
    text = LMDB + f"transform_param {{ {transform} }}"
    with open_source(layer_of(text, tmp_path), seed=0) as source:
        assert source.varies == why


@pytest.mark.parametrize("case", SOURCES, ids=lambda case: case.id)
def test_the_identity_is_that_of_the_content(case: SourceCase, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("one", "two")]
    found = []
    for place in places:
        place.mkdir()
        case.build(place)
        for seed in (1, 2):
            with open_source(layer_of(case.prototxt, place, case.phase), seed=seed) as source:
                found.append(source.identity())
    assert all(identity == found[0] for identity in found)
    assert found[0] or case.type in WITHOUT_RECORDS


def test_other_contents_and_transforms_have_other_identities(tmp_path: Path) -> None:
    database()(tmp_path)
    texts = [
        LMDB,
        LMDB + "transform_param { scale: 2 }",
        LMDB + "transform_param { mean_value: 1 }",
    ]
    found = []
    for text in texts:
        with open_source(layer_of(text, tmp_path), seed=0) as source:
            found.append(str(source.identity()))
    with open_source(layer_of(LMDB, tmp_path, pb.TEST), seed=0) as source:
        found.append(str(source.identity()))
    assert len(set(found)) == 4
    write_hdf5(tmp_path)
    with open_source(layer_of(HDF5, tmp_path), seed=0) as source:
        before = source.identity()
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        file["data"][2, 0, 0, 0] = 7
    with open_source(layer_of(HDF5, tmp_path), seed=0) as source:
        assert source.identity() != before


def test_a_large_file_counts_by_pieces_and_size(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(content, "WHOLE_BYTES", 2**20)
    path = tmp_path / "large"
    data = bytearray(3 * 2**20)
    found = set()
    for place in (None, 0, -1):
        if place is not None:
            data[place] ^= 1
        path.write_bytes(data)
        found.add(content_hash([path]))
    path.write_bytes(data + b"\0")
    assert len(found | {content_hash([path])}) == 4


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'"[^"]*none" cannot be read') as caught:
        content_hash([tmp_path / "none"])
    assert caught.value.diagnostics[0].code == "unreadable-data"
