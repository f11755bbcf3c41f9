"""The training graphs: one step, or a gradient graph and an update graph for iter_size > 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdnet.autodiff import gradients
from kdnet.compile.assemble import Pair, assemble, loss_outputs, next_name, sink_outputs
from kdnet.compile.forward import Forward, trace_forward
from kdnet.compile.hosted import (
    HostedStep,
    Passage,
    back_through,
    steps_around,
    steps_before,
)
from kdnet.compile.program import RATE, Program, StateSlot, WeightSlot
from kdnet.compile.scheduled import check_schedules, rate_factors
from kdnet.compile.weights import weight_slots
from kdnet.errors import LayerError, fail
from kdnet.graph import Emitter, Tensor
from kdnet.net import NetModel, SolverModel
from kdnet.solvers import (
    Inputs,
    Leaf,
    Schedule,
    apply_chain,
    numbers_of,
    schedules_of,
    transforms_of,
)


@dataclass(frozen=True)
class Training:
    """A compiled training run.

    ``main`` takes the data. Where it is the whole step ``update`` is None; else it
    adds its gradients to ``accumulators``, which ``update`` then consumes. ``histories`` maps
    each history input to the weight it belongs to. ``schedules`` are the numbers to be fed in each
    iteration: the solver file's, then those that the update rule itself needs. ``hosted`` are the
    Python layers, by whose results ``main`` is fed.
    """

    net: NetModel
    weights: tuple[WeightSlot, ...]
    histories: Mapping[str, str]
    iter_size: int
    main: Program
    update: Program | None = None
    accumulators: tuple[StateSlot, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    hosted: tuple[HostedStep, ...] = ()

    @property
    def live(self) -> frozenset[str]:
        """Names of the weights that change while training."""
        return frozenset(slot.name for slot in self.weights if slot.role != "frozen")


def compile_training(
    net: NetModel,
    solver: SolverModel,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    provider: str = "cpu",
    split: bool = False,
) -> Training:
    """Compile forward, backward and update of a TRAIN net.

    Args:
        net: the net.
        solver: the solver.
        input_shapes: shapes of data tops that win over what the net says.
        provider: "cpu" or "cuda".
        split: whether the update is a graph of its own even where iter_size is 1.

    Raises:
        LayerError: the net's faults; nothing-to-train when no loss depends on a trained weight.
        NetError: the faults of the solver's schedules.
    """
    schedules = schedules_of(solver, net)
    forward = trace_forward(net, Emitter(provider=provider), input_shapes, schedules)
    slopes, carried = _gradients(forward)
    check_schedules(forward, slopes)
    weights = weight_slots(forward.weights, frozenset(slopes), frozenset(forward.trace.updates))
    frozen_names = {slot.name for slot in weights if slot.role == "frozen"}
    frozen = frozenset(t for t in forward.weights if t.name in frozen_names)
    statistics = list(forward.trace.updates.items())
    steps = steps_around(forward, steps_before(forward, frozen), carried, frozen)
    losses = loss_outputs(forward)
    losses |= sink_outputs(forward, losses)
    iter_size = max(1, solver.message.iter_size)
    moving = (*schedules, *numbers_of(transforms_of(solver)))
    if iter_size == 1 and not split:
        pairs, histories = _emit_update(forward, solver, slopes)
        main = assemble("step", forward, losses, [*pairs, *statistics], frozen)
        return Training(net, weights, histories, iter_size, main, schedules=moving, hosted=steps)
    held, sums = _emit_accumulators(forward, slopes)
    main = assemble("gradient", forward, losses, [*sums, *statistics], frozen)
    pairs, histories = _emit_update(forward, solver, held)
    update = assemble("update", forward, {}, pairs, frozen)
    slots = tuple(StateSlot(t.name, next_name(t), t.shape) for t in held.values())
    return Training(net, weights, histories, iter_size, main, update, slots, moving, steps)


def _gradients(forward: Forward) -> tuple[dict[Tensor, Tensor], dict[str, Passage]]:
    """The loss's gradient by trained weight, and how it passes the Python layers."""
    g = forward.g
    wanted = [tensor for tensor, blob in forward.weights.items() if blob.lr_mult != 0]
    seeds = []
    for loss in forward.losses:
        with g.scope("grad/loss", str(loss.layer.position or "")):
            seeds.append((loss.top, g.expand(g.like(loss.factor, loss.top), loss.top.shape)))
    carried = back_through(forward, seeds, wanted)
    with g.scope("grad", forward.source):
        found = gradients(g, seeds, wanted)
    if not found:
        without = "no loss depends on a weight whose lr_mult is not 0"
        reason = without if forward.losses else "it has no loss"
        text = f'net "{forward.net.name}" has nothing to train: {reason}'
        fail(LayerError, "nothing-to-train", text, span=forward.net.source.span(()))
    return {tensor: found[tensor] for tensor in wanted if tensor in found}, carried


def _emit_accumulators(
    forward: Forward, slopes: Mapping[Tensor, Tensor]
) -> tuple[dict[Tensor, Tensor], list[Pair]]:
    """Accumulator inputs by weight, and each with its sum."""
    g = forward.g
    held: dict[Tensor, Tensor] = {}
    pairs: list[Pair] = []
    for weight, slope in slopes.items():
        held[weight] = g.input(f"accumulated/{weight.name}", weight.shape)
        source = str(forward.weights[weight].layer.position or "")
        with g.scope(held[weight].name, source):
            pairs.append((held[weight], g.add(held[weight], slope)))
    return held, pairs


def _emit_update(
    forward: Forward, solver: SolverModel, slopes: Mapping[Tensor, Tensor]
) -> tuple[list[Pair], dict[str, str]]:
    """Emit the solver; the state it replaces with the new values, and whose history is whose."""
    g, table = forward.g, forward.weights
    factors = rate_factors(forward)
    leaves = [
        Leaf(t, table[t].lr_mult, table[t].decay_mult, factors.get(table[t].layer.name))
        for t in slopes
    ]
    chain = transforms_of(solver)
    rate = g.input(RATE, ())
    past = {
        slot: [g.input(f"history/{slot}/{leaf.weight.name}", leaf.weight.shape) for leaf in leaves]
        for transform in chain
        for slot in transform.slots
    }
    numbers = {
        item.field: forward.trace.scalar(g, item.layer, item.field) for item in numbers_of(chain)
    }
    with g.scope("update", str(solver.source.span(()) or forward.source)):
        given = Inputs(rate, past, numbers)
        weights, following = apply_chain(g, chain, leaves, list(slopes.values()), given)
    pairs = [(leaf.weight, new) for leaf, new in zip(leaves, weights, strict=True)]
    histories = {}
    for slot, inputs in past.items():
        pairs += zip(inputs, following[slot], strict=True)
        for tensor, leaf in zip(inputs, leaves, strict=True):
            histories[tensor.name] = leaf.weight.name
    return pairs, histories
