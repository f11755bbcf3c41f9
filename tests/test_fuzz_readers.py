"""A short run of the fuzzer: damaged files end in layers or in a fault of kdnet's own."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from fuzz.checking import TIME_S, try_input
from fuzz.mutation import LARGEST, mutate
from fuzz.run import STATE, input_of, work
from fuzz.seeds import RENAME, place_beside, readers, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdnet.errors import WeightsError
from kdnet.weights import format_names, read_weights

RUN = Path(__file__).parent / "fuzz" / "run.py"
QUICK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def test_every_reader_is_fuzzed() -> None:
    assert set(readers()) == {*format_names(), RENAME}
    for reader in readers():
        assert all(len(content) < LARGEST for content in seeds(reader))


@pytest.mark.parametrize("reader", readers())
def test_the_files_to_begin_with_are_whole(reader: str, tmp_path: Path) -> None:
    place_beside(reader, tmp_path)
    for content in seeds(reader):
        (tmp_path / "a").write_bytes(content)
        assert try_input(reader, tmp_path / "a", direct=False)
        assert try_input(reader, tmp_path / "a", direct=True)


@pytest.mark.parametrize("reader", readers())
@QUICK
@given(rng=st.randoms(use_true_random=False), direct=st.booleans())
def test_damaged_files(reader: str, rng: random.Random, direct: bool, tmp_path: Path) -> None:
    place_beside(reader, tmp_path)
    path = tmp_path / "a"
    path.write_bytes(mutate(rng, seeds(reader)))
    began = time.process_time()
    try_input(reader, path, direct=direct)
    assert time.process_time() - began < TIME_S


@pytest.mark.parametrize("reader", readers())
@QUICK
@given(content=st.binary(max_size=300))
def test_bytes_of_no_kind(reader: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    try_input(reader, path, direct=True)


def test_an_input_is_its_number() -> None:
    assert input_of("npz", 3, 7) == input_of("npz", 3, 7)
    assert len({input_of("npz", 3, number) for number in range(50)}) > 40


def test_a_run_prints_its_outcome() -> None:
    chosen = ["--reader", "caffemodel", "--inputs", "50", "--engine", "mutations"]
    command = [sys.executable, str(RUN), *chosen, "--no-record"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["reader"], outcome["inputs"], outcome["findings"]) == ("caffemodel", 50, [])
    assert 0 < outcome["read_whole"] < 50
    assert 0 < outcome["peak_mb"] < 256


def test_findings_end_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzz.run

    def crash(_reader: str, _path: Path, *, direct: bool) -> bool:
        raise ZeroDivisionError(direct)

    monkeypatch.setattr(fuzz.run, "try_input", crash)
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    shared = tmp_path / "state"
    shared.write_bytes(STATE.pack(0, 0, 0))
    with pytest.raises(ZeroDivisionError):
        work("caffemodel", 0, 5, 9, shared)
    assert STATE.unpack(shared.read_bytes())[0] == 5


# --- what was found once


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16])
def test_an_empty_array_of_huge_axes_is_refused(kind: int, tmp_path: Path) -> None:
    shape = [2**40, 0, 2**40]
    held = onnx.TensorProto(name="a", data_type=kind, dims=shape)
    graph = onnx.helper.make_graph([], "net", [], [], [held])
    (tmp_path / "a").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(WeightsError, match="corrupt-weights"):
        read_weights(tmp_path / "a")
    header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    (tmp_path / "b").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(WeightsError, match="corrupt-weights"):
        read_weights(tmp_path / "b")
