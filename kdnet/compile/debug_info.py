"""The program behind ``debug_info``: how large every blob, weight and gradient is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from kdnet.autodiff import gradients
from kdnet.compile.assemble import assemble, watch
from kdnet.compile.forward import Forward, trace_forward
from kdnet.compile.program import Program
from kdnet.compile.split_layers import Wired, wire
from kdnet.graph import Emitter, Tensor
from kdnet.net import NetModel, needed
from kdnet.solvers import Schedule

TOP, PARAM, BOTTOM, DIFF = "top", "param", "bottom", "diff"


@dataclass(frozen=True)
class DebugProgram:
    """A program and what its numbers are.

    Attributes:
        program: its outputs are the vectors ``watched/forward`` and, unless the net is only
            tested, ``watched/backward`` and ``watched/totals``: the sums of absolute values of
            all weights and all gradients, then their L2 norms.
        forward: for each number of the vector its kind, ``TOP`` or ``PARAM``, and its line.
        backward: likewise, ``BOTTOM`` or ``DIFF``.
    """

    program: Program
    forward: tuple[tuple[str, str], ...]
    backward: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DebugSettings:
    """How the net runs whose blobs are looked at.

    Attributes:
        live: names of the weights that training changes.
        input_shapes: shapes of data tops that win over what the net says.
        provider: "cpu" or "cuda".
        schedules: those of the training run.
        accumulated: inputs that carry gradients summed over earlier micro-steps.
        backward: whether gradients are wanted.
    """

    live: frozenset[str] = frozenset()
    input_shapes: Mapping[str, tuple[int, ...]] | None = None
    provider: str = "cpu"
    schedules: Sequence[Schedule] = ()
    accumulated: Collection[str] = ()
    backward: bool = True


def compile_debug(net: NetModel, settings: DebugSettings) -> DebugProgram:
    """Compile what Caffe tells of a net with ``debug_info``, line by line.

    Source: BVLC/caffe net, ForwardDebugInfo, BackwardDebugInfo and Backward.
    """
    if not settings.backward:
        net = _that_runs(net)
    emitter = Emitter(provider=settings.provider)
    forward = trace_forward(net, emitter, settings.input_shapes, settings.schedules, apart=True)
    wired = wire(net, {index: _trains(forward, index) for index in forward.uses})
    sizes = _Sizes(forward)
    ahead = list(_forward_lines(sizes, wired))
    vectors = {"forward": sizes.vector([size for _, _, size in ahead])}
    back: list[tuple[str, str, Tensor]] = []
    if settings.backward:
        diffs = _Diffs(sizes, wired, settings.accumulated)
        back = list(diffs.lines())
        vectors["backward"] = sizes.vector([size for _, _, size in back])
        vectors["totals"] = sizes.vector(_totals(sizes, diffs))
    frozen = frozenset(t for t in forward.weights if t.name not in settings.live)
    program = assemble("debug", forward, watch(forward, vectors, {}), (), frozen)
    return DebugProgram(program, _texts(ahead), _texts(back))


def _texts(lines: Sequence[tuple[str, str, Tensor]]) -> tuple[tuple[str, str], ...]:
    return tuple((kind, text) for kind, text, _ in lines)


def _that_runs(net: NetModel) -> NetModel:
    """The net without what no output needs, as it is when it is tested."""
    kept = needed(net, net.outputs)
    return replace(net, layers=tuple(net.layers[index] for index in kept))


def _trains(forward: Forward, index: int) -> bool:
    return any(_wants(forward, index, number) for number in range(len(forward.uses[index])))


def _wants(forward: Forward, index: int, number: int) -> bool:
    """Whether Caffe computes the gradient of a layer's weight."""
    owner = _owner(forward, index, number)
    model = forward.net.layers[index]
    return not forward.weights[owner].weight.state and model.param(number).lr_mult != 0


def _owner(forward: Forward, index: int, number: int) -> Tensor:
    """The weight that a layer's blob is, whoever else has it too."""
    user = (forward.net.layers[index].name, number)
    return next(tensor for tensor, blob in forward.weights.items() if user in blob.users)


class _Sizes:
    """Emits means of absolute values, each tensor's once."""

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.g = forward.g
        self._known: dict[Tensor | None, Tensor] = {}

    def sum(self, x: Tensor) -> Tensor:
        """Σ |x|."""
        return self.g.sum_all(self.g.abs(x if x.is_float else self.g.cast(x)))

    def mean(self, x: Tensor | None) -> Tensor:
        """Σ |x| / count; 0 for nothing."""
        if x not in self._known:
            with self.g.scope("debug/mean"):
                size = self.g.constant(0.0) if x is None else self.sum(x)
                self._known[x] = self.g.mul(size, 1 / max(1, x.size if x else 1))
        return self._known[x]

    def current(self, owner: Tensor) -> Tensor:
        """A weight as it is after the forward pass, which moves statistics."""
        return self.forward.trace.updates.get(owner, owner)

    def vector(self, sizes: Sequence[Tensor]) -> Tensor:
        """The sizes one after the other."""
        with self.g.scope("debug/vector"):
            rows = [self.g.reshape(size, (1,)) for size in sizes]
            return self.g.concat([*rows, self.g.constant([0.0])], 0)


