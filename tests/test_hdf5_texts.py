"""Texts in HDF5 attributes, read without libhdf5: as h5py wrote them, or refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdnet.errors import WeightsError
from kdnet.weights import read_weights
from kdnet.weights.hdf5_texts import read_texts

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def texts(path: Path, key: str, place: str = "/") -> list[str]:
    with h5py.File(path) as file:
        return read_texts(str(path), file[place], key)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.lists(WORDS, min_size=1, max_size=9), min_size=1, max_size=3),
    st.sampled_from(["earliest", "v108", "latest"]),
    st.booleans(),
)
def test_texts_come_back_as_h5py_wrote_them(
    tmp_path: Path, lists: list[list[str]], version: str, ordered: bool
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=version) as file:
        group = file.create_group("inner/group", track_order=ordered)
        for index, words in enumerate(lists):
            group.attrs[f"words{index}"] = words
            file.attrs[f"numbers{index}"] = np.arange(index)
            group.attrs[f"bytes{index}"] = [word.encode() for word in words]
    for index, words in enumerate(lists):
        assert texts(path, f"words{index}", "inner/group") == words
        assert texts(path, f"bytes{index}", "inner/group") == words


def test_scalars_long_texts_and_texts_of_one_length(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["scalar"] = "x" * 100_000
        file.attrs["fixed"] = np.array([b"ab", b"c"])
        file.attrs["word"] = np.bytes_(b"one")
        file.attrs["none"] = []
        file.attrs["empty"] = h5py.Empty("f")
    assert texts(path, "scalar") == ["x" * 100_000]
    assert texts(path, "fixed") == ["ab", "c"]
    assert texts(path, "word") == ["one"]
    assert texts(path, "none") == texts(path, "empty") == texts(path, "missing") == []


@pytest.mark.parametrize("value", [3.0, np.arange(3)])
def test_numbers_are_no_texts(value: object, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["a"] = value
    with pytest.raises(WeightsError, match='texts of attribute "a"') as caught:
        texts(path, "a")
    assert caught.value.diagnostics[0].code == "corrupt-weights"


def test_attributes_that_are_kept_in_trees_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for index in range(20):
            file.attrs[f"a{index}"] = "text"
    with pytest.raises(WeightsError, match="corrupt-weights"):
        texts(path, "a3")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GCOL", b"GCOM"),
        # A piece longer than its heap, of no length, and a reference beyond its piece.
        (b"\x05\0\0\0\0\0\0\0first", b"\xff\xff\xff\xff\xff\xff\xff\xfffirst"),
        (b"\x05\0\0\0\0\0\0\0first", b"\0\0\0\0\0\0\0\0first"),
        (b"first", b"fir\xfft"),
    ],
)
def test_damaged_heaps_are_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["a"] = ["first", "second"]
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(WeightsError, match="corrupt-weights"):
        texts(path, "a")


def test_a_file_that_is_spread_over_several_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["data/ip/0"] = np.ones(3, np.float32)
    assert len(read_weights(path).layers) == 1
    content = bytearray(path.read_bytes())
    # What libhdf5 would take memory for: 3 GiB of a driver's own words.
    content[48:56] = (len(content)).to_bytes(8, "little")
    path.write_bytes(content + b"\0\0\0\0" + (3 << 30).to_bytes(4, "little") + bytes(64))
    with pytest.raises(WeightsError, match="it is part of several files"):
        read_weights(path)
