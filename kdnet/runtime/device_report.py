"""``kdnet device-query``: what there is to run on, as the drivers tell it.

The CUDA driver numbers devices as ONNX Runtime does, so after CUDA_VISIBLE_DEVICES. Its library is
asked directly: it is there wherever CUDA can work, and no device is touched by the questions.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnet.errors import RunError, fail
from kdnet.runtime.device import onnxruntime, why_no_cuda
from kdnet.runtime.engine import thread_count

DRIVERS = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1",)
MANAGEMENT = ("nvml.dll",) if sys.platform == "win32" else ("libnvidia-ml.so.1",)
TEXT_BYTES = 256
# What Caffe prints of a device, by the number of the CUDA driver's attribute.
ATTRIBUTES = (
    ("Major revision number", 75),
    ("Minor revision number", 76),
    ("Total shared memory per block", 8),
    ("Total registers per block", 12),
    ("Warp size", 10),
    ("Maximum memory pitch", 11),
    ("Maximum threads per block", 1),
    ("Maximum dimension of block", (2, 3, 4)),
    ("Maximum dimension of grid", (5, 6, 7)),
    ("Clock rate", 13),
    ("Total constant memory", 9),
    ("Texture alignment", 14),
    ("Number of multiprocessors", 16),
)
SWITCHES = (("Concurrent copy and execution", 15), ("Kernel execution timeout", 17))
INSTRUCTIONS = ("sse4_2", "avx", "avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd", "sve")

Facts = dict[str, str]


@dataclass(frozen=True)
class Devices:
    """Facts by their names: of ONNX Runtime, of the CPU, and of each CUDA device by its number."""

    runtime: Facts
    cpu: Facts
    cuda: dict[int, Facts]


def query_devices(wanted: Sequence[int] | None = None) -> Devices:
    """Everything about the devices that are there.

    Args:
        wanted: numbers of CUDA devices; None for all.

    Raises:
        RunError: no-runtime; no-cuda where a wanted device is not there.
    """
    ort = onnxruntime()
    driver = load_library(DRIVERS)
    runtime = {
        "ONNX Runtime": str(ort.__version__),
        "Providers": ", ".join(ort.get_available_providers()),
        **driver_facts(driver, load_library(MANAGEMENT)),
    }
    count = device_count(driver)
    for index in wanted or ():
        if index >= count:
            text = f"there is no CUDA device {index}: the driver knows {count}"
            fail(RunError, "no-cuda", text, help=why_no_cuda(index))
    indices = range(count) if wanted is None else wanted
    cuda = {index: {**device_facts(driver, index), "Runs nets": _runs(index)} for index in indices}
    return Devices(runtime, cpu_facts(), cuda)


def _runs(index: int) -> str:
    missing = why_no_cuda(index)
    return f"No: {missing[0]}" if missing else "Yes"


def load_library(names: Iterable[str]) -> Any:
    """The first of some shared libraries that is there; None if none is."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _call(library: Any, name: str, *arguments: Any) -> bool:
    """Call a C function; whether it is there and succeeded."""
    try:
        return int(getattr(library, name)(*arguments)) == 0
    except AttributeError:
        return False


def _asked(library: Any, name: str, into: Any, *arguments: Any) -> Any:
    """What a C function stores through its first argument; None where it fails."""
    return into.value if _call(library, name, ctypes.byref(into), *arguments) else None


def _text(library: Any, name: str, *arguments: Any) -> str:
    """The text that a C function stores; empty where it fails."""
    text = ctypes.create_string_buffer(TEXT_BYTES)
    known = _call(library, name, text, TEXT_BYTES, *arguments)
    return text.value.decode(errors="replace") if known else ""


def driver_facts(driver: Any, management: Any) -> Facts:
    """The versions of the CUDA driver and of what CUDA it can run."""
    if driver is None:
        return {"CUDA driver": "none"}
    found = {}
    version = _asked(driver, "cuDriverGetVersion", ctypes.c_int())
    if version:
        found["CUDA driver"] = f"for CUDA {version // 1000}.{version % 1000 // 10}"
    if management is not None and _call(management, "nvmlInit_v2"):
        if told := _text(management, "nvmlSystemGetDriverVersion"):
            found["NVIDIA driver"] = told
        _call(management, "nvmlShutdown")
    return found


def device_count(driver: Any) -> int:
    """How many CUDA devices this process may use."""
    if driver is None or not _call(driver, "cuInit", 0):
        return 0
    return _asked(driver, "cuDeviceGetCount", ctypes.c_int()) or 0


def device_facts(driver: Any, index: int) -> Facts:
    """What Caffe tells of a CUDA device; what the driver does not say is left out."""
    device = ctypes.c_int(_asked(driver, "cuDeviceGet", ctypes.c_int(), index) or 0)

    def attribute(number: int) -> int | None:
        value: int | None = _asked(driver, "cuDeviceGetAttribute", ctypes.c_int(), number, device)
        return value

    found: dict[str, object] = {"Device id": index}
    found["Name"] = _text(driver, "cuDeviceGetName", device) or None
    found["Total global memory"] = _asked(driver, "cuDeviceTotalMem_v2", ctypes.c_size_t(), device)
    for label, numbers in ATTRIBUTES:
        several = numbers if isinstance(numbers, tuple) else (numbers,)
        values = [attribute(number) for number in several]
        found[label] = None if None in values else ", ".join(map(str, values))
    for label, number in SWITCHES:
        value = attribute(number)
        found[label] = None if value is None else "Yes" if value else "No"
    return {label: str(value) for label, value in found.items() if value is not None}


def cpu_facts() -> Facts:
    """The processor, as far as the system tells."""
    told = _processor_lines()
    flags = told.get("flags", told.get("Features", "")).split()
    found = {
        "Name": told.get("model name") or platform.processor() or platform.machine(),
        "Processors for this process": str(thread_count()),
        "Instructions": " ".join(name for name in INSTRUCTIONS if name in flags),
        "Total memory": str(_memory() or ""),
    }
    return {label: value for label, value in found.items() if value}


def _processor_lines() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _memory() -> int | None:
    """Bytes of memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def as_text(devices: Devices, *, with_cpu: bool = True) -> str:
    """A block for each device, in the columns of ``caffe device_query``."""
    blocks = [devices.runtime, *([devices.cpu] if with_cpu else []), *devices.cuda.values()]
    lines = ["\n".join(f"{f'{name}:':<30} {value}" for name, value in b.items()) for b in blocks]
    if not devices.cuda:
        lines.append("No CUDA device.")
    return "\n\n".join(lines) + "\n"