def _forward_lines(sizes: _Sizes, wired: Sequence[Wired]) -> list[tuple[str, str, Tensor]]:
    forward, found = sizes.forward, []
    for item in wired:
        for number, top in enumerate(item.tops):
            size = sizes.mean(_top(forward, item, number))
            found.append((TOP, f"Layer {item.name}, top blob {top} data", size))
        if item.split is not None:
            continue
        model = forward.net.layers[item.index]
        for number in range(len(forward.uses.get(item.index, ()))):
            shown = model.param(number).name or str(number)
            size = sizes.mean(sizes.current(_owner(forward, item.index, number)))
            found.append((PARAM, f"Layer {item.name}, param blob {shown} data", size))
    return found


def _top(forward: Forward, item: Wired, number: int) -> Tensor:
    tops = forward.tops[item.index]
    if not tops:
        return forward.blobs[f"{item.name} (automatic)"]
    return tops[number if item.split is None else item.split]


class _Diffs:
    """Gradients as Caffe's backward pass leaves them, layer by layer from the last."""

    def __init__(
        self, sizes: _Sizes, wired: Sequence[Wired], accumulated: Collection[str]
    ) -> None:
        self._sizes, self._wired = sizes, wired
        self._forward = sizes.forward
        self._slopes = self._all_slopes()
        g = sizes.g
        self.weights: dict[Tensor, Tensor] = {
            owner: g.input(f"accumulated/{owner.name}", owner.shape)
            for owner in self._forward.weights
            if f"accumulated/{owner.name}" in accumulated
        }

    def _all_slopes(self) -> Mapping[Tensor, Tensor]:
        forward, g = self._forward, self._sizes.g
        wanted = [t for read in forward.bottoms.values() for t in read if t.is_float]
        wanted += [t for made in forward.tops.values() for t in made if t.is_float]
        wanted += [t for used in forward.uses.values() for t in used]
        seeds = []
        with g.scope("grad/loss", forward.source):
            for loss in forward.losses:
                seeds.append((loss.top, g.expand(g.like(loss.factor, loss.top), loss.top.shape)))
        with g.scope("grad", forward.source):
            return gradients(g, seeds, wanted)

    def lines(self) -> list[tuple[str, str, Tensor]]:
        """Bottoms, then weights, of each layer that gradients go through."""
        found = []
        for item in reversed(self._wired):
            if not item.backward:
                continue
            for number, bottom in enumerate(item.bottoms):
                if item.wanted[number]:
                    size = self._sizes.mean(self._slopes.get(self._bottom(item, number)))
                    found.append((BOTTOM, f"Layer {item.name}, bottom blob {bottom} diff", size))
            if item.split is None:
                found += self._weight_lines(item)
        return found

    def _bottom(self, item: Wired, number: int) -> Tensor:
        if item.split is not None:
            return self._forward.tops[item.index][item.split]
        return self._forward.bottoms[item.index][number]

    def _weight_lines(self, item: Wired) -> list[tuple[str, str, Tensor]]:
        found = []
        for number, used in enumerate(self._forward.uses.get(item.index, ())):
            if not _wants(self._forward, item.index, number):
                continue
            owner = _owner(self._forward, item.index, number)
            self._add(owner, self._slopes.get(used))
            size = self._sizes.mean(self.weights.get(owner))
            found.append((DIFF, f"Layer {item.name}, param blob {number} diff", size))
        return found

    def _add(self, owner: Tensor, slope: Tensor | None) -> None:
        if slope is None:
            return
        g, sum_so_far = self._sizes.g, self.weights.get(owner)
        with g.scope(f"debug/diff/{owner.name}"):
            part = g.reshape(slope, owner.shape)
            self.weights[owner] = part if sum_so_far is None else g.add(sum_so_far, part)


def _totals(sizes: _Sizes, diffs: _Diffs) -> list[Tensor]:
    """L1 norms of all weights and all gradients, then their L2 norms."""
    owners = [sizes.current(owner) for owner in sizes.forward.weights]
    parts = [owners, list(diffs.weights.values())]
    g = sizes.g
    with g.scope("debug/totals"):
        sums = [_sum(g, [sizes.sum(x) for x in part]) for part in parts]
        squares = [_sum(g, [g.sum_all(g.square(x)) for x in part]) for part in parts]
        return [*sums, *(g.sqrt(square) for square in squares)]


def _sum(g: Emitter, parts: Sequence[Tensor]) -> Tensor:
    total = g.constant(0.0)
    for part in parts:
        total = g.add(total, part)
    return total
