"""What damaged and hostile PyTorch checkpoints say, and the pickles in them."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables.formats import SAMPLE

from kdnet.errors import WeightsError
from kdnet.weights import read_weights, stream_weights, write_weights
from kdnet.weights.pickles import RefusedError, read_pickle


def fault(path: Path) -> tuple[str, str]:
    """The code and the message of reading ``path``."""
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    (diagnostic,) = caught.value.diagnostics
    assert str(path) in diagnostic.message
    return diagnostic.code, diagnostic.message


def _torch(program: bytes, **members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/data.pkl", program)
        for name, value in {"data/0": bytes(16), **members}.items():
            archive.writestr(f"a/{name}", value)
    return content.getvalue()


def _program(
    shape: str = "K\x02\x85",
    strides: str = "K\x01\x85",
    offset: str = "K\x00",
    key: str = "0",
    kind: str = "torch\nFloatStorage",
) -> bytes:
    """A dict of one tensor, as PyTorch writes it."""
    return (
        "\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
        f"(X\x07\x00\x00\x00storagec{kind}\nX\x01\x00\x00\x00{key}X\x03\x00\x00\x00cpuK\x04tQ"
        f"{offset}{shape}{strides}\x89ccollections\nOrderedDict\n)RtRs."
    ).encode("latin-1")


HUGE = "\x8a\x08" + "\xff" * 7 + "\x7f"
TORCH: dict[str, tuple[bytes, str, str]] = {
    "big-endian": (_torch(_program(), byteorder=b"big"), "unsupported-weights", "big-endian"),
    "class": (_torch(_program(kind="os\nsystem")), "unsafe-weights", 'the name "os.system"'),
    "complex": (
        _torch(_program(kind="torch\nComplexFloatStorage")),
        "unsafe-weights",
        "torch.ComplexFloatStorage",
    ),
    "expanded": (
        _torch(_program(shape="M\x00\x10\x85", strides="K\x00\x85")),
        "corrupt-weights",
        "does not lie within the 4 numbers",
    ),
    "huge": (_torch(_program(shape=f"{HUGE}\x85")), "weights-too-large", "GiB"),
    "missing": (_torch(_program(key="7")), "corrupt-weights", '"data/7" is missing'),
    "negative-offset": (
        _torch(_program(offset="J\xff\xff\xff\xff")),
        "corrupt-weights",
        "no natural numbers",
    ),
    "negative-strides": (
        _torch(_program(strides="J\xff\xff\xff\xff\x85")),
        "corrupt-weights",
        "no natural numbers",
    ),
    "no-end": (_torch(b"\x80\x02}"), "corrupt-weights", "its pickle"),
    "no-tensors": (_torch(pickle.dumps({"a": 1}, 2)), "foreign-weights", "without a dict"),
    "outside": (_torch(_program(offset="K\x03")), "corrupt-weights", "does not lie within"),
    "strides": (_torch(_program(strides=")")), "corrupt-weights", "other axes"),
    "traversal": (_torch(_program(key="/")), "corrupt-weights", "is missing"),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name: str, tmp_path: Path) -> None:
    content, code, text = TORCH[name]
    path = tmp_path / "a"
    path.write_bytes(content)
    found, said = fault(path)
    assert found == code
    assert text in said


def test_the_sound_program_is_read(tmp_path: Path) -> None:
    numbers = np.arange(4, dtype=np.float32)
    (tmp_path / "a").write_bytes(_torch(_program(offset="K\x01"), **{"data/0": numbers.tobytes()}))
    (layer,) = read_weights(tmp_path / "a").layers
    np.testing.assert_array_equal(layer.blobs[0], [1, 2])


def test_packed_storages_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", _program() + bytes(100))
    code, text = fault(tmp_path / "a")
    assert code == "corrupt-weights"
    assert "packed" in text


def test_a_changed_number_fails_the_checksum(tmp_path: Path) -> None:
    write_weights(tmp_path / "a", SAMPLE, format="torch")
    content = bytearray((tmp_path / "a").read_bytes())
    content[content.index(SAMPLE[1].blobs[0].tobytes()) + 5] ^= 1
    (tmp_path / "a").write_bytes(content)
    code, text = fault(tmp_path / "a")
    assert code == "corrupt-weights"
    assert "checksum" in text


def test_tensors_may_not_share_numbers_without_end(tmp_path: Path) -> None:
    record = _program()[len("\x80\x02}X\x01\x00\x00\x00w") : -2]
    # The first tensor is remembered, and 10^4 names are given to it.
    again = b"".join(b"X\x04\x00\x00\x00%04d" % index + b"h\x00" for index in range(10_000))
    storage = bytes(100_000)
    program = record.replace(b"K\x02\x85", b"M\x00\x60\x85")
    path = tmp_path / "a"
    path.write_bytes(
        _torch(
            b"\x80\x02}(X\x01\x00\x00\x00w" + program + b"q\x00" + again + b"u.",
            **{"data/0": storage},
        )
    )
    code, text = fault(path)
    assert code == "corrupt-weights"
    assert "its tensors take" in text


CHECKPOINTS: dict[str, tuple[Callable[[Any], object], list[str], tuple[str, ...]]] = {
    "known-key": (
        lambda t: {"ema": {"b.weight": t}, "state_dict": {"a.weight": t}},
        ["a"],
        ('read "state_dict" and left out "ema"',),
    ),
    "lone-tensor": (lambda t: t, ["tensor"], ()),
    "parts": (lambda t: {"up": {"a.weight": t}, "down": {"a.weight": t}}, ["up.a", "down.a"], ()),
    "state": (lambda t: {"a.weight": t, "step": 3, 4: t}, ["a"], ()),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_where_a_checkpoint_keeps_its_tensors(name: str, tmp_path: Path) -> None:
    build, layers, notes = CHECKPOINTS[name]
    # Python's own pickler stands in for the tensors' records, which are then put in their place.
    mark = "\u2660tensor"
    outer = pickle.dumps(build(mark), 2)
    record = _program()[len("\x80\x02}X\x01\x00\x00\x00w") : -2]
    text = mark.encode()
    literal = b"X" + struct.pack("<I", len(text)) + text
    at = outer.index(literal)
    memo = outer[at + len(literal) : at + len(literal) + 2]
    program = outer.replace(literal + memo, record + memo, 1)
    (tmp_path / "a").write_bytes(_torch(program))
    _, stream = stream_weights(tmp_path / "a")
    assert [layer.name for layer in stream.layers] == layers
    assert stream.notes == notes


PROGRAMS: dict[str, tuple[bytes, type[Exception], str]] = {
    "build-on-text": (b"\x80\x02X\x01\x00\x00\x00a}b.", ValueError, "TypeError"),
    "call-of-text": (b"\x80\x02X\x01\x00\x00\x00a)R.", ValueError, "TypeError"),
    "deep-key": (b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.", ValueError, "as a key"),
    "empty": (b"", ValueError, ""),
    "inst": (b"(ios\nsystem\n.", RefusedError, "the command INST"),
    "mark": (b"(.", ValueError, "a mark"),
    "new-object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", RefusedError, "NEWOBJ"),
    "no-mark": (b"Nu.", ValueError, ""),
    "odd-items": (b"}(Nu.", ValueError, ""),
    "odd-storage": (b"(X\x01\x00\x00\x00xNNNNtQ.", ValueError, "NoneType"),
    "outside-object": (
        b"(X\x01\x00\x00\x00xctorch\nFloatStorage\nNNNtQ.",
        RefusedError,
        "outside",
    ),
    "stack-name": (
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        RefusedError,
        'the name "os.system"',
    ),
    "unhashable": (b"}(](Nu.", ValueError, ""),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    program, kind, text = PROGRAMS[name]
    with pytest.raises(kind) as caught:
        read_pickle(program)
    assert text in str(caught.value)


def test_endless_programs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdnet.weights.pickles._MOST_COMMANDS", 50)
    with pytest.raises(ValueError, match="more than 50 commands"):
        read_pickle(b"N" * 100 + b".")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_of_every_protocol(protocol: int) -> None:
    value: dict[str, object] = {
        "a": [1, 2.5, None, True, (1, 2, 3, 4)],
        "b": {"c": "ü"},
        "e": 2**70,
        "f": (),
    }
    assert read_pickle(pickle.dumps(value, protocol)) == value
