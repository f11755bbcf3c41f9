"""LSTM, RNN and LSTMUnit: layers that carry a state from step to step of a sequence.

A sequence is unrolled: every step is emitted, so that graph and compile time grow with it. What
does not depend on the state is computed for all steps at once.
"""

from __future__ import annotations

from abc import abstractmethod
from math import prod
from typing import ClassVar

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, Weight, layer

# The input, forget and output gate, and the values that the input gate lets in.
PARTS = 4


class Recurrent(Layer):
    """A layer with steps on axis 0 and independent streams on axis 1.

    ``states`` is the number of blobs that a step hands to the next, ``parts`` how many numbers a
    unit takes in, and ``names`` are those of the input's weight and bias and the state's weight.
    """

    states: ClassVar[int]
    parts: ClassVar[int]
    names: ClassVar[tuple[str, str, str]]

    @property
    def exposed(self) -> int:
        """How many states are bottoms, and again tops."""
        return self.states if self.params.expose_hidden else 0

    @property
    def has_static(self) -> bool:
        """Whether bottom 2 is the same at all steps."""
        return len(self.model.bottoms) > 2 + self.exposed

    def check(self, x: Tensor, cont: Tensor, *more: Tensor) -> None:
        """The bottoms agree on steps and streams, and there are as many as the states need."""
        self.require(self.params.num_output > 0, at="num_output", say="must be positive")
        self._check_counts()
        say = f"(steps, streams, features...) wanted, not {x.shape}"
        self.require_shape(x.rank > 2, bottom=0, say=say)
        self._check_bottom(1, cont, x.shape[:2], "the steps and streams of bottom 0")
        streams = x.shape[1]
        if self.has_static:
            say = f"(streams, features...) wanted with {streams} streams, not {more[0].shape}"
            fits = more[0].rank > 1 and more[0].shape[0] == streams
            self.require_shape(fits, bottom=2, say=say)
        state = (1, streams, self.params.num_output)
        for index, tensor in enumerate(more[self.has_static :], start=2 + self.has_static):
            self._check_bottom(index, tensor, state, "one step of every unit's state")

    def _check_bottom(self, index: int, found: Tensor, shape: tuple[int, ...], what: str) -> None:
        name = self.model.bottoms[index]
        say = f'bottom "{name}" has shape {found.shape}, not {shape}: {what}'
        self.require_shape(found.shape == shape, bottom=index, say=say)

    def _check_counts(self) -> None:
        exposed = self.exposed
        low, high, tops = 2 + exposed, 3 + exposed, 1 + exposed
        how = "with expose_hidden" if exposed else "without expose_hidden"
        for word, count, least, most in (
            ("bottom", len(self.model.bottoms), low, high),
            ("top", len(self.model.tops), tops, tops),
        ):
            if not least <= count <= most:
                wanted = f"{least} or {most}" if least < most else f"{most}"
                wanted += f" {word}" if most == 1 else f" {word}s"
                span = self.model.source.span((word, min(most, count - 1)))
                self.fail(f"{word}-count", f"{how} it takes {wanted}, not {count}", span)

    def weights(self, x: Tensor, _cont: Tensor, *more: Tensor) -> list[Weight]:
        """Weight and bias of the input, weight of the static input, weight of the state."""
        units = self.params.num_output
        rows, filler = self.parts * units, self.params.weight_filler
        of_input, bias, of_state = self.names
        found = [
            Weight(of_input, (rows, prod(x.shape[2:])), filler),
            Weight(bias, (rows,), self.params.bias_filler),
        ]
        if self.has_static:
            shape = (rows, prod(more[0].shape[1:]))
            found.append(Weight(f"{of_input}_static", shape, filler))
        return [*found, Weight(of_state, (rows, units), filler)]

    def emit(self, g: Emitter, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The input's part at once, then a step at a time."""
        count = len(self.model.bottoms)
        bottoms, weights = inputs[:count], list(inputs[count:])
        x = bottoms[0]
        steps, streams = x.shape[:2]
        entering = _over_steps(g, self._entering(g, bottoms, weights), steps)
        # Nobody trains through what says where sequences begin.
        begun = g.reshape(g.stop_gradient(bottoms[1]), (steps * streams, 1))
        state = self._first(g, bottoms)
        hidden = []
        for step, cont in enumerate(_over_steps(g, begun, steps)):
            with g.scope(f"{self.model.name}/step{step + 1}"):
                gates = g.gemm(g.mul(state[0], cont), weights[0], entering[step], trans_b=True)
                state = self.step(g, gates, cont, state)
            hidden.append(state[0])
        shape = (streams, self.params.num_output)
        y = self.leaving(g, g.concat(hidden, 0), weights[1:])
        last = [g.reshape(tensor, (1, *shape)) for tensor in state[: self.exposed]]
        return (g.reshape(y, (steps, *shape)), *last)

    def _entering(self, g: Emitter, bottoms: tuple[Tensor, ...], weights: list[Tensor]) -> Tensor:
        """What the inputs add to each unit at all steps; it takes their weights off the list."""
        steps, streams, *features = bottoms[0].shape
        flat = g.reshape(bottoms[0], (steps * streams, prod(features)))
        found = g.gemm(flat, weights.pop(0), weights.pop(0), trans_b=True)
        if not self.has_static:
            return found
        static = g.reshape(bottoms[2], (streams, prod(bottoms[2].shape[1:])))
        always = g.gemm(static, weights.pop(0), trans_b=True)
        return g.reshape(g.add(g.reshape(found, (steps, *always.shape)), always), found.shape)

    def _first(self, g: Emitter, bottoms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states before the first step."""
        shape = (bottoms[0].shape[1], self.params.num_output)
        given = bottoms[len(bottoms) - self.exposed :]
        if given:
            return tuple(g.reshape(tensor, shape) for tensor in given)
        # Expanded, not a constant of this shape: so an exported net takes any number of streams.
        return (g.expand(g.constant(0.0), shape),) * self.states

    @abstractmethod
    def step(
        self, g: Emitter, gates: Tensor, cont: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """The states after a step, the hidden one first."""

    @abstractmethod
    def leaving(self, g: Emitter, hidden: Tensor, weights: list[Tensor]) -> Tensor:
        """The first top of all hidden states (steps · streams, units)."""


@layer("LSTM", params="recurrent_param", bottoms=(2, 5), tops=(1, 3))
class LSTM(Recurrent):
    """Long short-term memory over the steps of sequences.

        i, f, o, u = W_xc · x[t] + b_c + W_xc_static · s + W_hc · (cont[t] · h[t−1])
        c[t] = σ(f) · cont[t] · c[t−1] + σ(i) · tanh(u)
        h[t] = σ(o) · tanh(c[t])

    Where ``cont`` is 0 a sequence begins, and nothing of the step before is kept.

    Shapes:
        x            (T, N, D...)  bottom 0: T steps of N streams
        cont         (T, N)        bottom 1: 0 where a sequence begins, else 1
        s            (N, S...)     bottom 2, optional: the same at all steps
        h_0, c_0     (1, N, H)     the last two bottoms, with ``expose_hidden`` only
        W_xc         (4H, D)       weight 0; rows of i, then f, o and u
        b_c          (4H)          weight 1
        W_xc_static  (4H, S)       weight 2, with s only
        W_hc         (4H, H)       the last weight
        h            (T, N, H)     top 0
        h_T, c_T     (1, N, H)     tops 1 and 2, with ``expose_hidden`` only
    Parameters: num_output H ≥ 1 (required); weight_filler; bias_filler; expose_hidden (false);
        debug_info has no effect
    Gradient: from the op rules, back through all steps; cont gets none.
    Differs from Caffe: a batch starts from zeros where no state is handed to it; Caffe goes on
        with the state of the batch before where cont is 1 at the first step. Exposed states pass
        their gradients on; Caffe drops them.
    Faults: num_output missing; a number of bottoms or tops that does not fit expose_hidden;
        bottoms that disagree on steps, streams or units.
    Source: BVLC/caffe lstm_layer, recurrent_layer; Hochreiter, Schmidhuber 1997; Donahue et al.
        2015.
    """

    states = 2
    parts = PARTS
    names = ("W_xc", "b_c", "W_hc")

    def step(
        self, g: Emitter, gates: Tensor, cont: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """One cell."""
        c, h = _cell(g, state[1], gates, cont)
        return h, c

    def leaving(self, _g: Emitter, hidden: Tensor, _weights: list[Tensor]) -> Tensor:
        """The hidden states themselves."""
        return hidden


@layer("RNN", params="recurrent_param", bottoms=(2, 4), tops=(1, 2))
class RNN(Recurrent):
    """A simple recurrent net over the steps of sequences.

        h[t] = tanh(W_xh · x[t] + b_h + W_xh_static · s + W_hh · (cont[t] · h[t−1]))
        o[t] = tanh(W_ho · h[t] + b_o)

    Where ``cont`` is 0 a sequence begins, and nothing of the step before is kept.

    Shapes:
        x            (T, N, D...)  bottom 0: T steps of N streams
        cont         (T, N)        bottom 1: 0 where a sequence begins, else 1
        s            (N, S...)     bottom 2, optional: the same at all steps
        h_0          (1, N, H)     the last bottom, with ``expose_hidden`` only
        W_xh         (H, D)        weight 0
        b_h          (H)           weight 1
        W_xh_static  (H, S)        weight 2, with s only
        W_hh         (H, H)        the next weight
        W_ho         (H, H)        the next weight
        b_o          (H)           the last weight
        o            (T, N, H)     top 0
        h_T          (1, N, H)     top 1, with ``expose_hidden`` only
    Parameters: num_output H ≥ 1 (required); weight_filler; bias_filler; expose_hidden (false);
        debug_info has no effect
    Gradient: from the op rules, back through all steps; cont gets none.
    Differs from Caffe: a batch starts from zeros where no state is handed to it; Caffe goes on
        with the state of the batch before where cont is 1 at the first step. The exposed state
        passes its gradient on; Caffe drops it.
    Faults: num_output missing; a number of bottoms or tops that does not fit expose_hidden;
        bottoms that disagree on steps, streams or units.
    Source: BVLC/caffe rnn_layer, recurrent_layer; Elman 1990.
    """

    states = 1
    parts = 1
    names = ("W_xh", "b_h", "W_hh")

    def weights(self, x: Tensor, cont: Tensor, *more: Tensor) -> list[Weight]:
        """Those of the hidden state, then weight and bias of the output."""
        units = self.params.num_output
        of_output = Weight("W_ho", (units, units), self.params.weight_filler)
        bias = Weight("b_o", (units,), self.params.bias_filler)
        return [*super().weights(x, cont, *more), of_output, bias]

    def step(
        self, g: Emitter, gates: Tensor, _cont: Tensor, _state: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """One unit."""
        return (_tanh(g, gates),)

    def leaving(self, g: Emitter, hidden: Tensor, weights: list[Tensor]) -> Tensor:
        """Another layer on top, for all steps at once."""
        return g.tanh(g.gemm(hidden, *weights, trans_b=True))


@layer("LSTMUnit", bottoms=3, tops=2)
class LSTMUnit(Layer):
    """One step of an LSTM, from the sums that enter its units.

        i, f, o, u = z
        c' = σ(f) · cont · c + σ(i) · tanh(u)
        h' = σ(o) · tanh(c')

    Shapes:
        c     (1, N, H)   bottom 0: the cells before the step
        z     (1, N, 4H)  bottom 1: i, then f, o and u
        cont  (1, N)      bottom 2: 0 where a sequence begins, else 1
        c'    (1, N, H)   top 0
        h'    (1, N, H)   top 1
    Parameters: none
    Gradient: from the op rules; cont gets none.
    Differs from Caffe: nothing where cont is 0 or 1; at other values the forget gate's gradient
        is that of the formula.
    Faults: bottoms that are not one step, or disagree on streams or units.
    Source: BVLC/caffe lstm_unit_layer.
    """

    def check(self, c: Tensor, z: Tensor, cont: Tensor) -> None:
        """One step, and four numbers a unit."""
        say = f"(1, streams, units) wanted, not {c.shape}"
        self.require_shape(c.rank == 3 and c.shape[0] == 1, bottom=0, say=say)
        wanted = {1: (*c.shape[:2], PARTS * c.shape[2]), 2: c.shape[:2]}
        for index, found in ((1, z), (2, cont)):
            name, shape = self.model.bottoms[index], wanted[index]
            say = f'bottom "{name}" has shape {found.shape}, not {shape}'
            self.require_shape(found.shape == shape, bottom=index, say=say)

    def emit(self, g: Emitter, c: Tensor, z: Tensor, cont: Tensor) -> tuple[Tensor, ...]:
        """One cell."""
        return _cell(g, c, z, g.reshape(g.stop_gradient(cont), (*cont.shape, 1)))


def _cell(g: Emitter, c: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """c' and h' of (..., H) cells, (..., 4H) gates and (..., 1) continuation marks."""
    units, axis = c.shape[-1], c.rank - 1
    sums, values = g.multi("Split", gates, g.ints(3 * units, units), count=2, axis=axis)
    opened = g.op("Sigmoid", sums, rule="SigmoidOfStep")
    i, f, o = g.multi("Split", opened, count=3, axis=axis, num_outputs=3)
    after = g.add(g.mul(f, g.mul(c, cont)), g.mul(i, _tanh(g, values)))
    return after, g.mul(o, _tanh(g, after))


def _tanh(g: Emitter, x: Tensor) -> Tensor:
    return g.op("Tanh", x, rule="TanhOfStep")


def _over_steps(g: Emitter, x: Tensor, steps: int) -> tuple[Tensor, ...]:
    """(steps · streams, ...) cut into steps."""
    if steps == 1:
        return (x,)
    return g.multi("Split", x, count=steps, axis=0, num_outputs=steps)
