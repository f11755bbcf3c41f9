"""On a CUDA device: nets and solvers from Python do what they do on the CPU."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import kdnet
from kdnet import layers as L  # noqa: N812  # pycaffe's name
from kdnet.api import mode
from kdnet.runtime import CaffeLog
from kdnet.runtime.device import why_no_cuda

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    missing = why_no_cuda(0)
    if missing:
        pytest.skip(f"no CUDA: {missing[0]}")
    monkeypatch.setenv("KDNET_CUDA_OPTIONS", "use_tf32=0")
    monkeypatch.chdir(tmp_path)
    yield
    mode._MODE.__init__()


def _spec() -> kdnet.NetSpec:
    n = kdnet.NetSpec()
    n.data, n.label = L.DummyData(
        shape=[{"dim": [4, 3, 8, 8]}, {"dim": [4]}],
        data_filler=[{"type": "gaussian"}, {"type": "constant", "value": 2}],
        ntop=2,
    )
    n.conv = L.Convolution(n.data, num_output=6, kernel_size=3, weight_filler={"type": "msra"})
    n.norm = L.BatchNorm(n.conv, in_place=True, moving_average_fraction=0.5)
    n.relu = L.ReLU(n.norm, in_place=True)
    n.score = L.InnerProduct(n.relu, num_output=5, weight_filler={"type": "xavier"})
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return n


def _both_modes(make):
    found = []
    for choose in (kdnet.set_mode_cpu, kdnet.set_mode_gpu):
        choose()
        found.append(make())
    return found


def test_passes_equal_the_cpus() -> None:
    nets = _both_modes(lambda: kdnet.Net(_spec(), kdnet.TRAIN))
    for net in nets:
        weight = net.params["score"][0].data
        for _ in range(2):
            net.forward()
            net.backward()
            weight[...] *= 0.5
    on_cpu, on_cuda = nets
    for name, blob in on_cpu.blobs.items():
        np.testing.assert_allclose(on_cuda.blobs[name].data, blob.data, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(on_cuda.blobs[name].diff, blob.diff, rtol=1e-3, atol=1e-4)
    for name, params in on_cpu.params.items():
        for mine, other in zip(params, on_cuda.params[name], strict=True):
            np.testing.assert_allclose(other.data, mine.data, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(other.diff, mine.diff, rtol=1e-3, atol=1e-4)


def test_steps_equal_the_cpus() -> None:
    Path("net.prototxt").write_text(str(_spec().to_proto()))
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 9'
    )
    quiet = CaffeLog(io.StringIO())
    solvers = _both_modes(lambda: kdnet.get_solver("solver.prototxt", quiet))
    for solver in solvers:
        solver.step(2)
        solver.net.params["score"][1].data[...] = 1
        solver.step(1)
    on_cpu, on_cuda = (solver.net for solver in solvers)
    for name in ("loss", "score", "conv"):
        wanted = on_cpu.blobs[name].data
        np.testing.assert_allclose(on_cuda.blobs[name].data, wanted, rtol=1e-3, atol=1e-4)
    slopes = [net.params["conv"][0].diff for net in (on_cpu, on_cuda)]
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-3, atol=1e-4)
