"""Devices, sessions, the training loop, snapshots: everything that runs a compiled net."""

from kdnet.runtime.device import Device, choose_device
from kdnet.runtime.engine import Engine
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import TrainOptions
from kdnet.runtime.setup import compile_to_file, prepare
from kdnet.runtime.signals import Effect, StopRequest
from kdnet.runtime.state import StateBuffers
from kdnet.runtime.stepper import Stepper
from kdnet.runtime.tester import Scores, TestOptions, test_net
from kdnet.runtime.trainer import Run, TestNet, Trainer

__all__ = [
    "CaffeLog",
    "Device",
    "Effect",
    "Engine",
    "Run",
    "Scores",
    "StateBuffers",
    "Stepper",
    "StopRequest",
    "TestNet",
    "TestOptions",
    "TrainOptions",
    "Trainer",
    "choose_device",
    "compile_to_file",
    "prepare",
    "test_net",
]
