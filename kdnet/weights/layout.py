"""How the arrays of other frameworks become Caffe's blobs: one named rule a kind of layer.

A rule knows its layer by the last parts of its arrays' names (``running_mean``, ``kernel``) and
by their shapes. It turns them into the blobs of one Caffe layer or two, in Caffe's order and
layout. An array that no rule knows becomes a layer of its own, unchanged, under its full name.

Formulas: permutations of axes are written as letters; H, W rows and columns of a kernel, I, O
channels that come in and go out, G the number of a recurrent layer's units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kdnet.weights.lazy_numpy import np
from kdnet.weights.model import Array

Shape = tuple[int, ...]
Arrays = Mapping[str, Array]
Shapes = Mapping[str, Shape]

# Caffe's order of gates is input, forget, output, cell value.
GATES_IFGO = (0, 1, 3, 2)
GATES_IOFG = (0, 2, 1, 3)


class Made(NamedTuple):
    """A layer that a rule made: what is appended to the name, its type, and its blobs.

    ``sources`` names the array that each blob came from, "" where it is not in the file.
    """

    suffix: str
    type: str
    blobs: tuple[Array, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """One kind of layer.

    ``needs`` are the arrays by which it is known, ``may`` those that it takes too where they are
    there; ``fits`` looks at the shapes of both. A layer that has one of ``never`` is another.
    """

    name: str
    needs: tuple[str, ...]
    may: tuple[str, ...]
    fits: Callable[[Shapes], bool]
    make: Callable[[Arrays], tuple[Made, ...]]
    never: tuple[str, ...] = ()

    def takes(self, shapes: Shapes) -> tuple[str, ...]:
        """The arrays of a layer that this rule takes; none if it is not of this kind."""
        if not all(leaf in shapes for leaf in self.needs):
            return ()
        if any(leaf in shapes for leaf in self.never):
            return ()
        taken = (*self.needs, *(leaf for leaf in self.may if leaf in shapes))
        return taken if self.fits({leaf: shapes[leaf] for leaf in taken}) else ()


def plan(shapes: Shapes) -> Iterator[tuple[Rule | None, tuple[str, ...]]]:
    """Share out a layer's arrays among rules; None has those that no rule takes, one by one."""
    left = dict(shapes)
    for rule in RULES:
        taken = rule.takes(left)
        if taken:
            yield rule, taken
        for leaf in taken:
            del left[leaf]
    for leaf in left:
        yield None, (leaf,)


def _made(suffix: str, kind: str, arrays: Arrays, *leaves: str) -> Made:
    there = tuple(leaf for leaf in leaves if leaf in arrays)
    return Made(suffix, kind, tuple(arrays[leaf] for leaf in there), there)


def _bias_fits(shapes: Shapes, outputs: int) -> bool:
    return shapes.get("bias", (outputs,)) == (outputs,)


# --- batch normalisation


def _vectors(shapes: Shapes) -> bool:
    sizes = {shape for leaf, shape in shapes.items() if leaf not in _COUNTERS}
    return len(sizes) == 1 and len(next(iter(sizes))) == 1


_COUNTERS = ("num_batches_tracked", "scale_factor")


def batch_norm(mean: str, variance: str, gamma: str, beta: str) -> Callable[[Arrays], _Layers]:
    """Running mean and variance, with a scale factor of 1; gamma and beta become a Scale.

    Args:
        mean: The name of the array that has the running mean; the rest likewise.
        variance: Its variance.
        gamma: The factors; ones where there are only summands.
        beta: The summands.
    """

    def make(arrays: Arrays) -> _Layers:
        statistics = (arrays[mean], arrays[variance], np.ones(1, arrays[mean].dtype))
        norm = Made("", "BatchNorm", statistics, (mean, variance, ""))
        if gamma in arrays:
            return norm, _made("/scale", "Scale", arrays, gamma, beta)
        if beta in arrays:
            ones = np.ones_like(arrays[beta])
            return norm, Made("/scale", "Scale", (ones, arrays[beta]), ("", beta))
        return (norm,)

    return make


