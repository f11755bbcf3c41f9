"""RecordNumber: it follows another layer's records, in whatever order they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_nets import edit, ok, run
from tables.sources import (
    COUNT,
    DUMMY,
    IMAGES,
    LABELS,
    NUMBERS,
    layer_of,
    write_hdf5,
    write_images,
)

from kdnet.data import open_source
from kdnet.errors import DataError
from kdnet.weights import read_weights

BARE = 'name: "numbers" type: "RecordNumber" top: "r"'


def test_numbers_follow_shuffled_records(tmp_path: Path) -> None:
    write_images(tmp_path)
    shuffled = IMAGES.replace("batch_size: 4", "batch_size: 4 shuffle: true")
    with (
        open_source(layer_of(shuffled, tmp_path), seed=3) as data,
        open_source(layer_of(BARE, tmp_path), seed=3) as numbers,
    ):
        numbers.attach({source.layer.name: source for source in (data, numbers)})
        assert numbers.shapes == ((4,),)
        assert numbers.record_count == COUNT
        assert numbers.varies == ""
        assert numbers.identity() == {"type": "RecordNumber"}
        seen = []
        for index in range(5):
            (found,) = numbers.batch(index)
            assert (found.dtype, found.shape) == (np.float32, (4,))
            np.testing.assert_array_equal(LABELS[found.astype(int)], data.batch(index)[1])
            np.testing.assert_array_equal(numbers.records(index), found)
            seen += found.tolist()
    assert seen[:COUNT] != seen[COUNT:]
    assert sorted(seen[:COUNT]) == sorted(seen[COUNT:]) == list(range(COUNT))


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ('of: "imagse"', "no-followed-layer", 'there is no data layer "imagse"'),
        ("", "no-followed-layer", "of is not given"),
        ('of: "u"', "no-followed-layer", "a DummyData layer has no records"),
        ('of: "i" batch_size: 3', "item-shape", "batch_size is 3, but"),
    ],
)
def test_a_layer_that_cannot_be_numbered_is_told(
    fields: str, code: str, text: str, tmp_path: Path
) -> None:
    write_images(tmp_path)
    layer = layer_of(f"{BARE} record_number_param {{ {fields} }}", tmp_path)
    dummy = layer_of(DUMMY + "dummy_data_param { shape { dim: 4 } }", tmp_path)
    data = [open_source(one, seed=0) for one in (layer_of(IMAGES, tmp_path), dummy)]
    numbers = open_source(layer, seed=0)
    with pytest.raises(DataError) as caught:
        numbers.attach({source.layer.name: source for source in (*data, numbers)})
    (found,) = caught.value.diagnostics
    assert (found.code, text in found.message) == (code, True)


def test_numbers_of_nothing_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is none here"):
        _ = open_source(layer_of(BARE, tmp_path), seed=0).shapes


NET = """
layer {
  name: "d" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "list.txt" batch_size: 4 shuffle: true }
}
layer { name: "numbers" type: "RecordNumber" top: "record" }
layer {
  name: "student" type: "InnerProduct" bottom: "data" top: "student"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.001 } }
}
layer {
  name: "contrast" type: "ContrastiveRepresentation" bottom: "student" bottom: "data"
  bottom: "record" contrastive_representation_param { num_records: 10 nce_k: 3 dim: 2 momentum: 0 }
}
layer { name: "silence" type: "Silence" bottom: "label" }
"""


def test_memories_of_shuffled_data_are_of_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_hdf5(tmp_path)
    Path("net.prototxt").write_text(NET)
    solver = 'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" max_iter: 5'
    Path("net_solver.prototxt").write_text(f'{solver} snapshot_prefix: "run"')
    ok("train", "net_solver.prototxt", "--device", "cpu")
    layers = {layer.name: layer.blobs for layer in read_weights("run_iter_5.caffemodel").layers}
    _, _, weight, bias, _, memory, *_ = layers["contrast"]
    embedded = NUMBERS.reshape(COUNT, -1) @ weight.T + bias
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    np.testing.assert_allclose(memory, embedded, rtol=1e-4, atol=1e-5)


def test_without_a_data_layer_above_there_is_nothing_to_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_hdf5(tmp_path)
    Path("net.prototxt").write_text(NET)
    edit(Path("net.prototxt"), 'top: "record"', 'top: "record" record_number_param { of: "e" }')
    ended = run("train", "net.prototxt", "--device", "cpu")
    assert ended.code == 1
    assert 'of: no data layer "e" stands above' in ended.faults
    assert "data layers above are d" in ended.faults
