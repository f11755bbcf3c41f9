"""A summary as cells of a table, as lines below it, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import prod
from typing import Any

from kdnet.compile.receptive import View
from kdnet.compile.summary import LayerRow, Shape, Summary, WeightRow
from kdnet.net import LayerModel
from kdnet.schema import enum_name
from kdnet.schema import kdnet_pb2 as pb

UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_WINDOWS = (
    "Convolution",
    "ConvolutionDepthwise",
    "Deconvolution",
    "DepthwiseConvolution",
    "Im2col",
)
OUTLINE = ("layer", "type", "param", "bottoms", "", "tops", "settings")
HEADINGS = (*OUTLINE, "shape", "parameters", "MACs", "FLOPs", "memory", "field")


def cells(summary: Summary) -> list[tuple[str, ...]]:
    """A line for each layer under :data:`HEADINGS`, or under :data:`OUTLINE` without shapes."""
    divide = summary.batch or 1
    found = []
    for row in summary.rows:
        layer = row.layer
        line: tuple[str, ...] = (
            layer.name,
            _type(layer),
            _params(row.weights),
            ", ".join(layer.bottoms),
            "->",
            ", ".join(_tops(layer)),
            settings(layer),
        )
        if row.shapes is not None:
            line += (
                ", ".join(map(shape_text, row.shapes)),
                _parameters(row),
                number(row.macs // divide) if row.macs else "",
                number(row.flops // divide) if row.flops else "",
                size(row.activation_bytes) if row.activation_bytes else "",
                view_text(row.view),
            )
        found.append(line)
    return found


def notes(summary: Summary) -> Iterator[str]:
    """What is below the table: totals, memory, and what the columns are."""
    if summary.memory is None:
        return
    divide, memory = summary.batch or 1, summary.memory
    of_what = f"an item of a batch of {summary.batch}" if summary.batch else "a run"
    for total in summary.totals:
        yield (
            f"{total.name}: {total.layers} layers, {total.parameters:,} parameters, "
            f"{number(total.macs // divide)} MACs, {number(total.flops // divide)} FLOPs, "
            f"{size(total.activation_bytes)} activations"
        )
    weights = [blob for row in summary.rows for blob in row.weights if not blob.owner]
    by_role = {
        role: sum(prod(blob.shape) for blob in weights if blob.role == role)
        for role in ("trained", "frozen", "state")
    }
    held = ", ".join(f"{count:,} {role}" for role, count in by_role.items() if count)
    yield f"parameters: {held or 0} ({size(memory.weights)})"
    yield f"forward pass: at most {size(memory.peak)} of blobs at once"
    if memory.kept is not None and memory.step_peak is not None and memory.gradients is not None:
        yield (
            f"training step: at most {size(memory.step_peak)} of blobs at once; the backward pass "
            f"needs {size(memory.kept)} of the forward pass; gradients {size(memory.gradients)}, "
            "and as much for each history of the solver"
        )
    yield f"MACs and FLOPs of {of_what}; memory of the whole batch; field: size /stride start"


def as_json(summary: Summary) -> dict[str, object]:
    """Everything, as numbers of a whole batch and in bytes."""
    memory = summary.memory
    return {
        "net": summary.net.name,
        "phase": summary.net.phase_name,
        "batch": summary.batch,
        "outputs": list(summary.net.outputs),
        "layers": [_layer_json(row) for row in summary.rows],
        "totals": [vars(total) for total in summary.totals],
        "memory_bytes": vars(memory) if memory else None,
    }


def settings(layer: LayerModel) -> str:
    """What shapes a layer's tops: kernel/stride+pad, then outputs/groups; "" for most types."""
    message = layer.message
    if layer.type in _WINDOWS:
        params = message.convolution_param
        text = _window(params)
        dilation = axis_numbers(params, "dilation")
        text += f" d{dilation}" if dilation not in ("", "1") else ""
        text += f" {params.num_output}" if params.num_output else ""
        return text + (f"/{params.group}" if params.group != 1 else "")
    if layer.type == "Pooling":
        pool = message.pooling_param
        method = enum_name(pb.PoolingParameter.PoolMethod, pool.pool)
        return f"{method} " + ("global" if pool.global_pooling else _window(pool))
    if layer.type == "InnerProduct":
        return str(message.inner_product_param.num_output)
    return str(message.embed_param.num_output) if layer.type == "Embed" else ""