_Layers = tuple[Made, ...]


# --- recurrent layers


def blocks(rows: Array, order: tuple[int, ...]) -> Array:
    """The four blocks of rows in another order."""
    blocks = rows.reshape(4, rows.shape[0] // 4, *rows.shape[1:])
    return np.ascontiguousarray(blocks[list(order)]).reshape(rows.shape)


def lstm(rows: Array, recurrent: Array, bias: Array, order: tuple[int, ...]) -> tuple[Array, ...]:
    """W_xc (4G, D), b_c (4G) and W_hc (4G, G) from weights whose gates are in ``order``."""
    return blocks(rows, order), blocks(bias, order), blocks(recurrent, order)


def _torch_lstm_fits(shapes: Shapes) -> bool:
    rows, recurrent = shapes["weight_ih"], shapes["weight_hh"]
    biases = [shapes[leaf] for leaf in ("bias_ih", "bias_hh") if leaf in shapes]
    return (
        len(rows) == len(recurrent) == 2
        and rows[0] == recurrent[0] == 4 * recurrent[1]
        and biases in ([], [rows[:1]] * 2)
    )


def _torch_lstm(arrays: Arrays) -> _Layers:
    rows, recurrent = arrays["weight_ih"], arrays["weight_hh"]
    bias = np.zeros(rows.shape[0], rows.dtype)
    if "bias_ih" in arrays:
        bias = arrays["bias_ih"] + arrays["bias_hh"]
    blobs = lstm(rows, recurrent, bias, GATES_IFGO)
    source = "bias_ih" if "bias_ih" in arrays else ""
    return (Made("", "LSTM", blobs, ("weight_ih", source, "weight_hh")),)


def _keras_lstm_fits(shapes: Shapes) -> bool:
    columns, recurrent = shapes["kernel"], shapes["recurrent_kernel"]
    return (
        len(columns) == len(recurrent) == 2
        and columns[1] == recurrent[1] == 4 * recurrent[0]
        and _bias_fits(shapes, columns[1])
    )


def _keras_lstm(arrays: Arrays) -> _Layers:
    rows, recurrent = arrays["kernel"].T, arrays["recurrent_kernel"].T
    source = "bias" if "bias" in arrays else ""
    bias = arrays.get("bias", np.zeros(rows.shape[0], rows.dtype))
    blobs = lstm(rows, recurrent, bias, GATES_IFGO)
    return (Made("", "LSTM", blobs, ("kernel", source, "recurrent_kernel")),)


# --- Keras's channels-last layers


def kernel_to_caffe(kernel: Array) -> Array:
    """HWIO -> OIHW, and HWOI of a transposed convolution -> IOHW; 1 and 3 dimensions alike."""
    rank = kernel.ndim
    return np.ascontiguousarray(kernel.transpose(rank - 1, rank - 2, *range(rank - 2)))


def depthwise_to_caffe(kernel: Array) -> Array:
    """HWIM -> (IM)1HW: a group a channel, M outputs each."""
    height, width, channels, multiplier = kernel.shape
    moved = np.ascontiguousarray(kernel.transpose(2, 3, 0, 1))
    return moved.reshape(channels * multiplier, 1, height, width)


def flatten_to_channels_first(weight: Array, channels: int) -> Array:
    """Columns of a layer after a Flatten, (HW)C -> C(HW).

    Args:
        weight: (O, HWC), as :func:`convert` makes it.
        channels: C, of the maps that were flattened; it divides HWC.
    """
    outputs, inputs = weight.shape
    moved = weight.reshape(outputs, inputs // channels, channels).transpose(0, 2, 1)
    return np.ascontiguousarray(moved).reshape(outputs, inputs)


def _keras_layer(kind: str, move: Callable[[Array], Array]) -> Callable[[Arrays], _Layers]:
    def make(arrays: Arrays) -> _Layers:
        moved = {**arrays, "kernel": move(arrays["kernel"])}
        return (_made("", kind, moved, "kernel", "bias"),)

    return make


def _depthwise(arrays: Arrays) -> _Layers:
    moved = {**arrays, "depthwise_kernel": depthwise_to_caffe(arrays["depthwise_kernel"])}
    return (_made("", "Convolution", moved, "depthwise_kernel", "bias"),)


def _separable(arrays: Arrays) -> _Layers:
    first = {"depthwise_kernel": depthwise_to_caffe(arrays["depthwise_kernel"])}
    second = {**arrays, "pointwise_kernel": kernel_to_caffe(arrays["pointwise_kernel"])}
    return (
        _made("/depthwise", "Convolution", first, "depthwise_kernel"),
        _made("/pointwise", "Convolution", second, "pointwise_kernel", "bias"),
    )


def _slopes(arrays: Arrays) -> _Layers:
    """(1, 1, C) -> C, the axes that share their slopes being dropped."""
    return (Made("", "PReLU", (arrays["alpha"].reshape(-1),), ("alpha",)),)


def only(kind: str, *leaves: str) -> Callable[[Arrays], _Layers]:
    """One layer of these arrays, those that are there, in this order."""
    return lambda arrays: (_made("", kind, arrays, *leaves),)


RULES = (
    Rule(
        "caffe/batch-norm",
        ("mean", "variance", "scale_factor"),
        (),
        lambda s: _vectors(s) and s["scale_factor"] == (1,),
        only("BatchNorm", "mean", "variance", "scale_factor"),
    ),
    Rule(
        "torch/batch-norm",
        ("running_mean", "running_var"),
        ("weight", "bias", "num_batches_tracked"),
        _vectors,
        batch_norm("running_mean", "running_var", "weight", "bias"),
    ),
    Rule(
        "torch/lstm",
        ("weight_ih", "weight_hh"),
        ("bias_ih", "bias_hh"),
        _torch_lstm_fits,
        _torch_lstm,
    ),
    Rule(
        "torch/layer",
        ("weight",),
        ("bias",),
        lambda _: True,
        only("", "weight", "bias"),
    ),
    Rule(
        "keras/batch-norm",
        ("moving_mean", "moving_variance"),
        ("gamma", "beta"),
        _vectors,
        batch_norm("moving_mean", "moving_variance", "gamma", "beta"),
    ),
    Rule("keras/layer-norm", ("gamma",), ("beta",), _vectors, only("Scale", "gamma", "beta")),
    Rule("keras/lstm", ("kernel", "recurrent_kernel"), ("bias",), _keras_lstm_fits, _keras_lstm),
    Rule(
        "keras/separable",
        ("depthwise_kernel", "pointwise_kernel"),
        ("bias",),
        lambda s: len(s["depthwise_kernel"]) == len(s["pointwise_kernel"]) == 4,
        _separable,
    ),
    Rule(
        "keras/depthwise",
        ("depthwise_kernel",),
        ("bias",),
        lambda s: len(s["depthwise_kernel"]) == 4,
        _depthwise,
    ),
    Rule(
        "keras/convolution",
        ("kernel",),
        ("bias",),
        lambda s: len(s["kernel"]) in (3, 4, 5) and _one_axis(s, "bias"),
        _keras_layer("", kernel_to_caffe),
    ),
    Rule(
        "keras/dense",
        ("kernel",),
        ("bias",),
        lambda s: len(s["kernel"]) == 2 and _bias_fits(s, s["kernel"][1]),
        _keras_layer("InnerProduct", lambda kernel: np.ascontiguousarray(kernel.T)),
        never=("recurrent_kernel",),
    ),
    Rule("keras/embedding", ("embeddings",), (), lambda _: True, only("Embed", "embeddings")),
    Rule(
        "keras/prelu",
        ("alpha",),
        (),
        lambda s: all(size == 1 for size in s["alpha"][:-1]),
        _slopes,
    ),
)


def _one_axis(shapes: Shapes, leaf: str) -> bool:
    return len(shapes.get(leaf, (0,))) == 1
