"""The geometry of sliding windows, shared by the rules of convolutions and poolings.

Kernel position i of the window at output position o lies at input position
``o·stride + i·dilation − begin``, on each spatial axis by itself. Tensors have any two leading
axes before the spatial ones; an axis number here counts spatial axes only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdnet.graph import Emitter, Tensor


@dataclass(frozen=True)
class Window:
    """Kernel, strides, dilations and padding before, with the sizes of input and output."""

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor, y: Tensor, kernel: Sequence[int], attrs: Mapping[str, Any]) -> Window:
        """From an op's input, output and attributes; what pads the end follows from the sizes."""
        axes = len(kernel)
        return cls(
            x.shape[2:],
            y.shape[2:],
            tuple(kernel),
            tuple(attrs.get("strides", [1] * axes)),
            tuple(attrs.get("dilations", [1] * axes)),
            tuple(attrs.get("pads", [0] * 2 * axes)[:axes]),
        )

    @property
    def axes(self) -> range:
        """The spatial axes."""
        return range(len(self.kernel))

    @property
    def span(self) -> tuple[int, ...]:
        """Input positions from the first to the last kernel position, both counted."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def reach(self) -> tuple[int, ...]:
        """Padded input positions from the first to the last that a window meets."""
        each = zip(self.out, self.strides, self.span, strict=True)
        return tuple((out - 1) * stride + span for out, stride, span in each)

    @property
    def end(self) -> tuple[int, ...]:
        """Padding after the input; negative where the last inputs meet no window."""
        each = zip(self.reach, self.begin, self.size, strict=True)
        return tuple(reach - begin - size for reach, begin, size in each)

    @property
    def tiles(self) -> bool:
        """Whether the windows cover the input exactly once."""
        apart = self.strides == self.kernel == self.span
        return apart and not any(self.begin) and not any(self.end)

    def padded(self) -> Window:
        """The same windows over an input that already has its padding, of size ``reach``."""
        return replace(self, size=self.reach, begin=(0,) * len(self.kernel))


def fit(g: Emitter, x: Tensor, begin: Sequence[int], end: Sequence[int]) -> Tensor:
    """Pad the spatial axes with zeros, or cut them where a number is negative."""
    first = x.rank - len(begin)
    cut = [axis for axis in range(len(begin)) if begin[axis] < 0 or end[axis] < 0]
    if cut:
        starts = [max(0, -begin[axis]) for axis in cut]
        ends = [x.shape[axis + first] - max(0, -end[axis]) for axis in cut]
        x = g.slice(x, [axis + first for axis in cut], starts, ends)
    before, after = [max(0, count) for count in begin], [max(0, count) for count in end]
    return g.pad(x, [0] * first + before, [0] * first + after)


def met_by(
    g: Emitter, x: Tensor, window: Window, axis: int, index: int, value: float = 0.0
) -> Tensor:
    """What kernel position ``index`` of an axis meets at each output position of that axis.

    ``value`` stands where that is padding.
    """
    offset = index * window.dilations[axis] - window.begin[axis]
    place = x.rank - len(window.kernel) + axis
    return _every(g, x, place, (offset, window.strides[axis], window.out[axis]), value)


def met_by_each(
    g: Emitter, x: Tensor, window: Window, axis: int, count: int, value: float
) -> list[Tensor]:
    """``met_by`` for the first ``count`` kernel positions.

    Where the stride divides the input, one Split makes the pieces that most of them are: on the
    CPU that is faster than their Slices, which read an element here and there.
    """
    stride, size = window.strides[axis], window.size[axis]
    if stride == 1 or size % stride or count < 2:
        return [met_by(g, x, window, axis, index, value) for index in range(count)]
    place = x.rank - len(window.kernel) + axis
    outer, inner = x.shape[:place], x.shape[place + 1 :]
    columns = g.reshape(x, (*outer, size // stride, stride, *inner))
    split = g.multi("Split", columns, count=stride, axis=place + 1, num_outputs=stride)
    phases = [g.reshape(phase, (*outer, size // stride, *inner)) for phase in split]
    found = []
    for index in range(count):
        shift, phase = divmod(index * window.dilations[axis] - window.begin[axis], stride)
        found.append(_every(g, phases[phase], place, (shift, 1, window.out[axis]), value))
    return found


def _every(g: Emitter, x: Tensor, place: int, which: tuple[int, int, int], value: float) -> Tensor:
    """Of one axis the elements offset, offset + stride, ..., ``value`` where there is none.

    ``which`` is offset, stride and how many.
    """
    offset, stride, count = which
    size = x.shape[place]
    first = min(count, max(0, -(offset // stride)))
    last = max(first - 1, min(count - 1, (size - 1 - offset) // stride))
    start, stop = first * stride + offset, last * stride + offset + 1
    if (start, stop, stride) != (0, size, 1):
        x = g.slice(x, [place], [max(0, start)], [max(0, stop)], [stride])
    before, after = [0] * x.rank, [0] * x.rank
    before[place], after[place] = first, count - 1 - last
    return g.pad(x, before, after, value)


def spread(g: Emitter, parts: Sequence[Tensor], window: Window, axis: int) -> Tensor:
    """The transpose of ``met_by`` over one axis: part i goes back where index i met it.

    Positions are sorted by their remainder modulo the stride, so that adding takes shifts only;
    the remainders are interleaved at the end.
    """
    stride, size = window.strides[axis], window.size[axis]
    length = -(-size // stride)
    phases: list[Tensor | None] = [None] * stride
    place = parts[0].rank - len(window.kernel) + axis
    for index, part in enumerate(parts):
        shift, phase = divmod(index * window.dilations[axis] - window.begin[axis], stride)
        placed = moved(g, part, place, shift, length)
        known = phases[phase]
        phases[phase] = placed if known is None else g.add(known, placed)
    whole = _interleaved(g, phases, place)
    return whole if whole.shape[place] == size else g.slice(whole, [place], [0], [size])


def moved(g: Emitter, x: Tensor, axis: int, shift: int, length: int) -> Tensor:
    """An axis of ``length`` that holds x from position ``shift`` on, zeros elsewhere."""
    rest = x.rank - axis - 1
    end = length - shift - x.shape[axis]
    return fit(g, x, [shift, *[0] * rest], [end, *[0] * rest])


def _interleaved(g: Emitter, phases: Sequence[Tensor | None], axis: int) -> Tensor:
    """Element i of every phase in turn, then element i + 1; an absent phase is zero."""
    some = next(phase for phase in phases if phase is not None)
    if len(phases) == 1:
        return some
    shape = some.shape
    column = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    columns = [
        g.expand(g.like(0.0, some), column) if phase is None else g.reshape(phase, column)
        for phase in phases
    ]
    joined = g.concat(columns, axis + 1)
    return g.reshape(joined, (*shape[:axis], shape[axis] * len(phases), *shape[axis + 1 :]))
