"""What missing, foreign and damaged weight files say."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from tables.formats import CASES, SAMPLE, message, wire_net

from kdnet.errors import WeightsError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import read_weights, write_caffemodel

CASE_IDS = [case.id for case in CASES]


def fault(path: Path) -> tuple[str, str]:
    """The code and the message of reading ``path``."""
    with pytest.raises(WeightsError) as caught:
        read_weights(str(path))
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, diagnostic.message


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "teacher.caffemodel").write_bytes(b"x")
    wanted = tmp_path / "teachr.caffemodel"
    with pytest.raises(WeightsError) as caught:
        read_weights(str(wanted))
    assert str(caught.value) == (
        f'error: there is no weight file "{wanted}" [missing-weights]\n'
        f'help: did you mean "{tmp_path / "teacher.caffemodel"}"?'
    )


def test_a_missing_folder_names_the_one_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        read_weights(str(tmp_path / "no" / "such" / "a.bin"))
    assert f'"{tmp_path}" does' in str(caught.value)


def test_a_path_through_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert fault(tmp_path / "file" / "a")[0] == "missing-weights"


def test_folders_devices_and_odd_paths_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.caffemodel").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r'it contains ".*a.caffemodel"') as caught:
        read_weights(str(tmp_path))
    assert caught.value.diagnostics[0].code == "unreadable-weights"
    assert fault(Path("/dev/zero"))[0] == "unreadable-weights"
    with pytest.raises(WeightsError, match="unreadable-weights"):
        read_weights("a\0b")
    with pytest.raises(WeightsError, match="unreadable-weights"):
        read_weights("a" * 5000)


def _zip(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"0" * 100)
    return content.getvalue()


def _tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return content.getvalue()


def _npy() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    return content.getvalue()


def _hdf5(*names: str) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name in names:
            file[name] = np.zeros(3)
    return content.getvalue()


def _npz(**arrays: object) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "gzip": (gzip.compress(b"x" * 100), "a gzip archive"),
    "hdf5-other": (_hdf5("model", "top"), 'it has "model", "top"'),
    "hdf5-keras-empty": (_hdf5("layers/dense/other"), "a Keras file without arrays"),
    "hdf5-empty": (_hdf5(), "it has nothing"),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    "keras": (_zip("config.json", "model.weights.h5"), "a Keras archive"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "mean": (pb.BlobProto(num=1, channels=3, height=2, width=2).SerializeToString(), "mean file"),
    "net-without-layers": (pb.NetParameter(name="n").SerializeToString(), "without layers"),
    "npy": (_npy(), "a single NumPy array"),
    "npz-data": (_npz(data=np.zeros(3)), 'array "data" is not named'),
    "npz-index": (_npz(**{"conv1/weight": np.zeros(3)}), "is not named"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x3a\x02\x0a\x00", "an ONNX model"),
    "pickle": (pickle.dumps({"a": 1}), "kdnet never unpickles"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(20), "a PNG image"),
    "prototxt": (b'name: "net"\nlayer { name: "a" }\n', ".prototxt"),
    "random": (bytes(range(0xFF, 0x7F, -1)), "its first bytes are not those"),
    "tar": (_tar(), "a tar archive"),
    "tensorflow": (message(1, message(1, b"w"), message(2, b"Const")), "without layers"),
    "text": ("größer\n".encode() * 1000, "a text file"),
    "torch-of-old": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "before 1.6"),
    "zeros": (bytes(10_000), "nothing but zero bytes"),
    "zip": (_zip("readme.txt"), "a zip archive"),
    "zip-cut": (_zip("readme.txt")[:60], "cut short"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_named(name: str, tmp_path: Path) -> None:
    content, what = FOREIGN[name]
    path = tmp_path / "weights.caffemodel"
    path.write_bytes(content)
    code, text = fault(path)
    assert code == "foreign-weights"
    assert what in text
    assert f'"{path}"' in text


def _blob(*fields: bytes) -> bytes:
    return wire_net(message(1, b"a") + message(7, b"".join(fields)))


_THREE = message(7, message(1, b"\x03"))
_HUGE = b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
_MINUS_ONE = b"\xff" * 9 + b"\x01"

DAMAGED: dict[str, tuple[bytes, str, str]] = {
    "blob-past-layer": (
        wire_net(message(1, b"a") + b"\x3a\x7f", message(1, b"b")),
        "corrupt-weights",
        "field 7 of 127 bytes runs past the end of the message around it",
    ),
    "count-above": (_blob(_THREE, message(5, bytes(16))), "corrupt-weights", "4 are stored"),
    "count-below": (_blob(_THREE, message(5, bytes(8))), "corrupt-weights", "2 are stored"),
    "dims-as-fixed": (
        _blob(message(7, b"\x0d" + bytes(4))),
        "corrupt-weights",
        "field 1 is not an integer",
    ),
    "field-zero": (wire_net(message(1, b"a"), b"\x02\x00"), "corrupt-weights", "field number 0"),
    "group": (wire_net(b"\x0b"), "corrupt-weights", "wire type 3"),
    "half-number": (
        _blob(_THREE, message(5, bytes(13))),
        "corrupt-weights",
        "13 bytes of float32 numbers",
    ),
    "many-axes": (
        _blob(message(7, message(1, b"\x01" * 33))),
        "corrupt-weights",
        "more than 32 axes",
    ),
    "many-axes-apart": (
        _blob(*[message(7, message(1, b"\x01"))] * 33),
        "corrupt-weights",
        "more than 32 axes",
    ),
    "name-not-utf8": (wire_net(message(1, b"\xff\xfe")), "corrupt-weights", "not UTF-8"),
    "negative-size": (
        _blob(message(7, message(1, _MINUS_ONE))),
        "corrupt-weights",
        "negative size in shape (-1,)",
    ),
    "raw-odd": (
        _blob(_THREE, b"\x50\x02", message(12, bytes(5))),
        "corrupt-weights",
        "5 bytes of raw float16 numbers",
    ),
    "raw-type": (
        _blob(_THREE, b"\x50\x09", message(12, bytes(6))),
        "corrupt-weights",
        "raw_data_type 9",
    ),
    "shape-2-63": (
        _blob(message(7, message(1, _HUGE))),
        "corrupt-weights",
        "more than 2^31 - 1 values",
    ),
    "shape-of-zero-and-huge": (
        _blob(message(7, message(1, b"\x00" + _HUGE))),
        "corrupt-weights",
        "more than 2^31 - 1",
    ),
    "varint-endless": (wire_net(message(1, b"a")) + b"\xff" * 11, "corrupt-weights", "10 bytes"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_name_the_place(name: str, tmp_path: Path) -> None:
    content, code, text = DAMAGED[name]
    path = tmp_path / "a.caffemodel"
    path.write_bytes(content)
    found, said = fault(path)
    assert found == code
    assert text in said
    assert "byte" in said


def test_a_name_of_a_megabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    path.write_bytes(pb.NetParameter(layer=[{"name": "a" * 100_000}]).SerializeToString())
    assert fault(path) == (
        "corrupt-weights",
        f'"{path}" is damaged: layer 0 at byte 5 of {path.stat().st_size}: a name of 100000 bytes',
    )


def test_every_cut_of_a_caffemodel_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    write_caffemodel(str(path), SAMPLE, net_name="net")
    whole = path.read_bytes()
    seam = whole.index(b"ip1") - 5
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        if size == seam:
            continue
        code, text = fault(path)
        if size <= len(message(1, b"net")):
            assert code in ("foreign-weights", "truncated-weights")
        else:
            assert code == "truncated-weights", size
            assert "cut short" in text
    path.write_bytes(whole[:seam])
    assert [layer.name for layer in read_weights(str(path)).layers] == ["conv1"]


def test_the_text_of_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    write_caffemodel(str(path), SAMPLE, net_name="net")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError) as caught:
        read_weights(str(path))
    assert str(caught.value) == (
        f'error: "{path}" is cut short: layer 0 at byte 5 of 100: field 100 of 121 bytes '
        "runs past the end of the file [truncated-weights]\nhelp: copy or download the file again"
    )


@pytest.mark.parametrize("id_", ["hdf5", "npz", "npz/compressed"])
def test_cut_archives_are_told(id_: str, tmp_path: Path) -> None:
    case = CASES[CASE_IDS.index(id_)]
    path = tmp_path / "a"
    case.build(path)
    whole = path.read_bytes()
    for size in (len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert fault(path)[0] == "truncated-weights"


def test_a_changed_number_fails_the_npz_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    content = bytearray(_npz(**{"ip/0": np.ones(3)}))
    at = content.index(np.ones(3).tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    code, text = fault(path)
    assert code == "corrupt-weights"
    assert "Bad CRC-32" in text


def test_a_gap_between_blobs_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(_hdf5("data/ip/1"))
    with pytest.raises(WeightsError, match=r"missing-blob.*\n.*Caffe leaves shared blobs out"):
        read_weights(str(path))
    path.write_bytes(_npz(**{"ip/1": np.zeros(3)}))
    assert fault(path) == (
        "missing-blob",
        f'"{path}": layer "ip" has no blob 0, though it has later ones',
    )


@pytest.mark.parametrize(
    "array", [np.array(["text"]), np.array([{"a": 1}]), np.zeros(3, np.complex64)]
)
def test_npz_arrays_must_be_numbers(array: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(_npz(**{"ip/0": array}))
    code, text = fault(path)
    assert code == "corrupt-weights"
    assert "not an array of numbers" in text


def test_an_npz_header_cannot_claim_more_than_its_bytes(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
    )
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ip/0.npy", content.getvalue())
    code, text = fault(path)
    assert code == "corrupt-weights"
    assert "needs more bytes than it has" in text


def _link_out(file: h5py.File) -> None:
    file.create_group("data/ip")
    file["data/ip/0"] = h5py.ExternalLink("elsewhere.h5", "/a")


def _unwritten(file: h5py.File) -> None:
    file.create_dataset("data/ip/0", shape=(2**40,), chunks=(2**20,), dtype="f4")


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "a", shape=(4,))
    file.create_virtual_dataset("data/ip/0", layout)


def _strings(file: h5py.File) -> None:
    file["data/ip/0"] = ["text"]


def _group_as_blob(file: h5py.File) -> None:
    file["data/ip/1"] = np.zeros(3)
    file.create_group("data/ip/0")


def _cycle(file: h5py.File) -> None:
    file["data/ip/0"] = np.zeros(3)
    file["data/ip/0x"] = file["data"]


HDF5_FAULTS: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "group": (_group_as_blob, "not an array of numbers"),
    "strings": (_strings, "not an array of numbers"),
    "unwritten": (_unwritten, "more than the file can hold"),
    "virtual": (_virtual, "kept in another file"),
}


def test_groups_within_themselves_are_read_once(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        _cycle(file)
    assert [layer.name for layer in read_weights(path).layers] == ["ip"]


@pytest.mark.parametrize("name", HDF5_FAULTS)
def test_odd_hdf5_files(name: str, tmp_path: Path) -> None:
    build, text = HDF5_FAULTS[name]
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        build(file)
    code, said = fault(path)
    assert code in ("corrupt-weights", "missing-blob")
    assert text in said


def test_hdf5_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        _link_out(file)
    code, _ = fault(path)
    assert code == "corrupt-weights"


def test_a_blob_beyond_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(_npz(**{"ip/0": np.zeros(5000)}))
    monkeypatch.setattr(os, "sysconf", lambda _name: 100)
    code, text = fault(path)
    assert code == "weights-too-large"
    assert "GiB" in text
