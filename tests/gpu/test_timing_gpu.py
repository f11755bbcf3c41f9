"""On a CUDA device: the times of layers are their own, and the device is described."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kdnet.runtime.device import why_no_cuda

pytestmark = pytest.mark.gpu
NET = """
name: "Wide"
layer {
  name: "data" type: "DummyData" top: "data"
  dummy_data_param { shape { dim: 32 dim: 64 dim: 56 dim: 56 } data_filler { type: "uniform" } }
}
layer {
  name: "wide" type: "Convolution" bottom: "data" top: "wide"
  convolution_param { num_output: 256 kernel_size: 5 pad: 2 weight_filler { type: "xavier" } }
}
layer {
  name: "thin" type: "Convolution" bottom: "wide" top: "thin"
  convolution_param { num_output: 1 kernel_size: 1 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "Reduction" bottom: "thin" top: "loss" loss_weight: 1 }
"""


def kdnet(*words: object) -> str:
    command = [sys.executable, "-m", "kdnet", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(autouse=True)
def _cuda() -> None:
    missing = why_no_cuda(0)
    if missing:
        pytest.skip(f"no CUDA: {missing[0]}")


def test_the_time_of_a_layer_is_its_own_and_not_that_of_its_launch(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    whole = json.loads(kdnet("time", path, "-gpu", 0, "--iterations", 10, "--json", "-"))
    layers = {layer["name"]: layer for layer in whole["layers"]}
    assert whole["device"] == "cuda:0"
    assert layers["wide"]["forward"] > 2 * layers["thin"]["forward"]
    assert layers["wide"]["backward"] > 0
    assert whole["between"] < whole["iteration"] / 2


def test_the_device_is_described() -> None:
    told = json.loads(kdnet("device-query", "-gpu=0", "--json"))["cuda"]["0"]
    assert told["Runs nets"] == "Yes"
    assert int(told["Total global memory"]) > 2**30
    assert told["Warp size"] == "32"
    assert told["Name"]
