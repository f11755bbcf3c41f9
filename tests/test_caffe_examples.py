"""Nets and solvers built like those of Caffe's examples and models, run as their users run them.

What lies in ``caffe_examples`` is written for these tests: each file has the structure and the
spelling of one that comes with Caffe, and small sizes. ``*_solver`` files are solvers, and
``*_deploy`` files are nets that are fed. ``bench/bvlc.py`` does the same with Caffe's own files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from small_nets import Ended, ok, run

import kdnet
from kdnet import runtime
from kdnet.runtime.plan import is_solver
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net, read_solver, read_text, write_text
from kdnet.weights import philox, read_weights

EXAMPLES = Path(__file__).parent / "caffe_examples"
FILES = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.prototxt"))
SOLVERS = [path for path in FILES if path.endswith("_solver.prototxt")]
DEPLOYED = [path for path in FILES if path.endswith("_deploy.prototxt")]
PLAIN = ["features/extract.prototxt", "python/linreg.prototxt", "python/linreg_stock.prototxt"]
# What only databases know, where no crop tells it.
SHAPES = {
    "autoencoder": "data=1x6x6",
    "cifar": "data=3x16x16",
    "hdf5": "data=4",
    "mnist": "data=1x12x12",
    "siamese": "pairs=2x8x8",
}
# Another spelling, the one it stands for, and their solver.
SPELLINGS = [
    ("autoencoder/autoencoder_v1", "autoencoder/autoencoder", "autoencoder/nesterov_solver"),
    ("cifar/full_v1", "cifar/full", "cifar/full_solver"),
    ("cifar/quick_v0", "cifar/quick", "cifar/quick_solver"),
    ("hdf5/nonlinear_v1", "hdf5/nonlinear", "hdf5/nonlinear_solver"),
    ("imagenet/caffenet_v1", "imagenet/caffenet", "imagenet/caffenet_solver"),
    ("mnist/lenet_consolidated_v1_solver", "mnist/lenet_consolidated_solver", ""),
    ("mnist/lenet_enum_adagrad_solver", "mnist/lenet_adagrad_solver", ""),
    ("mnist/lenet_enum_nesterov_solver", "mnist/lenet_nesterov_solver", ""),
    ("mnist/lenet_v0", "mnist/lenet", "mnist/lenet_adam_solver"),
    ("mnist/lenet_v1", "mnist/lenet", "mnist/lenet_solver"),
    ("siamese/pairs_v1", "siamese/pairs", "siamese/pairs_solver"),
]
LOSS = re.compile(r"^Iteration (\d+).*, loss = (\S+)$")


@pytest.fixture(autouse=True)
def _at_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files name each other from the folder of all examples, as Caffe's do from Caffe's."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES / "python"))


def train(path: str, out: Path, *more: object, steps: int = 2) -> Ended:
    shape = SHAPES.get(path.split("/", maxsplit=1)[0])
    if shape:
        more = ("--input-shape", shape, *more)
    given = ("--synthetic-data", "--device", "cpu", "--max-iter", steps, "--out", out)
    return ok("train", path, *given, *more)


def losses(ended: Ended) -> list[float]:
    """The loss of each iteration, and of one batch after the last."""
    found = [LOSS.match(line) for line in ended.log]
    return [float(match[2]) for match in found if match]


def snapshot(out: Path) -> str:
    """The weight file that a run left."""
    (path,) = (path for path in out.iterdir() if ".caffemodel" in path.name)
    return str(path)


def weights(path: str) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}/{index}": np.asarray(blob)
        for layer in read_weights(path).layers
        for index, blob in enumerate(layer.blobs)
    }


def scored(path: str, *files: str) -> runtime.Scores:
    options = runtime.TestOptions(
        path, weights=files, iterations=1, device="cpu", allow_unloaded=True, synthetic_data=True
    )
    return runtime.test_net(options, runtime.CaffeLog())


# --- every file


@pytest.mark.parametrize("path", FILES)
def test_a_file_in_todays_spelling_reads_back(path: str) -> None:
    found = (read_solver if is_solver(path) else read_net)(path).message
    assert not any(net.layers or net.input for net in nets_of(found))
    assert read_text(write_text(found), path, type(found)).message == found


def nets_of(message: pb.NetParameter | pb.SolverParameter) -> list[pb.NetParameter]:
    if isinstance(message, pb.NetParameter):
        return [message]
    return [message.net_param, message.train_net_param, *message.test_net_param]


@pytest.mark.parametrize("path", SOLVERS)
def test_a_solver_trains_its_net(path: str, tmp_path: Path) -> None:
    ended = train(path, tmp_path, "--allow-unloaded")
    assert len(losses(ended)) == 3
    assert np.isfinite(losses(ended)).all()
    solver = read_solver(path).message
    first = solver.test_iter if solver.test_initialization else []
    wanted = [f"Iteration 0, Testing net (#{index})" for index in range(len(first))]
    assert [line for line in ended.log if line.startswith("Iteration 0, Testing")] == wanted
    assert snapshot(tmp_path).endswith(".h5") == (solver.snapshot_format == solver.HDF5)
    assert ended.log[-1] == "Optimization Done."


@pytest.mark.parametrize("path", PLAIN)
def test_a_net_trains_without_a_solver(path: str, tmp_path: Path) -> None:
    python = ["--allow-python"] if path == "python/linreg.prototxt" else []
    ended = train(path, tmp_path, *python)
    assert "no solver given" in ended.err
    assert ended.log[-1] == "Optimization Done."


@pytest.mark.parametrize("path", DEPLOYED)
def test_a_deployed_net_is_fed(path: str) -> None:
    scores = scored(path)
    (report,) = scores.reports
    value = scores.values[report.output]
    assert np.isfinite(value).all()
    if report.blob == "prob":
        np.testing.assert_allclose(value.sum(1), 1, rtol=1e-6)


def test_every_net_is_run() -> None:
    named = set()
    for path in SOLVERS:
        solver = read_solver(path).message
        named |= {solver.net, solver.train_net, *solver.test_net}
    respelt = {f"{path}.prototxt" for path, _, _ in SPELLINGS}
    assert set(FILES) == {*SOLVERS, *DEPLOYED, *PLAIN} | (named - {""}) | respelt


# --- spellings


@pytest.mark.parametrize(("path", "stands_for", "solver"), SPELLINGS)
def test_a_spelling_trains_what_it_stands_for_bit_by_bit(
    path: str, stands_for: str, solver: str, tmp_path: Path
) -> None:
    more = ["--solver", f"{solver}.prototxt"] if solver else []
    found = []
    for name in (path, stands_for):
        out = tmp_path / name.replace("/", "_")
        ended = train(f"{name}.prototxt", out, *more)
        found.append((losses(ended), weights(snapshot(out))))
    (one, left), (other, right) = found
    assert one == other
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_a_net_with_input_fields_computes_what_one_with_an_input_layer_does() -> None:
    old, new = (scored(f"mnist/lenet{version}_deploy.prototxt") for version in ("_v1", ""))
    (prob,) = new.values
    np.testing.assert_array_equal(old.values[prob], new.values[prob])
    assert new.values[prob].shape == (6, 10)


# --- from one file to the next


@pytest.mark.parametrize(
    ("solver", "deployed"),
    [
        ("cifar/full", "cifar/full"),
        ("cifar/quick", "cifar/quick"),
        ("imagenet/alexnet", "imagenet/alexnet"),
        ("imagenet/googlenet", "imagenet/googlenet"),
        ("mnist/lenet_consolidated_v1", "mnist/lenet_v1"),
        ("siamese/pairs", "siamese/pairs"),
    ],
)
def test_a_deployed_net_finds_all_its_weights(solver: str, deployed: str, tmp_path: Path) -> None:
    train(f"{solver}_solver.prototxt", tmp_path, steps=1)
    ended = ok("test", f"{deployed}_deploy.prototxt", "--weights", snapshot(tmp_path),
               "--synthetic-data", "--iterations", 1, "--device", "cpu")  # fmt: skip
    (told,) = (line for line in ended.log if "layers loaded" in line)
    assert re.fullmatch(r"(\d+) of \1 layers loaded", told), told


def test_the_nets_of_a_siamese_pair_stay_one(tmp_path: Path) -> None:
    train("siamese/pairs_solver.prototxt", tmp_path)
    found = weights(snapshot(tmp_path))
    for name in ("conv1/0", "ip1/0", "feat/1"):
        layer, index = name.split("/")
        np.testing.assert_array_equal(found[name], found[f"{layer}_p/{index}"])


def test_fine_tuning_takes_over_layers_and_leaves_frozen_ones_alone(tmp_path: Path) -> None:
    train("imagenet/caffenet_solver.prototxt", tmp_path / "first", steps=1)
    first = snapshot(tmp_path / "first")
    ended = train("style/style_solver.prototxt", tmp_path / "second", "--weights", first, "--full")
    assert any(re.match(r"fc8_style +filler", line) for line in ended.log)
    assert any(re.match(r"conv1 +loaded", line) for line in ended.log)
    before, after = weights(first), weights(snapshot(tmp_path / "second"))
    assert "fc8/0" not in after
    changed = {name for name in after if name in before and (after[name] != before[name]).any()}
    assert {"conv1/0", "conv1/1"} & changed == set()
    assert {"conv2/0", "conv4/0", "fc6/0", "fc7/0"} <= changed


def test_a_frozen_layer_without_weights_is_refused(tmp_path: Path) -> None:
    ended = run("train", "style/style_solver.prototxt", "--synthetic-data", "--device", "cpu",
                "--max-iter", 1, "--out", tmp_path)  # fmt: skip
    assert ended.code == 1
    assert "conv1" in ended.faults


def test_features_come_from_a_net_trained_elsewhere(tmp_path: Path) -> None:
    train("imagenet/caffenet_solver.prototxt", tmp_path, steps=1)
    ended = ok("test", "features/extract.prototxt", "--weights", snapshot(tmp_path), "--json", "-",
               "--synthetic-data", "--iterations", 2, "--device", "cpu")  # fmt: skip
    assert json.loads(ended.out)["outputs"].keys() >= {"accuracy", "loss"}


def test_a_loss_in_python_trains_as_caffes_own_does(tmp_path: Path) -> None:
    ours = train("python/linreg.prototxt", tmp_path / "ours", "--allow-python", steps=5)
    stock = train("python/linreg_stock.prototxt", tmp_path / "stock", steps=5)
    np.testing.assert_allclose(losses(ours), losses(stock), rtol=1e-5)
    wanted = weights(snapshot(tmp_path / "stock"))
    for name, value in weights(snapshot(tmp_path / "ours")).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-7)


def test_a_net_is_tested_on_the_sets_that_stages_tell_apart(tmp_path: Path) -> None:
    ended = train("mnist/lenet_consolidated_solver.prototxt", tmp_path, steps=1)
    told = [line for line in ended.log if "made-up data stand in" in line]
    assert ['"mnist/train_lmdb"' in line for line in told] == [True, False, True]
    assert ["(8, 1, 12, 12)" in line for line in told] == [True, False, False]
    ended = train("autoencoder/autoencoder_solver.prototxt", tmp_path, steps=1)
    scores = [line for line in ended.log if "Test net output" in line]
    assert [re.search(r"#\d: (\w+)", line)[1] for line in scores] == [
        "cross_entropy", "l2_error", "cross_entropy", "l2_error",
    ]  # fmt: skip


def test_inner_products_become_convolutions_by_their_numbers() -> None:
    dense = kdnet.Net("imagenet/caffenet_deploy.prototxt", kdnet.TEST)
    wide = kdnet.Net("surgery/full_conv_deploy.prototxt", kdnet.TEST)
    for name, blobs in dense.params.items():
        target = wide.params[f"{name}-conv" if name.startswith("fc") else name]
        for index, (blob, other) in enumerate(zip(blobs, target, strict=True)):
            blob.data[...] = philox(5, name, index).random(blob.data.shape) - 0.5
            other.data.flat = blob.data.flat
    images = philox(5, "images").random((10, 3, 35, 35))
    wide.blobs["data"].reshape(10, 3, 35, 35)
    wide.reshape()
    found = [net.forward(data=images)["prob"] for net in (dense, wide)]
    assert found[1].shape == (10, 20, 1, 1)
    assert np.ptp(found[0], axis=0).max() > 1e-3
    np.testing.assert_allclose(found[0], found[1][..., 0, 0], rtol=1e-5, atol=1e-7)
