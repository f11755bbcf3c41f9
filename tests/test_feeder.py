"""The feeder: order, look-ahead, faults, and a thread that always ends."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables.sources import LMDB, PIXELS, database, in_order, layer_of

from kdnet.data import Feeder, Source, open_source
from kdnet.errors import DataError, fail
from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.source import SourceMap


class Counting(Source):
    """Batch k holds k; ``fails_at`` raises there, ``gate`` is waited for before every batch."""

    def __init__(self, top: str = "x", fails_at: int = -1, gate: threading.Event | None = None):
        message = pb.LayerParameter(name="c", type="Counting", top=[top])
        layer = LayerModel("c", "Counting", (), (top,), pb.TRAIN, message, SourceMap.empty())
        super().__init__(layer, seed=0)
        self.asked: list[int] = []
        self._fails_at = fails_at
        self._gate = gate

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((1,),)

    def batch(self, index: int) -> tuple[np.ndarray[Any, Any], ...]:
        self.asked.append(index)
        if self._gate:
            self._gate.wait(10)
        if index == self._fails_at:
            fail(DataError, "corrupt-record", "broken")
        return (np.array([index], np.float32),)


def feeder_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kdnet-feeder"]


def soon(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true within five seconds."""
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    assert soon(lambda: not feeder_threads())


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_batches_come_in_order_from_the_start(depth: int):
    with Feeder([Counting()], 5, depth) as feeder:
        assert [int(feeder.next()["x"][0]) for _ in range(20)] == list(range(5, 25))


def test_the_data_layers_of_a_net_are_fed_together(tmp_path: Path):
    database()(tmp_path)
    with (
        open_source(layer_of(LMDB, tmp_path), seed=0) as data,
        Feeder([data, Counting("more")], 2) as feeder,
    ):
        for index in (2, 3, 4):
            batch = feeder.next()
            assert list(batch) == ["data", "label", "more"]
            images, labels = in_order(PIXELS, 4)(index)
            np.testing.assert_array_equal(batch["data"], images)
            np.testing.assert_array_equal(batch["label"], labels)
            assert batch["more"] == [index]


def test_it_reads_ahead_and_no_further_than_its_depth():
    source = Counting()
    with Feeder([source], 0, 3) as feeder:
        # Three are ready and a fourth waits in the thread's hands.
        assert soon(lambda: source.asked == [0, 1, 2, 3])
        time.sleep(0.05)
        assert source.asked == [0, 1, 2, 3]
        feeder.next()
        assert soon(lambda: source.asked == [0, 1, 2, 3, 4])


def test_a_fault_comes_after_the_batches_before_it_and_stays():
    with Feeder([Counting(fails_at=2)], 0, 4) as feeder:
        assert soon(lambda: not feeder_threads())
        assert [int(feeder.next()["x"][0]) for _ in range(2)] == [0, 1]
        for _ in range(2):
            with pytest.raises(DataError, match="broken"):
                feeder.next()


def test_closing_ends_a_thread_that_waits_for_room_and_may_be_repeated():
    source = Counting()
    feeder = Feeder([source], 0, 2)
    assert soon(lambda: len(source.asked) == 3)
    feeder.close()
    assert feeder_threads() == []
    feeder.close()
    with pytest.raises(RuntimeError, match="closed"):
        feeder.next()


def test_closing_waits_for_the_batch_that_is_being_read():
    gate = threading.Event()
    source = Counting(gate=gate)
    feeder = Feeder([source], 0)
    assert soon(lambda: source.asked == [0])
    opener = threading.Timer(0.05, gate.set)
    opener.start()
    feeder.close()
    assert gate.is_set()
    assert source.asked == [0]
    opener.join()


def test_a_reader_that_waits_is_told_of_the_close():
    gate = threading.Event()
    feeder = Feeder([Counting(gate=gate)], 0)
    told: list[type[BaseException]] = []

    def read() -> None:
        try:
            feeder.next()
        except RuntimeError as error:
            told.append(type(error))

    reader = threading.Thread(target=read)
    reader.start()
    threading.Timer(0.1, gate.set).start()
    feeder.close()
    reader.join(5)
    assert told == [RuntimeError]


def test_a_forgotten_feeder_ends_its_thread():
    source = Counting()
    feeder = Feeder([source], 0, 2)
    feeder.next()
    del feeder
    gc.collect()
    assert soon(lambda: not feeder_threads())


def test_sources_stay_open_when_the_feeder_closes(tmp_path: Path):
    database()(tmp_path)
    with open_source(layer_of(LMDB, tmp_path), seed=0) as data:
        with Feeder([data]) as feeder:
            feeder.next()
        np.testing.assert_array_equal(data.batch(1)[0], in_order(PIXELS, 4)(1)[0])
