"""What pycaffe keeps for the whole program: the device and the seed."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from kdnet.runtime import Device, choose_device


@dataclass
class _Mode:
    device: Device | None = None
    index: int = 0
    seed: int | None = None


_MODE = _Mode()


def set_mode_cpu() -> None:
    """Let nets and solvers that are made from now on run on the CPU, as they do at first."""
    _MODE.device = None


def set_mode_gpu() -> None:
    """Let nets and solvers that are made from now on run on CUDA, where it works.

    Where it does not, they run on the CPU, and a line on stderr says why, as for a solver file
    with ``solver_mode: GPU``.
    """
    device, why = choose_device("auto", _MODE.index)
    if device.kind == "cpu":
        sys.stderr.write(f"kdnet: running on the CPU: {why}\n")
    _MODE.device = device


def set_device(device_id: int) -> None:
    """Choose the CUDA device, by its number, for :func:`set_mode_gpu` before or after."""
    _MODE.index = int(device_id)
    if _MODE.device is not None and _MODE.device.kind == "cuda":
        _MODE.device = Device("cuda", _MODE.index)


def set_random_seed(seed: int) -> None:
    """Seed fillers, dropout and shuffling of nets and solvers that are made from now on.

    Without it the seed is 0, or the solver's ``random_seed``: a run always repeats.
    """
    _MODE.seed = int(seed)


def current_device() -> Device:
    """The device for a new net."""
    return _MODE.device or choose_device("cpu")[0]


def current_seed() -> int | None:
    """The seed that was set."""
    return _MODE.seed
