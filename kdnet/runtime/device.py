"""Which device runs the graphs: chosen by what is really there, never by what is listed."""

from __future__ import annotations

import importlib
import os
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kdnet.errors import Diagnostic, RunError, UsageError, fail

CUDA_PROVIDER = "CUDAExecutionProvider"
CPU_PROVIDER = "CPUExecutionProvider"
INSTALL_HINT = (
    'install one of the two, in this environment: pip install "kdnet[cpu]" or '
    'pip install "kdnet[gpu]"',
    "if both onnxruntime and onnxruntime-gpu were installed, uninstall both first: they "
    "overwrite each other's files",
)


def onnxruntime() -> ModuleType:
    """The runtime, checked to be whole.

    Raises:
        RunError: no-runtime, naming the two extras, when it is missing or half uninstalled.
    """
    try:
        ort = importlib.import_module("onnxruntime")
        _ = (ort.__version__, ort.InferenceSession)
    except (ImportError, AttributeError) as error:
        text = f"no working onnxruntime: {error}"
        fail(RunError, "no-runtime", text, help=INSTALL_HINT)
    return ort


@dataclass(frozen=True)
class Device:
    """A CPU, or the CUDA device ``index``."""

    kind: str
    index: int = 0

    @property
    def providers(self) -> list[Any]:
        """ONNX Runtime's providers for a session; a CUDA session gets no CPU to fall back to."""
        if self.kind == "cpu":
            return [CPU_PROVIDER]
        return [(CUDA_PROVIDER, {"device_id": str(self.index), **cuda_options()})]

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"


def cuda_options() -> dict[str, str]:
    """Provider options, from KDNET_CUDA_OPTIONS as ``name=value,name=value``."""
    text = os.environ.get("KDNET_CUDA_OPTIONS", "")
    return dict(item.split("=", 1) for item in text.split(",") if "=" in item)


def choose_device(wanted: str, default: int = 0) -> tuple[Device, str]:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, and why; N is else ``default``.

    Raises:
        UsageError: bad-device for any other text.
        RunError: no-cuda, when CUDA was asked for and is not there, with what is missing.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", wanted)
    if not match:
        text = f'there is no device "{wanted}"'
        fail(UsageError, "bad-device", text, help=("use auto, cpu, cuda or cuda:N",))
    if wanted == "cpu":
        onnxruntime()
        return Device("cpu"), "asked for"
    index = int(match.group(1) or default)
    missing = why_no_cuda(index)
    if not missing:
        return Device("cuda", index), "asked for" if wanted != "auto" else "CUDA answers"
    if wanted == "auto":
        return Device("cpu"), f"no CUDA: {missing[0]}"
    fault = Diagnostic("no-cuda", f"{wanted} was asked for: {missing[0]}", help=missing[1:])
    raise RunError(fault)


def device_of_gpu(ids: str) -> str:
    """What to ask :func:`choose_device` for where Caffe's ``-gpu`` says ``0``, ``0,1`` or ``all``.

    Raises:
        UsageError: several-gpus, for more than one device; bad-device for what is no number.
    """
    numbers = ids.split(",")
    if ids == "all":
        numbers = ["0"] if why_no_cuda(0) or why_no_cuda(1) else ["0", "1"]
    if not all(re.fullmatch(r"\d+", number) for number in numbers):
        text = f'there is no device "{ids}"'
        fail(UsageError, "bad-device", text, help=("-gpu takes the number of a device, or all",))
    if len(numbers) > 1:
        text = f"-gpu {ids} names more than one device; a net runs on one"
        hints = (
            f"say -gpu {numbers[0]}",
            "Caffe's batch is then as many times smaller: iter_size makes up for it in training",
        )
        fail(UsageError, "several-gpus", text, help=hints)
    return f"cuda:{int(numbers[0])}"


def why_no_cuda(index: int) -> tuple[str, ...]:
    """Empty when CUDA device ``index`` works; else what is missing, then what to do."""
    ort = onnxruntime()
    if CUDA_PROVIDER not in ort.get_available_providers():
        return (
            f"onnxruntime {ort.__version__} is built without CUDA",
            'pip uninstall onnxruntime, then pip install "kdnet[gpu]"',
        )
    _load_cuda_libraries(ort)
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", index)
    except Exception as error:  # noqa: BLE001, RUF100  # pybind raises what it likes
        reason = str(error).strip().splitlines()[0]
        return (
            f"the CUDA provider does not start: {reason}",
            "it needs an NVIDIA driver, CUDA 13 and cuDNN 9: "
            'pip install "kdnet[gpu]" brings all but the driver',
        )
    return ()


def _load_cuda_libraries(ort: ModuleType) -> None:
    """Let the runtime find CUDA libraries that came as packages."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is None:
        return
    # It prints what it does not find; whether CUDA works is seen right after.
    with Path(os.devnull).open("w", encoding="utf-8") as sink, redirect_stdout(sink):
        preload()
