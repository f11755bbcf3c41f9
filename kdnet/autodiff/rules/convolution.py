"""Conv and ConvTranspose: each is the other's input gradient, and they share a weight gradient.

Shapes in this file: x (N, C, X...), y and dy (N, O, Y...), w (O, C/G, K...) for G groups, with
X, Y and K the sizes of input, output and kernel.
"""

from __future__ import annotations

from math import prod
from typing import Any

from kdnet.autodiff import policy
from kdnet.autodiff.registry import Call, Gradients, vjp
from kdnet.autodiff.windows import Window, fit, met_by, moved
from kdnet.graph import Emitter, Tensor


@vjp("Conv")
def conv_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """y = w ⋆ x + b ⇒ dx = wᵀ ⋆ dy, dw[k] = Σ dy[p]·x[s·p + d·k − pad], db = Σ dy."""
    _refuse_auto_pad(call)
    x, w = call.x, call.input(1)
    window = Window.of(x, call.y, w.shape[2:], call.attrs)
    groups = int(call.attrs.get("group", 1))
    dx = conv_input_gradient(g, dy, w, window, groups) if call.wants[0] else None
    dw = conv_weight_gradient(g, x, dy, window, groups) if call.wants[1] else None
    return [dx, dw, *_bias_gradient(g, call, dy)]


