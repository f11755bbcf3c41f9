"""ContrastiveRepresentation: embeddings against a memory of every record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Weight, layer
from kdnet.layers.distill.blocks import constant, within_fan
from kdnet.layers.distill.features import item_rows, unit
from kdnet.layers.normalization import LossLayer
from kdnet.layers.trace import LabelCheck
from kdnet.schema import kdnet_pb2 as pb

EPS = 1e-7
# A float32 blob counts records up to here without a gap.
COUNTABLE = 1 << 24
# Scoring every record is faster, measured on a CPU, below this part of the numbers to gather.
DENSE_PART = 8


@dataclass(frozen=True)
class _Side:
    """A side's embedding of the batch, the other side's memory, and their normaliser."""

    embedding: Tensor
    memory: Tensor
    normaliser: Tensor


@layer("ContrastiveRepresentation", params="contrastive_representation_param", bottoms=(2, 4))
class ContrastiveRepresentation(LossLayer):
    """Tell a record's other embedding from those of random records, on both sides (CRD).

        v = unit(w_s·s + b_s),  u = unit(w_t·t + b_t)
        p[n, k] = exp(v[n]·M_t[i[n, k]] / T) / Z_s,  and q likewise with u, M_s and Z_t
        L(p) = −1/N · Σ_n (ln p[n, 0]/(p[n, 0] + c) + Σ_k ln (K/R)/(p[n, k] + c)),  c = K/R + 1e-7
        L = L(p) + L(q)

    where i[n, 0] is the item's own record and i[n, 1] to i[n, K] are negatives. Z_s and Z_t are
    R times the mean of the first batch's exponentials, and stay. After the step the memories of
    the batch's records are M ← unit(m·M + (1 − m)·embedding); of a record that the batch holds
    more than once, by its last item.

    Shapes:
        s  (N, D_s...)  bottom 0: the student's features, usually those before its classifier
        t  (N, D_t...)  bottom 1: the teacher's
        r  (N)          bottom 2, optional: the number of each item's record, from 0 to R − 1.
                        Without it records are counted: the first batch has 0 to N − 1, and so on
                        modulo R, which is right for data that is read in its order
        j  (N, K)       bottom 3, optional: the negatives; without it they are drawn evenly from
                        all records
        w_s, b_s  (dim, D_s), (dim)  weights 0 and 1
        w_t, b_t  (dim, D_t), (dim)  weights 2 and 3
        M_s, M_t  (R, dim)           weights 4 and 5, state: the memories
        Z         (2)                weight 6, state: Z_s and Z_t, −1 until they are set
        c         (1)                weight 7, state, without bottom 2: the next record
        L         ()                 top 0
    Parameters: num_records R (required); nce_k K (16384); temperature T (0.07), positive;
        momentum m (0.5), in [0, 1], both schedulable; dim (128)
    Gradient: from the op rules, to the student and both embeddings; the teacher, the memories and
        the normalisers get none.
    Differs from Caffe: the layer is kdnet's own, for TRAIN phase alone. The recommended
        loss_weight is 0.8. The authors' data loader offers negatives of other classes than the
        item's; bottom 3 can hold such. The 2·R·dim numbers of the memories are in every snapshot.
        The default nce_k is theirs too; a thousand negatives are much cheaper on a CPU.
        A RecordNumber layer numbers the records of shuffled data; so may a top of an HDF5Data.
    Faults: TEST phase; num_records missing or above 16777216; nce_k or dim 0; a temperature that
        is not positive; a momentum outside [0, 1]; bottoms of other sizes; a record number that
        is none.
    Source: Tian, Krishnan, Isola 2020, "Contrastive Representation Distillation", equations 17 to
        19; value and update as HobbitLong/RepDistiller crd.
    """

    roles = ("student", "teacher", "record")

    def check(self, student: Tensor, teacher: Tensor, *numbers: Tensor) -> None:
        """Usable numbers, and as many records and negatives as items."""
        if not self.train:
            text = "the memories are of the training data, so it has no place in TEST phase"
            hint = "put include { phase: TRAIN } into the layer"
            self.fail("training-only", text, self.model.position, hint)
        self._check_params()
        for index, x in enumerate((student, teacher)):
            say = f"a feature of shape {x.shape} is no batch of items"
            self.require_shape(x.rank > 1, bottom=index, say=say)
        items = student.shape[0]
        say = f"{teacher.shape[0]} items of the teacher beside {items} of the student"
        self.require_shape(teacher.shape[0] == items, bottom=1, say=say)
        wanted = (("record numbers", (items,)), ("negatives", (items, self.params.nce_k)))
        for index, (x, (what, shape)) in enumerate(zip(numbers, wanted, strict=False), start=2):
            say = f"{what} of shape {x.shape} where {shape} is wanted"
            self.require_shape(x.shape == shape, bottom=index, say=say)

    def _check_params(self) -> None:
        given = self.params
        records = given.num_records
        self.require(records > 0, at="num_records", say="must be given")
        self.require(records <= COUNTABLE, at="num_records", say=f"must be at most {COUNTABLE}")
        for at in ("nce_k", "dim"):
            self.require(getattr(given, at) > 0, at=at, say="must be positive")
        usable = 0 < given.temperature < float("inf")
        say = f"must be positive, not {given.temperature:g}"
        self.require(usable, at="temperature", say=say)
        say = f"must be in [0, 1], not {given.momentum:g}"
        self.require(0 <= given.momentum <= 1, at="momentum", say=say)

    def weights(self, student: Tensor, teacher: Tensor, *numbers: Tensor) -> list[Weight]:
        """Both embeddings, both memories, the normalisers, and the place in the data."""
        found = []
        for name, x in (("student", student), ("teacher", teacher)):
            shape = (self.params.dim, prod(x.shape[1:]))
            found.append(Weight(f"{name}/weight", shape, within_fan(shape)))
            found.append(Weight(f"{name}/bias", shape[:1], within_fan(shape)))
        bound = 1 / sqrt(self.params.dim / 3)
        spread = pb.FillerParameter(type="uniform", min=-bound, max=bound)
        bank = (self.params.num_records, self.params.dim)
        for name in ("student", "teacher"):
            found.append(Weight(f"{name}/memory", bank, spread, state=True))
        found.append(Weight("normaliser", (2,), constant(-1), state=True))
        if not numbers:
            found.append(Weight("next_record", (1,), constant(0), state=True))
        return found

    def emit(self, g: Emitter, *inputs: Tensor) -> Tensor:
        """Embed, score against the memories, set what is not set yet, remember."""
        count = len(self.model.bottoms)
        numbers, weights = inputs[2:count], inputs[count:]
        v = _embedded(g, inputs[0], *weights[:2])
        u = _embedded(g, g.stop_gradient(inputs[1]), *weights[2:4])
        of_student, of_teacher, normaliser = weights[4:7]
        record = self._records(g, numbers, v.shape[0], weights[7:])
        indices = g.concat([g.reshape(record, (v.shape[0], 1)), self._negatives(g, numbers, v)], 1)
        first, second = (g.slice(normaliser, [0], [i], [i + 1]) for i in (0, 1))
        temperature, kept = self.scalar(g, "temperature"), self.scalar(g, "momentum")
        sides = (_Side(v, of_teacher, first), _Side(u, of_student, second))
        found = [self._contrast(g, side, indices, temperature) for side in sides]
        terms, constants = zip(*found, strict=True)
        self.update(normaliser, g.concat(constants, 0))
        self.update(of_student, _remembered(g, of_student, v, record, kept))
        self.update(of_teacher, _remembered(g, of_teacher, u, record, kept))
        return g.add(*terms)

    def _records(
        self, g: Emitter, numbers: Sequence[Tensor], items: int, counter: Sequence[Tensor]
    ) -> Tensor:
        """The record of each item, (N) of int64."""
        if numbers:
            self._expect_records(numbers[0], 2)
            return g.cast(numbers[0], np.int64)
        (place,) = counter
        records = self.params.num_records
        following = g.add(g.cast(place, np.int64), g.ints(*range(items + 1)))
        counted = g.op("Mod", following, g.ints(records))
        self.update(place, g.cast(g.slice(counted, [0], [items], [items + 1])))
        return g.slice(counted, [0], [0], [items])

    def _negatives(self, g: Emitter, numbers: Sequence[Tensor], v: Tensor) -> Tensor:
        """The records to tell from each item's own, (N, K) of int64."""
        if len(numbers) > 1:
            self._expect_records(numbers[1], 3)
            return g.cast(numbers[1], np.int64)
        # The largest float32 below 1, 1 − 2⁻²⁴, times R rounds to less than R for every R.
        drawn = self.noise(g, (v.shape[0], self.params.nce_k))
        return g.cast(g.mul(drawn, float(self.params.num_records)), np.int64)

    def _expect_records(self, numbers: Tensor, bottom: int) -> None:
        span = self.model.source.span(("bottom", bottom))
        records = self.params.num_records
        check = LabelCheck(numbers, self.model.name, records, None, span, "record")
        self.trace.labels.append(check)

    def _contrast(
        self, g: Emitter, side: _Side, indices: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A side's term, and its normaliser, set by this batch where none was before."""
        records, share = self.params.num_records, self.params.nce_k / self.params.num_records
        scores = _scores(g, side.embedding, side.memory, indices)
        powers = g.exp(g.div(scores, temperature))
        mean = g.reduce_mean(g.stop_gradient(powers), [0, 1])
        fresh = g.reshape(g.mul(mean, float(records)), (1,))
        normaliser = g.where(g.less(side.normaliser, 0.0), fresh, side.normaliser)
        odds = g.div(g.mul(powers, 1 / share), normaliser)
        # In units of K/R every logarithm is small, so that sums of thousands keep their digits.
        all_pairs = g.sum_all(g.log(g.add(odds, 1 + EPS / share)))
        positives = g.sum_all(g.log(g.slice(odds, [1], [0], [1])))
        return g.mul(g.sub(all_pairs, positives), 1.0 / indices.shape[0]), normaliser


def _remembered(
    g: Emitter, memory: Tensor, embedding: Tensor, record: Tensor, kept: Tensor
) -> Tensor:
    """The memory with the batch's records moved towards their embeddings."""
    old = g.op("Gather", memory, record, axis=0)
    moved = g.add(g.mul(old, kept), g.mul(embedding, g.sub(1.0, kept)))
    rows = g.op("Gather", unit(g, moved, [1]), _last_of_each(g, record), axis=0)
    return g.op("ScatterND", memory, g.reshape(record, (record.size, 1)), rows)


def _embedded(g: Emitter, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return unit(g, g.gemm(item_rows(g, x), weight, bias, trans_b=True), [1])


def _scores(g: Emitter, embedding: Tensor, memory: Tensor, indices: Tensor) -> Tensor:
    """The products of each embedding with the rows at its indices, (N, K + 1).

    Either the rows are gathered, K + 1 of them an item, or all rows are scored and the scores
    gathered, which takes less memory and time where there are many negatives to few records.
    """
    items, count = indices.shape
    records, dim = memory.shape
    if records <= count * dim // DENSE_PART:
        every = g.gemm(embedding, memory, trans_b=True)
        return g.op("GatherElements", every, indices, axis=1)
    rows = g.op("Gather", memory, indices, axis=0)
    column = g.reshape(embedding, (items, dim, 1))
    return g.reshape(g.matmul(rows, column), (items, count))


def _last_of_each(g: Emitter, record: Tensor) -> Tensor:
    """For each item the last one of the batch with the same record.

    So all that write to one row write the same, whatever order a device takes.
    """
    items = record.size
    same = g.equal(g.reshape(record, (items, 1)), g.reshape(record, (1, items)))
    places = g.where(same, g.constant(np.arange(items)), -1.0)
    return g.cast(g.reduce_max(places, [1]), np.int64)
