"""The evaluation graph: a TEST net's forward pass, reading the weights that training changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kdnet.compile.assemble import assemble, loss_outputs, sink_outputs, watch
from kdnet.compile.forward import Forward, trace_forward
from kdnet.compile.hosted import HostedStep, steps_before
from kdnet.compile.program import Program, WeightSlot
from kdnet.compile.weights import weight_slots
from kdnet.errors import LayerError, fail
from kdnet.graph import Emitter, Tensor
from kdnet.net import NetModel
from kdnet.solvers import Schedule

Watching = Callable[[Forward], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Evaluation:
    """A compiled forward pass; ``program.reads`` are weights bound from the training run.

    ``hosted`` are the Python layers, by whose results the program is fed.
    """

    net: NetModel
    weights: tuple[WeightSlot, ...]
    program: Program
    hosted: tuple[HostedStep, ...] = ()


def compile_evaluation(
    net: NetModel,
    *,
    live: frozenset[str] = frozenset(),
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    provider: str = "cpu",
    schedules: Sequence[Schedule] = (),
    watching: Watching | None = None,
) -> Evaluation:
    """Compile the forward pass of a net.

    What no output needs is left out, so a teacher that nobody reads costs nothing.

    Raises:
        LayerError: the net's faults; no-output when no blob is left unread and no loss counts.

    Args:
        net: the net, usually in TEST phase.
        live: names of weights to be inputs, because training changes them; the others are
            constants of the session.
        input_shapes: shapes of data tops that win over what the net says.
        provider: "cpu" or "cuda".
        schedules: those of the training run; this net uses what it has the layers for.
        watching: given the traced net, tells which tensors to hand out beside the outputs, as
            ``watched/<name>``.
    """
    forward = trace_forward(net, Emitter(provider=provider), input_shapes, schedules)
    weights = weight_slots(forward.weights, frozenset(), frozenset())
    frozen = frozenset(t for t in forward.weights if t.name not in live)
    outputs = loss_outputs(forward)
    outputs |= sink_outputs(forward, outputs)
    if not outputs:
        text = (
            f'net "{net.name}" has nothing to tell in phase {net.phase_name}: all blobs are read'
        )
        hint = ("add an Accuracy or a loss layer",)
        fail(LayerError, "no-output", text, span=net.source.span(()), help=hint)
    if watching is not None:
        outputs |= watch(forward, watching(forward), outputs)
    program = assemble(net.phase_name.lower(), forward, outputs, (), frozen)
    steps = tuple(steps_before(forward, frozen))
    every = (program, *(part for step in steps for part in step.programs))
    used = {name for part in every for name in (*part.frozen, *part.reads)}
    return Evaluation(net, tuple(slot for slot in weights if slot.name in used), program, steps)
