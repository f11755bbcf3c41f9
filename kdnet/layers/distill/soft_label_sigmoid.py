"""SoftLabelSigmoidCrossEntropy: probabilities for many binary heads on a shared trunk."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import layer
from kdnet.layers.distill.soft_targets import softened, times_t2
from kdnet.layers.normalization import LossLayer


@layer(
    "SoftLabelSigmoidCrossEntropy",
    params="soft_label_sigmoid_cross_entropy_param",
    bottoms=2,
)
class SoftLabelSigmoidCrossEntropy(LossLayer):
    """Cross entropy between sigmoids and soft labels, of which some may be missing.

        t_T = t^(1/T) / (t^(1/T) + (1 − t)^(1/T)),  which is σ(logit(t) / T)
        L = T²/Z · Σ_i w[i] · (ln(1 + exp(x[i] / T)) − x[i] / T · t_T[i])
        w = 1, or 4 · (t − 0.5)² with weight_by_confidence; 0 where t < 0 or t = ignore_value

    Shapes:
        x  (N, ...)  bottom 0: a logit for each head of each item
        t  (N, ...)  bottom 1: the probability that a teacher or a person gives; below 0 where
                     nobody has said. As many elements as x
        L  ()        top 0
    Parameters: temperature T (1), positive, may be scheduled; weight_by_confidence (false);
        ignore_value (none); loss_param: normalization (VALID): Z is the number of entries (FULL),
        of those that are labelled (VALID), N (BATCH_SIZE) or 1 (NONE); at least 1. Weights do not
        change Z.
    Gradient: from the op rules, T/Z · w · (σ(x / T) − t_T); the targets get none.
    Differs from Caffe: the layer is kdnet's own. With no parameter and no target below 0 it is
        SigmoidCrossEntropyLoss with normalization FULL.
    Faults: a temperature that is not positive; shapes with different numbers of elements;
        ignore_label: say ignore_value.
    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", equation
        1 for two classes; the weights are kdnet's own.
    """

    roles = ("binary logits", "target")

    def check(self, x: Tensor, target: Tensor) -> None:
        """A usable temperature and as many targets as predictions."""
        temperature = self.params.temperature
        self.require(
            0 < temperature < float("inf"),
            at="temperature",
            say=f"must be positive, not {temperature:g}",
        )
        self.require_shape(x.rank > 0, bottom=0, say="a single number has no batch axis")
        self.require_shape(
            x.size == target.size and x.shape[:1] == target.shape[:1],
            bottom=1,
            say=f"targets of shape {target.shape} for predictions of shape {x.shape}",
            help="both bottoms must have the same shape",
        )
        if self.ignore is not None:
            span = self.model.source.span(("loss_param", "ignore_label"))
            self.fail(
                "bad-parameter",
                "ignore_label: soft labels are no classes",
                span,
                "leave entries out with a target below 0, or with ignore_value",
            )

    def emit(self, g: Emitter, x: Tensor, target: Tensor) -> Tensor:
        """Softplus(x) − x·t, weighed; what is left out counts as a target of 0 until then."""
        temperature = self.scalar(g, "temperature")
        given = g.reshape(g.stop_gradient(target), x.shape)
        ignored = g.less(given, 0.0)
        if self.params.HasField("ignore_value"):
            ignored = g.op("Or", ignored, g.equal(given, float(self.params.ignore_value)))
        known = g.where(ignored, 0.0, given)
        soft = softened(g, x, temperature)
        t = self._tempered(g, known, temperature)
        terms = g.sub(g.op("Softplus", soft), g.mul(soft, t))
        if self.params.weight_by_confidence:
            terms = g.mul(terms, g.mul(g.square(g.sub(known, 0.5)), 4.0))
        total = g.sum_all(g.where(ignored, 0.0, terms))
        loss = self.normalized(g, total, positions=x.size, items=x.shape[0], ignored=ignored)
        return times_t2(g, loss, temperature)

    def _tempered(self, g: Emitter, p: Tensor, temperature: Tensor) -> Tensor:
        """σ(logit(p) / T), the larger of the two powers divided by itself."""
        if temperature.value is not None and float(temperature.value) == 1:
            return p
        q = g.sub(1.0, p)
        larger = g.maximum(p, q)
        exponent = g.div(1.0, temperature)
        yes, no = (g.pow(g.div(part, larger), exponent) for part in (p, q))
        return g.div(yes, g.add(yes, no))
