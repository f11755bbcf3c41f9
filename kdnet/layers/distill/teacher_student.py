"""TeacherStudentCrossEntropy: the loss that joins a student to its teachers."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import ANY, layer
from kdnet.layers.distill.soft_targets import (
    SoftTargetLoss,
    log_of,
    softened,
    standardized,
    times,
    times_t2,
)
from kdnet.schema import kdnet_pb2 as pb

Kinds = pb.TeacherStudentCrossEntropyParameter


@layer(
    "TeacherStudentCrossEntropy", params="teacher_student_cross_entropy_param", bottoms=(2, ANY)
)
class TeacherStudentCrossEntropy(SoftTargetLoss):
    """Compare the softened class probabilities of a student with those of its teachers.

        p = softmax(z_t / T),  q = softmax(z_s / T)
        L = T²/Z · Σ_n D(p[n], q[n])
        D = Σ_k −p[k] · ln q[k]                                      CROSS_ENTROPY
            Σ_k p[k] · ln(p[k] / q[k])                               KL
            Σ_k q[k] · ln(q[k] / p[k])                               REVERSE_KL
            Σ_k (p[k] · ln(p[k] / m[k]) + q[k] · ln(q[k] / m[k])) / 2,  m = (p + q) / 2     JS

    Shapes:
        z_s  (N..., C, M...)  bottom 0: the student's logits; the class axis is ``axis``
        z_t  (N..., C, M...)  bottom 1 and all that follow: the logits of each teacher
        L    ()               top 0
    Parameters: temperature T (1), positive; scale_by_t2 (true) keeps the size of the gradient
        when T changes, of every divergence; divergence (CROSS_ENTROPY); axis (1);
        ensemble (PROBABILITIES): of several teachers p = Σ_i w_i · softmax(z_i / T), or with
        LOGITS p = softmax(Σ_i w_i · z_i / T); teacher_weight w (all the same), one a teacher,
        divided by their sum; teacher (LOGITS): with PROBABILITIES the teachers' bottoms hold
        probabilities r, and p = r^(1/T) / Σ r^(1/T), which is softmax(ln r / T) with zeros
        allowed; standardize (false): each vector of logits z is first (z − mean) / (std + 1e-7)
        over its classes, std with divisor C − 1; loss_param: normalization (VALID): Z is the
        number of predictions N·M (FULL, VALID), N (BATCH_SIZE) or 1 (NONE)
    Gradient: from the op rules; of CROSS_ENTROPY and KL it is T/Z · (q − p) to the student's
        logits where these are not standardised. The teachers get none. Standardised logits that
        are all equal multiply their gradient by 10⁷: do not fill the last layer with zeros.
    Differs from Caffe: the layer is kdnet's own. It takes logits, not probabilities. Where p is
        a mean or given, ln p is not less than ln 2⁻¹²⁶.
    Faults: a temperature that is not positive; bottoms of different shapes; axis out of range;
        weights that are negative, all 0 or not one a teacher; PROBABILITIES together with
        standardize or with the mean of LOGITS; standardize with a single class;
        ignore_label, since there are no labels.
    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network",
        equations 2 to 4 and section 2. Sun et al. 2024, "Logit Standardization in Knowledge
        Distillation", algorithm 1.
    """

    def check(self, student: Tensor, *teachers: Tensor) -> None:
        """A usable temperature, logits that match, and a weight for each teacher."""
        self.check_positive("temperature")
        self.check_logits(student, *teachers, classes=1 + self.params.standardize)
        self.refuse_ignored()
        self._check_teacher_weights(len(teachers))
        if self.params.teacher == Kinds.PROBABILITIES:
            self.require(
                not self.params.standardize,
                at="standardize",
                say="probabilities are not standardised; only logits are",
            )
            self.require(
                self.params.ensemble == Kinds.PROBABILITIES,
                at="ensemble",
                say="teachers that answer with probabilities have no logits to average",
            )

    def _check_teacher_weights(self, teachers: int) -> None:
        given = self.params.teacher_weight
        self.require(
            len(given) in (0, teachers),
            at="teacher_weight",
            say=f"{len(given)} given for {teachers} teachers",
            help="give none, or one for each bottom after the first",
        )
        for index, weight in enumerate(given):
            self.require(
                0 <= weight < float("inf"),
                at=f"teacher_weight.{index}",
                say=f"must be 0 or more, not {weight:g}",
            )
        self.require(
            not given or sum(given) > 0, at="teacher_weight", say="at least one must be positive"
        )

    def emit(self, g: Emitter, student: Tensor, *teachers: Tensor) -> Tensor:
        """The divergence with the teachers' side constant."""
        axis = self.axis(student, self.params.axis)
        temperature = self.scalar(g, "temperature")
        p, log_p = self._taught(g, [g.stop_gradient(z) for z in teachers], temperature)
        log_q = g.log_softmax(softened(g, self._logits(g, student, axis), temperature), axis)
        crossed = self.params.divergence == Kinds.CROSS_ENTROPY
        terms = g.mul(p, log_q) if crossed else self._terms(g, p, log_p, log_q)
        loss = self.over_predictions(g, terms, student, factor=-1.0 if crossed else 1.0)
        return times_t2(g, loss, temperature) if self.params.scale_by_t2 else loss

    def _terms(self, g: Emitter, p: Tensor, log_p: Tensor | None, log_q: Tensor) -> Tensor:
        """The summands of a divergence other than the cross entropy."""
        log_p = log_of(g, p) if log_p is None else log_p
        if self.params.divergence == Kinds.KL:
            return g.mul(p, g.sub(log_p, log_q))
        q = g.exp(log_q)
        if self.params.divergence == Kinds.REVERSE_KL:
            return g.mul(q, g.sub(log_q, log_p))
        log_m = log_of(g, g.mul(g.add(p, q), 0.5))
        apart = g.add(g.mul(p, g.sub(log_p, log_m)), g.mul(q, g.sub(log_q, log_m)))
        return g.mul(apart, 0.5)

    def _taught(
        self, g: Emitter, teachers: list[Tensor], temperature: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The teachers' probabilities, and their logarithm where it is exact and needed."""
        axis = self.axis(teachers[0], self.params.axis)
        if self.params.teacher == Kinds.PROBABILITIES:
            parts = [_tempered(g, r, temperature, axis) for r in teachers]
            return self._averaged(g, parts), None
        logits = [self._logits(g, z, axis) for z in teachers]
        if self.params.ensemble == Kinds.LOGITS:
            logits = [self._averaged(g, logits)]
        soft = [softened(g, z, temperature) for z in logits]
        p = self._averaged(g, [g.softmax(z, axis) for z in soft])
        exact = len(soft) == 1 and self.params.divergence != Kinds.CROSS_ENTROPY
        return p, g.log_softmax(soft[0], axis) if exact else None

    def _logits(self, g: Emitter, logits: Tensor, axis: int) -> Tensor:
        return standardized(g, logits, axis) if self.params.standardize else logits

    def _averaged(self, g: Emitter, parts: list[Tensor]) -> Tensor:
        """The weighted mean of what the teachers say; the one thing where there is one."""
        if len(parts) == 1:
            return parts[0]
        weights = list(self.params.teacher_weight) or [1.0] * len(parts)
        shares = [g.constant(weight / sum(weights)) for weight in weights]
        mean, *others = (times(g, part, share) for part, share in zip(parts, shares, strict=True))
        for part in others:
            mean = g.add(mean, part)
        return mean


def _tempered(g: Emitter, r: Tensor, temperature: Tensor, axis: int) -> Tensor:
    """``r^(1/T)`` made to sum to 1; the largest is 1 before, so that no power vanishes."""
    if temperature.value is None or float(temperature.value) != 1:
        largest = g.reduce_max(r, [axis], keepdims=True)
        r = g.pow(g.div(r, largest), _inverse(g, temperature))
    return g.div(r, g.reduce_sum(r, [axis], keepdims=True))


def _inverse(g: Emitter, temperature: Tensor) -> Tensor:
    if temperature.value is None:
        return g.div(1.0, temperature)
    return g.constant(1.0 / float(temperature.value))
