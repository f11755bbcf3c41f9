"""SGD and every learning-rate policy against ten iterations of real Caffe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from kdnet.compile import compile_training
from kdnet.compile.program import LOSS
from kdnet.errors import NetError
from kdnet.net import NetState, SolverModel, resolve_net
from kdnet.runtime import Device, Stepper
from kdnet.runtime.rate import scheduled_at
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers import learning_rate, policy_names, solver_names, transforms_of

GOLDEN = Path(__file__).parent / "golden" / "caffe" / "solvers.npz"
BATCH = 4
ITERATIONS = 10
OF_FORKS = {"cosine", "plateau", "sgdr"}


def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


ARRAYS = golden()
CASES = sorted({"/".join(name.split("/")[:2]) for name in ARRAYS if name.count("/") >= 2})
OURS = [case for case in CASES if case.split("/")[0] in solver_names()]


def solver_of(case: str) -> SolverModel:
    message = text_format.Parse(str(ARRAYS[f"{case}/solver"]), pb.SolverParameter())
    return SolverModel(message, SourceMap.empty())


def start(case: str) -> tuple[Stepper, list[str]]:
    net = text_format.Parse(str(ARRAYS[f"{case}/net"]), pb.NetParameter())
    for layer in net.layer:
        if layer.type == "HDF5Data":
            for top in layer.top:
                shape = layer.hdf5_data_param.shape.add()
                shape.dim.extend(ARRAYS[top].shape[1:])
    model = resolve_net(net, SourceMap.empty(), NetState(pb.TRAIN))
    training = compile_training(model, solver_of(case))
    values = {
        slot.name: ARRAYS[f"{case}/params/{slot.layer}/{slot.index}"][0]
        for slot in training.weights
    }
    return Stepper(training, Device("cpu"), values), list(training.main.data)


def rows(name: str, batch: int) -> np.ndarray:
    array = ARRAYS[name]
    return array[[(batch * BATCH + item) % len(array) for item in range(BATCH)]]


@pytest.mark.parametrize("case", OURS)
def test_ten_iterations_equal_caffes(case: str) -> None:
    stepper, tops = start(case)
    rate = learning_rate(solver_of(case))
    size = stepper.training.iter_size
    for iteration in range(ITERATIONS):
        first = iteration * size
        values = stepper.step(
            rate(iteration),
            lambda micro, at=first: {t: rows(t, at + micro) for t in tops},
            scheduled_at(stepper.training.schedules, iteration),
        )
        wanted = ARRAYS[f"{case}/loss"][iteration].mean()
        np.testing.assert_allclose(values[LOSS], wanted, rtol=1e-5)
        golden_rate = ARRAYS[f"{case}/lr"][iteration]
        if np.isfinite(golden_rate):
            np.testing.assert_allclose(rate(iteration), golden_rate, rtol=1e-6)
        weights = stepper.weights()
        for slot in stepper.training.weights:
            for layer, index in slot.users:
                golden_weight = ARRAYS[f"{case}/params/{layer}/{index}"][iteration + 1]
                np.testing.assert_allclose(
                    weights[slot.name], golden_weight, rtol=1e-6, atol=1e-6, err_msg=slot.name
                )


def test_every_policy_and_solver_has_a_golden_case() -> None:
    texts = [str(ARRAYS[f"{case}/solver"]) for case in OURS]
    for name in set(policy_names()) - OF_FORKS:
        assert any(f'lr_policy: "{name}"' in text for text in texts), name
    assert {case.split("/")[0] for case in OURS} == set(solver_names()) - {"AdamW", "LAMB"}


def refused(**fields: object) -> str:
    model = SolverModel(pb.SolverParameter(**fields), SourceMap.empty())
    check = learning_rate if "lr_policy" in fields and "type" not in fields else transforms_of
    with pytest.raises(NetError) as caught:
        check(model)
    return str(caught.value)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    assert refused(lr_policy="stp") == (
        'error: there is no lr_policy "stp" [unknown-lr-policy]\nhelp: did you mean "step"?'
    )
    assert refused(type="SDG") == (
        'error: there is no solver type "SDG" [unknown-solver]\nhelp: did you mean "SGD"?'
    )
    assert "unknown-regularization" in refused(regularization_type="L3")


def test_a_policy_says_which_field_it_needs() -> None:
    assert refused(lr_policy="step", gamma=0.1) == (
        'error: lr_policy "step" needs stepsize > 0 [missing-solver-field]'
    )