@vjp("ConvTranspose")
def conv_transpose_vjp(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    """y = wᵀ ⋆ x + b ⇒ dx = w ⋆ dy, dw as that of the Conv from dy to x, db = Σ dy."""
    _refuse_auto_pad(call)
    x, w = call.x, call.input(1)
    window = Window.of(call.y, x, w.shape[2:], call.attrs)
    groups = int(call.attrs.get("group", 1))
    dx = dw = None
    if call.wants[0]:
        none = [0] * len(window.kernel)
        met = fit(g, dy, none, [min(end, 0) for end in window.end])
        pads = [*window.begin, *[max(end, 0) for end in window.end]]
        dx = g.op("Conv", met, w, pads=pads, **_attributes(window, groups))
    if call.wants[1]:
        dw = conv_weight_gradient(g, dy, x, window, groups)
    return [dx, dw, *_bias_gradient(g, call, dy)]


def _refuse_auto_pad(call: Call) -> None:
    if call.attrs.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in call.attrs:
        call.unsupported("with auto_pad or output_shape: write the pads out")


def _bias_gradient(g: Emitter, call: Call, dy: Tensor) -> Gradients:
    if len(call.op.inputs) < 3:
        return []
    axes = [axis for axis in range(dy.rank) if axis != 1]
    return [g.reduce_sum(dy, axes) if call.wants[2] else None]


def _attributes(window: Window, groups: int) -> dict[str, Any]:
    return {
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "group": groups,
    }


def conv_input_gradient(g: Emitter, dy: Tensor, w: Tensor, window: Window, groups: int) -> Tensor:
    """dx (N, C, X...) from dy (N, O, Y...) and w (O, C/G, K...)."""
    lowering = policy.conv_input_gradient(g.provider, window, w.shape[1], groups)
    emit = {"transposed": _by_conv_transpose, "flipped": _by_flipped_conv}[lowering]
    return emit(g, dy, w, window, groups)


def _by_conv_transpose(g: Emitter, dy: Tensor, w: Tensor, window: Window, groups: int) -> Tensor:
    """One ConvTranspose, with equal pads on both sides: CUDA has no kernel for others.

    The last inputs, which equal pads cut off, come back by output_padding where that may be.
    """
    attrs = _attributes(window, groups)
    extra = [begin - end for begin, end in zip(window.begin, window.end, strict=True)]
    if all(0 <= more < stride for more, stride in zip(extra, window.strides, strict=True)):
        pads = [*window.begin, *window.begin]
        return g.op("ConvTranspose", dy, w, pads=pads, output_padding=extra, **attrs)
    dx = g.op("ConvTranspose", dy, w, **attrs)
    return fit(g, dx, [-count for count in window.begin], [-count for count in window.end])


def _by_flipped_conv(g: Emitter, dy: Tensor, w: Tensor, window: Window, groups: int) -> Tensor:
    """A Conv of dy with w reversed in space and its channel axes exchanged.

    Without strides and groups.
    """
    axes = [axis + 2 for axis in window.axes]
    reverse, past = [-1] * len(axes), [-(size + 1) for size in window.kernel]
    flipped = w if set(window.kernel) == {1} else g.slice(w, axes, reverse, past, reverse)
    swapped = g.transpose(flipped, [1, 0, *axes])
    begin = [span - 1 - pad for span, pad in zip(window.span, window.begin, strict=True)]
    end = [span - 1 - pad for span, pad in zip(window.span, window.end, strict=True)]
    met = fit(g, dy, [min(pad, 0) for pad in begin], [min(pad, 0) for pad in end])
    pads = [max(pad, 0) for pad in [*begin, *end]]
    return g.op("Conv", met, swapped, pads=pads, **_attributes(window, groups))


def conv_weight_gradient(g: Emitter, x: Tensor, dy: Tensor, window: Window, groups: int) -> Tensor:
    """dw (O, C/G, K...) from x (N, C, X...) and dy (N, O, Y...).

    It is a product of dy with the inputs that each kernel position meets, summed over items and
    positions. The lowerings differ in how the two are brought together.
    """
    lowering = policy.conv_weight_gradient(g.provider, window, x.shape, dy.shape, groups)
    if lowering == "channels-last":
        return _dw_channels_last(g, x, dy, window, groups)
    name, _, fold = lowering.partition("-")
    wide = fit(g, x, window.begin, window.end)
    seen = _by_group(g, wide, window, groups, folded=bool(fold))
    given = _by_group(g, dy, window, groups, folded=bool(fold))
    emit = {"columns": _dw_by_columns, "shifts": _dw_by_shifts}[name]
    return emit(g, seen, given, window.padded(), groups)


def _dw_channels_last(g: Emitter, x: Tensor, dy: Tensor, window: Window, groups: int) -> Tensor:
    """One Conv of x by dy, items as channels, the channels of x as the end of its last axis.

    There a step of one place is a step of C/G, so the strides become dilations, times C/G on the
    last axis. The kernel's own copying then moves long runs, and its one product sums over all.
    """
    o, c = dy.shape[1], x.shape[1] // groups
    met = fit(g, x, [0] * len(window.kernel), [min(0, end) for end in window.end])
    space = met.shape[2:]
    image = _channels_at_end(g, met, groups, space)
    steps = [1] * (len(space) - 1) + [c]
    ends = [max(0, end) for end in window.end]
    pads = [pad * step for pad, step in zip([*window.begin, *ends], steps * 2, strict=True)]
    taps = g.op(
        "Conv",
        image,
        g.transpose(dy, [1, 0, *[axis + 2 for axis in window.axes]]),
        pads=pads,
        dilations=[stride * step for stride, step in zip(window.strides, steps, strict=True)],
        strides=list(window.dilations),
        group=groups,
    )
    return _weight(g, g.reshape(taps, (o, prod(window.kernel), c)), window)


def _channels_at_end(g: Emitter, x: Tensor, groups: int, space: tuple[int, ...]) -> Tensor:
    """(N, C, X...) as (1, G·N, X..., C/G) with the last two axes as one."""
    n, c = x.shape[0], x.shape[1] // groups
    # Three axes: ONNX Runtime transposes two at the end fast, and slowly in the midst of five.
    last = g.transpose(g.reshape(x, (n * groups, c, prod(space))), [0, 2, 1])
    if groups > 1:
        last = g.transpose(g.reshape(last, (n, groups, prod(space) * c)), [1, 0, 2])
    return g.reshape(last, (1, groups * n, *space[:-1], space[-1] * c))


def _by_group(g: Emitter, x: Tensor, window: Window, groups: int, *, folded: bool) -> Tensor:
    """(N, C, ...) as (N·G, C/G, ...), or folded as (G, C/G, N, ...)."""
    n, c = x.shape[:2]
    space = x.shape[2:]
    if not folded:
        return g.reshape(x, (n * groups, c // groups, *space))
    if groups == 1:
        swapped = g.transpose(x, [1, 0, *[axis + 2 for axis in window.axes]])
        return g.reshape(swapped, (1, c, n, *space))
    split = g.reshape(x, (n, groups, c // groups, *space))
    return g.transpose(split, [1, 2, 0, *[axis + 3 for axis in window.axes]])


def _columns(g: Emitter, x: Tensor, window: Window, axes: range) -> Tensor:
    """What every kernel position meets, side by side on axis 1: (..., K...·c, ...)."""
    for axis in reversed(axes):
        met = [met_by(g, x, window, axis, index) for index in range(window.kernel[axis])]
        x = g.concat(met, 1)
    return x


def _product(g: Emitter, a: Tensor, b: Tensor, groups: int) -> Tensor:
    """Σ over items and positions of a (.., p, ..) and b (.., q, ..), as (G, p, q)."""
    rows, columns = a.shape[1], b.shape[1]
    length = prod(a.shape[2:])
    batch = a.shape[0]
    if batch == 1:
        flat = g.gemm(g.reshape(a, (rows, length)), g.reshape(b, (columns, length)), trans_b=True)
        return g.reshape(flat, (1, rows, columns))
    b_t = g.transpose(g.reshape(b, (batch, columns, length)), [0, 2, 1])
    each = g.matmul(g.reshape(a, (batch, rows, length)), b_t)
    if batch == groups:
        return each
    return g.reduce_sum(g.reshape(each, (batch // groups, groups, rows, columns)), [0])


def _dw_by_columns(g: Emitter, x: Tensor, dy: Tensor, window: Window, groups: int) -> Tensor:
    found = _product(g, dy, _columns(g, x, window, window.axes), groups)
    rows = groups * dy.shape[1]
    return _weight(g, g.reshape(found, (rows, prod(window.kernel), x.shape[1])), window)


def _dw_by_shifts(g: Emitter, x: Tensor, dy: Tensor, window: Window, groups: int) -> Tensor:
    """Both sides cover all rows that windows reach; the first axis has stride 1."""
    columns = _columns(g, x, window, window.axes[1:])
    place = dy.rank - len(window.kernel)
    rows, step = window.kernel[0], window.dilations[0]
    shifted = [moved(g, dy, place, row * step, window.reach[0]) for row in range(rows)]
    found = _product(g, g.concat(shifted, 1), columns, groups)
    o, rest = dy.shape[1], prod(window.kernel[1:]) * x.shape[1]
    by_output = g.transpose(g.reshape(found, (groups, rows, o, rest)), [0, 2, 1, 3])
    taps = (groups * o, prod(window.kernel), x.shape[1])
    return _weight(g, g.reshape(by_output, taps), window)


def _weight(g: Emitter, taps: Tensor, window: Window) -> Tensor:
    """(O, K, c), with K kernel positions in row-major order, as (O, c, K...)."""
    o, positions, c = taps.shape
    swapped = g.transpose(taps, [0, 2, 1]) if positions > 1 else taps
    return g.reshape(swapped, (o, c, *window.kernel))
