"""The nets that ``step.py`` trains: a frozen teacher and a student of the same shape, joined.

One description gives the prototxt, the PyTorch module (``torch_nets.py``) and the initial weights,
so that both sides compute the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CLASSES = 10
TEMPERATURE = 4.0
HARD_WEIGHT = 0.5
SOFT_WEIGHT = 0.5
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4
TEACHER, STUDENT = "teacher/", "student/"


@dataclass(frozen=True)
class Conv:
    """A convolution at stride 1."""

    name: str
    outputs: int
    kernel: int
    pad: int = 0


@dataclass(frozen=True)
class Pool:
    """A pooling whose output size is rounded up; ``kind`` is MAX or AVE."""

    name: str
    kind: str
    kernel: int
    stride: int


@dataclass(frozen=True)
class Relu:
    """A rectifier, in place."""

    name: str


@dataclass(frozen=True)
class Dense:
    """An inner product over all that an item holds."""

    name: str
    outputs: int


Layer = Conv | Pool | Relu | Dense


@dataclass(frozen=True)
class Net:
    """A net, the batch it is trained with and the shape of an item."""

    name: str
    batch: int
    item: tuple[int, int, int]
    layers: tuple[Layer, ...]

    @property
    def data_shape(self) -> tuple[int, int, int, int]:
        """Batch axis included."""
        return (self.batch, *self.item)


LENET = Net(
    "LeNet-to-LeNet",
    64,
    (1, 28, 28),
    (
        Conv("conv1", 20, 5),
        Pool("pool1", "MAX", 2, 2),
        Conv("conv2", 50, 5),
        Pool("pool2", "MAX", 2, 2),
        Dense("ip1", 500),
        Relu("relu1"),
        Dense("ip2", CLASSES),
    ),
)
QUICK = Net(
    "CIFAR-quick-to-quick",
    100,
    (3, 32, 32),
    (
        Conv("conv1", 32, 5, 2),
        Pool("pool1", "MAX", 3, 2),
        Relu("relu1"),
        Conv("conv2", 32, 5, 2),
        Relu("relu2"),
        Pool("pool2", "AVE", 3, 2),
        Conv("conv3", 64, 5, 2),
        Relu("relu3"),
        Pool("pool3", "AVE", 3, 2),
        Dense("ip1", 64),
        Dense("ip2", CLASSES),
    ),
)
NETS = {"lenet": LENET, "quick": QUICK}


def input_shapes(net: Net) -> dict[str, tuple[int, ...]]:
    """What each layer reads, without the batch axis."""
    shape: tuple[int, ...] = net.item
    found = {}
    for layer in net.layers:
        found[layer.name] = shape
        match layer:
            case Conv(_, outputs, kernel, pad):
                shape = (outputs, *(size + 2 * pad - kernel + 1 for size in shape[1:]))
            case Pool(_, _, kernel, stride):
                shape = (shape[0], *(-(-(size - kernel) // stride) + 1 for size in shape[1:]))
            case Dense(_, outputs):
                shape = (outputs,)
    return found


def weight_shapes(net: Net) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Weight and bias shape of each layer that has them, in Caffe's layout."""
    inputs = input_shapes(net)
    found = {}
    for layer in net.layers:
        x = inputs[layer.name]
        match layer:
            case Conv(name, outputs, kernel, _):
                found[name] = ((outputs, x[0], kernel, kernel), (outputs,))
            case Dense(name, outputs):
                found[name] = ((outputs, int(np.prod(x))), (outputs,))
    return found


def initial_weights(net: Net, seed: int = 0) -> dict[str, np.ndarray]:
    """``<teacher|student>/<layer>/<weight|bias>``, normal with variance 1/fan-in."""
    generator = np.random.default_rng(seed)
    values = {}
    for side in (TEACHER, STUDENT):
        for name, (weight, bias) in weight_shapes(net).items():
            scale = np.sqrt(1 / np.prod(weight[1:]))
            drawn = generator.standard_normal(weight) * scale
            values[f"{side}{name}/weight"] = drawn.astype(np.float32)
            values[f"{side}{name}/bias"] = np.zeros(bias, np.float32)
    return values


def batches(net: Net, count: int, seed: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random items and labels."""
    generator = np.random.default_rng(seed)
    return [
        (
            generator.standard_normal(net.data_shape).astype(np.float32),
            generator.integers(0, CLASSES, net.batch).astype(np.float32),
        )
        for _ in range(count)
    ]


def prototxt(net: Net) -> str:
    """The joined net in Caffe's language."""
    dims = " ".join(f"dim: {size}" for size in net.data_shape)
    sides = [text for side in (TEACHER, STUDENT) for text in _side(net, side)]
    last = net.layers[-1].name
    return "\n".join(
        [
            f'name: "{net.name}"',
            'layer { name: "input" type: "Input" top: "data" top: "label" input_param {'
            f" shape {{ {dims} }} shape {{ dim: {net.batch} }} }} }}",
            *sides,
            f'layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "{STUDENT}{last}"'
            f' bottom: "label" top: "loss" loss_weight: {HARD_WEIGHT} }}',
            f'layer {{ name: "ts_loss" type: "TeacherStudentCrossEntropy"'
            f' bottom: "{STUDENT}{last}" bottom: "{TEACHER}{last}" top: "ts_loss"'
            f" loss_weight: {SOFT_WEIGHT}"
            f" teacher_student_cross_entropy_param {{ temperature: {TEMPERATURE} }} }}",
        ]
    )


def _side(net: Net, side: str) -> Iterator[str]:
    frozen = " param { lr_mult: 0 decay_mult: 0 }" * 2 if side == TEACHER else ""
    bottom = "data"
    for layer in net.layers:
        top = bottom if isinstance(layer, Relu) else f"{side}{layer.name}"
        kind, params = _type_and_params(layer)
        weights = frozen if isinstance(layer, Conv | Dense) else ""
        yield (
            f'layer {{ name: "{side}{layer.name}" type: "{kind}" bottom: "{bottom}" top: "{top}"'
            f"{weights}{params} }}"
        )
        bottom = top


def _type_and_params(layer: Layer) -> tuple[str, str]:
    match layer:
        case Conv(_, outputs, kernel, pad):
            size = f"num_output: {outputs} kernel_size: {kernel} pad: {pad}"
            return "Convolution", f" convolution_param {{ {size} }}"
        case Pool(_, kind, kernel, stride):
            size = f"pool: {kind} kernel_size: {kernel} stride: {stride}"
            return "Pooling", f" pooling_param {{ {size} }}"
        case Dense(_, outputs):
            return "InnerProduct", f" inner_product_param {{ num_output: {outputs} }}"
    return "ReLU", ""


def solver_text() -> str:
    """Caffe's SGD with the constants of this file."""
    return (
        f'base_lr: {RATE} lr_policy: "fixed" momentum: {MOMENTUM} weight_decay: {DECAY} '
        'type: "SGD"'
    )
