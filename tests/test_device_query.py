"""``kdnet device-query``: facts from a made-up driver, and none where there is no driver."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import onnxruntime
import pytest
from small_nets import ok, run

from kdnet.runtime import device_report
from kdnet.runtime.device_report import device_count, device_facts, driver_facts

ATTRIBUTES = {75: 9, 76: 0, 8: 49152, 12: 65536, 10: 32, 11: 2147483647, 1: 1024, 9: 65536}
ATTRIBUTES |= {2: 1024, 3: 1024, 4: 64, 5: 2147483647, 6: 65535, 7: 65535, 13: 1980000}
ATTRIBUTES |= {14: 512, 16: 132, 15: 1, 17: 0}


class Driver:
    """A CUDA driver with two devices, as far as it is asked."""

    def __init__(self, *, works: bool = True) -> None:
        self.works = works

    def cuInit(self, _flags: int) -> int:  # noqa: N802  # the C library's name
        return 0 if self.works else 100

    def cuDeviceGetCount(self, into: Any) -> int:  # noqa: N802  # the C library's name
        into._obj.value = 2
        return 0

    def cuDriverGetVersion(self, into: Any) -> int:  # noqa: N802  # the C library's name
        into._obj.value = 13020
        return 0

    def cuDeviceGet(self, into: Any, index: int) -> int:  # noqa: N802  # the C library's name
        into._obj.value = index
        return 0

    def cuDeviceGetName(self, text: Any, size: int, device: Any) -> int:  # noqa: N802  # the C library's name
        text.value = f"Made-up {device.value}".encode()[:size]
        return 0

    def cuDeviceTotalMem_v2(self, into: Any, _device: Any) -> int:  # noqa: N802  # the C library's name
        into._obj.value = 150_000_000_000
        return 0

    def cuDeviceGetAttribute(self, into: Any, number: int, _device: Any) -> int:  # noqa: N802  # the C library's name
        into._obj.value = ATTRIBUTES[number]
        return 0


class Management:
    """NVML, as far as it is asked."""

    def nvmlInit_v2(self) -> int:  # noqa: N802  # the C library's name
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802  # the C library's name
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, _size: int) -> int:  # noqa: N802  # the C library's name
        text.value = b"580.1"
        return 0


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = {device_report.DRIVERS: Driver(), device_report.MANAGEMENT: Management()}
    monkeypatch.setattr(device_report, "load_library", libraries.__getitem__)
    monkeypatch.setattr(
        device_report, "why_no_cuda", lambda index: () if index == 0 else ("no cuDNN", "get it")
    )


DEVICE = """\
Device id:                     1
Name:                          Made-up 1
Total global memory:           150000000000
Major revision number:         9
Minor revision number:         0
Total shared memory per block: 49152
Total registers per block:     65536
Warp size:                     32
Maximum memory pitch:          2147483647
Maximum threads per block:     1024
Maximum dimension of block:    1024, 1024, 64
Maximum dimension of grid:     2147483647, 65535, 65535
Clock rate:                    1980000
Total constant memory:         65536
Texture alignment:             512
Number of multiprocessors:     132
Concurrent copy and execution: Yes
Kernel execution timeout:      No
Runs nets:                     No: no cuDNN
"""


@pytest.mark.usefixtures("two_devices")
def test_a_device_is_described_in_caffe_s_words() -> None:
    ended = ok("device-query", "-gpu=1")
    providers = ", ".join(onnxruntime.get_available_providers())
    assert ended.out == (
        f"ONNX Runtime:                  {onnxruntime.__version__}\n"
        f"Providers:                     {providers}\n"
        "CUDA driver:                   for CUDA 13.2\n"
        "NVIDIA driver:                 580.1\n"
        f"\n{DEVICE}"
    )


@pytest.mark.usefixtures("two_devices")
def test_all_devices_and_the_cpu_are_described_unless_some_are_named() -> None:
    every = json.loads(ok("device-query", "--json").out)
    assert list(every["cuda"]) == ["0", "1"]
    assert every["cuda"]["0"]["Runs nets"] == "Yes"
    assert int(every["cpu"]["Processors for this process"]) > 0
    assert "Processors" in ok("device-query").out
    assert "Processors" not in ok("device-query", "--gpu", "all").out
    assert ok("device-query", "-gpu", "all").out.count("Device id") == 2
    assert ok("device-query", "-gpu", "1,0").out.count("Device id") == 2


@pytest.mark.usefixtures("two_devices")
def test_a_device_that_is_not_there_is_an_error() -> None:
    ended = run("device-query", "-gpu", "5")
    assert ended.code == 3
    assert "there is no CUDA device 5: the driver knows 2 [no-cuda]" in ended.err
    for wrong in ("x", "-1", "0,,1", "²"):
        ended = run("device-query", f"-gpu={wrong}")
        assert (ended.code, "[bad-device]" in ended.err) == (2, True)


def test_without_a_driver_the_cpu_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_report, "load_library", lambda _names: None)
    out = ok("device-query").out
    assert "CUDA driver:                   none\n" in out
    assert out.endswith("\nNo CUDA device.\n")


def test_a_driver_that_does_not_work_or_lacks_a_function_breaks_nothing() -> None:
    assert device_count(None) == 0
    assert device_count(Driver(works=False)) == 0
    assert device_count(object()) == 0
    assert driver_facts(object(), object()) == {}
    assert device_facts(object(), 3) == {"Device id": "3"}


def test_a_library_that_is_not_there_is_none() -> None:
    assert device_report.load_library(("libno-such-thing.so.9",)) is None
    assert isinstance(device_report.load_library((None,)), ctypes.CDLL)
