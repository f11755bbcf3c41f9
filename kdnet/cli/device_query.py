"""Tell what there is to run on: ONNX Runtime and its providers, the CPU, every CUDA device.

A CUDA device is described as Caffe does, and whether ONNX Runtime runs nets on it is tried.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from kdnet.cli._caffe_flags import add_glog, as_in_caffe, tell_ignored
from kdnet.errors import UsageError, fail

HELP = "tell what there is to run on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    gpu = parser.add_argument(
        "--gpu", metavar="ID[,ID]|all", default="", help="CUDA devices only, these or all"
    )
    as_in_caffe(parser, gpu)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    add_glog(parser)


def _wanted(gpu: str) -> list[int] | None:
    """Numbers of devices; None for all.

    Raises:
        UsageError: bad-device.
    """
    if gpu in ("", "all"):
        return None
    numbers = gpu.split(",")
    if not all(number.isdecimal() and number.isascii() for number in numbers):
        hint = ("--gpu takes numbers of devices, as 0 or 0,1, or all",)
        fail(UsageError, "bad-device", f'there is no device "{gpu}"', help=hint)
    return [int(number) for number in numbers]


def run(options: argparse.Namespace) -> int:
    """Print to stdout."""
    from kdnet.runtime import CaffeLog
    from kdnet.runtime.device_report import as_text, query_devices

    tell_ignored(options, CaffeLog(sys.stderr))
    devices = query_devices(_wanted(options.gpu))
    if options.json:
        print(json.dumps(asdict(devices), indent=2))
    else:
        print(as_text(devices, with_cpu=not options.gpu), end="")
    return 0
