"""MultinomialLogisticLoss and InfogainLoss: further losses between scores and labels."""

from __future__ import annotations

from functools import cached_property
from math import log, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.data.paths import find, suggest
from kdnet.errors import WeightsError
from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.kept import of_kept, per_item
from kdnet.layers.labels import check_labels, read_labels
from kdnet.layers.metric_losses import check_one_label_each
from kdnet.layers.normalization import LossLayer
from kdnet.weights.blobs import decode_blob
from kdnet.weights.files import check_memory
from kdnet.weights.wire import WireError

# A probability below this counts as this.
LEAST = 1e-20


@layer("MultinomialLogisticLoss", bottoms=2)
class MultinomialLogisticLoss(LossLayer):
    """Cross entropy between probabilities and whole-number labels.

        L = 1/N · Σ_n −ln max(p[n, t[n]], 10⁻²⁰)

    Shapes:
        p  (N, K...)  bottom 0, probabilities; axes from 1 on are flattened to the classes
        t  (N)        bottom 1; any shape with as many elements and the same first axis
        L  ()         top 0
    Parameters: none; loss_param is not read
    Gradient: from the op rules; −1 / (N · max(p, 10⁻²⁰)) at the label, as in Caffe.
    Differs from Caffe: a label that is no class adds nothing (and is refused when it is fed).
        SoftmaxWithLoss, from logits, is more exact.
    Faults: a bottom without classes; a label shape that does not fit.
    Source: BVLC/caffe multinomial_logistic_loss_layer.
    """

    roles = ("probabilities", "label")

    def check(self, p: Tensor, labels: Tensor) -> None:
        """There is one label an item."""
        check_one_label_each(self, p, labels)

    def emit(self, g: Emitter, p: Tensor, labels: Tensor) -> Tensor:
        """Logarithms of the probabilities at the labels, summed."""
        items = p.shape[0]
        rows = g.reshape(p, (items, p.size // items))
        self.expect_labels(labels, rows.shape[1])
        hit = read_labels(g, rows, labels, 1, None).hit
        # An item without a class picks 1, whose logarithm is 0.
        picked = g.reduce_sum(g.where(hit, rows, 0.0), [1])
        none = g.reduce_max(g.cast(hit), [1])
        known = g.where(g.greater(none, 0.0), picked, 1.0)
        clamped = g.straight_through(g.maximum(known, LEAST), known)
        terms = of_kept(g, g.log(clamped), self.kept)
        return per_item(g, g.sum_all(terms), -1.0, items, self.kept)


@layer("InfogainLoss", params="infogain_loss_param", bottoms=(2, 3), tops=(1, 2))
class InfogainLoss(LossLayer):
    """Cross entropy between softmax probabilities and the row of a matrix for each label.

        L = 1/Z · Σ_n Σ_k −H[t[n], k] · ln max(softmax(x[n])[k], 10⁻²⁰)

    With the identity for H it is SoftmaxWithLoss; other rows say how bad each mistake is.

    Shapes:
        x  (N..., K, M...)  bottom 0; the class axis is ``axis``
        t  (N..., M...)     bottom 1; any shape with as many elements and the same first axis
        H  (1, 1, K, K)     bottom 2, unless ``source`` names a file; any shape that ends so
        L  ()               top 0
        p  as x             top 1, optional: the probabilities
    Parameters: axis (1); source, a .binaryproto file with H; loss_param: ignore_label (none),
        normalization (VALID): Z as in SoftmaxWithLoss
    Gradient: from the op rules; the clamp at 10⁻²⁰ is of the value only, as in Caffe. H gets none.
    Differs from Caffe: a label that is no class adds nothing (and is refused when it is fed).
    Faults: axis out of range; a label shape that does not fit; no H, or two; an H of another size;
        a file that is absent or no BlobProto.
    Source: BVLC/caffe infogain_loss_layer.
    """

    roles = ("logits", "label", "matrix")

    def check(self, x: Tensor, labels: Tensor, matrix: Tensor | None = None) -> None:
        """The axis exists, there is one label a prediction, and one number for each pair."""
        axis = self.axis(x, self.params.axis)
        check_labels(self, x, labels, axis)
        given = bool(self.params.source)
        self.require(
            given or matrix is not None,
            at="source",
            say="a .binaryproto file with the matrix must be given, or a third bottom",
        )
        say = "the matrix is bottom 2; only one of them can hold"
        self.require(not given or matrix is None, at="source", say=say)
        k = x.shape[axis]
        shape = self._stored(k).shape if matrix is None else matrix.shape
        fits = shape[-2:] == (k, k) and prod(shape) == k * k
        say = f"a matrix of shape {shape} for {k} classes; {k} rows of {k} wanted"
        if matrix is None:
            self.require(fits, at="source", say=say)
        self.require_shape(fits, bottom=2, say=say)

    def _stored(self, classes: int) -> NDArray[Any]:
        """The matrix of the file, or the identity where that need not be there."""
        if self.model.stand_in is not None:
            return np.eye(classes, dtype=np.float32)
        return self._read

    @cached_property
    def _read(self) -> NDArray[Any]:
        given, span = self.params.source, self.span("source")
        beside = span.file if span else None
        found = find(given, beside)
        if found is None:
            text = f'there is no file "{given}"'
            self.fail("missing-matrix", text, span, next(iter(suggest(given, beside)), ""))
        try:
            check_memory(str(found), found.stat().st_size)
            data = found.read_bytes()
            values, _ = decode_blob(data, 0, len(data))
        except (OSError, WireError, WeightsError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.fail("bad-matrix", f'"{given}" is no matrix: {reason}', span)
        return values

    def emit(
        self, g: Emitter, x: Tensor, labels: Tensor, matrix: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Each item's row times its log-probabilities, summed and divided."""
        axis = self.axis(x, self.params.axis)
        k = x.shape[axis]
        self.expect_labels(labels, k, self.ignore)
        found = read_labels(g, x, labels, axis, self.ignore)
        table = g.constant(self._stored(k)) if matrix is None else g.stop_gradient(matrix)
        last = [place for place in range(x.rank) if place != axis] + [axis]
        # A label that is no class has no hit, so its row is zeros.
        rows = g.matmul(g.transpose(g.cast(found.hit), last), g.reshape(table, (k, k)))
        score = g.log_softmax(x, axis)
        score = g.straight_through(g.maximum(score, log(LEAST)), score)
        terms = g.reduce_sum(g.mul(rows, g.transpose(score, last)), [x.rank - 1])
        if found.ignored is not None:
            terms = g.where(found.ignored, 0.0, terms)
        loss = self.normalized(
            g,
            g.sum_all(of_kept(g, terms, self.kept)),
            positions=terms.size,
            items=prod(x.shape[:axis]),
            ignored=found.ignored,
            factor=-1.0,
        )
        return (loss, g.softmax(x, axis))[: len(self.model.tops)]