def _window(params: Any) -> str:
    stride, pad = axis_numbers(params, "stride"), axis_numbers(params, "pad")
    text = axis_numbers(params, "kernel_size")
    text += f"/{stride}" if stride not in ("", "1") else ""
    return text + (f"+{pad}" if pad not in ("", "0") else "")


_EACH = {"kernel_size": "kernel_shape", "stride": "strides", "pad": "pads"}


def axis_numbers(params: Any, name: str) -> str:
    """A window's parameter, in any of the ways to state it: 3, or 3x5 where the axes differ."""
    return _sides(_numbers(params, name))


def _numbers(params: Any, name: str) -> list[int]:
    """A number for each axis, or one for all, in any of the ways to state it."""
    short = name.removesuffix("_size")
    pair = [getattr(params, f"{short}_{side}", 0) for side in "hw"]
    if any(pair):
        return pair
    value = getattr(params, name)
    if isinstance(value, int):
        return list(getattr(params, _EACH[name])) or [value]
    return list(value)


def _sides(numbers: Sequence[int | Fraction]) -> str:
    return "x".join(map(str, numbers[:1] if len(set(numbers)) == 1 else numbers))


def _type(layer: LayerModel) -> str:
    if layer.type == "Python":
        params = layer.message.python_param
        return f"{params.module}.{params.layer}"
    return layer.type


def _tops(layer: LayerModel) -> list[str]:
    weights = layer.message.loss_weight
    given = len(weights) == len(layer.tops)
    return [
        f"{weights[index]:g} * {top}" if given else top for index, top in enumerate(layer.tops)
    ]


def _params(weights: Sequence[WeightRow]) -> str:
    """As in (x1, x2 Dx0): what multiplies the rate and the decay of each blob, where not 1."""
    said = []
    for blob in weights:
        words = [blob.owner] if blob.owner else []
        if blob.role == "state":
            words.append("state")
        else:
            words += [f"x{blob.lr_mult:g}"] if blob.lr_mult != 1 else []
            words += [f"Dx{blob.decay_mult:g}"] if blob.decay_mult != 1 else []
        said.append(" ".join(words))
    return f"({', '.join(said)})" if any(said) else ""


def _parameters(row: LayerRow) -> str:
    shared = sum(prod(blob.shape) for blob in row.weights if blob.owner)
    own = f"{row.parameters:,}" if row.parameters else ""
    return f"{own} (+{shared:,} shared)".lstrip() if shared else own


def number(value: int) -> str:
    """Three figures and a letter: 1.23 G."""
    for unit, letter in UNITS:
        if value >= unit:
            return f"{value / unit:.3g} {letter}"
    return str(value)


def size(bytes_held: int) -> str:
    """Bytes in KiB and more."""
    for unit, name in _BYTES:
        if bytes_held >= unit:
            return f"{bytes_held / unit:.3g} {name}"
    return f"{bytes_held} B"


def shape_text(shape: Shape) -> str:
    """As in 64x3x28x28."""
    return "x".join(map(str, shape)) or "scalar"


def view_text(view: View | None) -> str:
    """As in 7 /2 -3: size, stride and start; a number for each axis where they differ."""
    if view is None:
        return ""
    if view.axes is None:
        return "all"
    extent = _sides([axis.size for axis in view.axes])
    stride = _sides([axis.stride for axis in view.axes])
    return f"{extent} /{stride} {_sides([axis.start for axis in view.axes])}"


def _layer_json(row: LayerRow) -> dict[str, object]:
    layer = row.layer
    told: dict[str, object] = {
        "name": layer.name,
        "type": _type(layer),
        "settings": settings(layer),
        "bottoms": list(layer.bottoms),
        "tops": list(layer.tops),
        "loss_weights": list(layer.message.loss_weight),
        "weights": [vars(blob) for blob in row.weights],
    }
    if row.shapes is None:
        return told
    return told | {
        "part": row.part,
        "shapes": [list(shape) for shape in row.shapes],
        "parameters": row.parameters,
        "macs": row.macs,
        "flops": row.flops,
        "activation_bytes": row.activation_bytes,
        "receptive_field": _view_json(row.view),
    }


def _view_json(view: View | None) -> object:
    """None where no data is seen, "all", or numbers for each axis."""
    if view is None or view.axes is None:
        return view and "all"
    return [{name: _plain(value) for name, value in vars(axis).items()} for axis in view.axes]


def _plain(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(value)
