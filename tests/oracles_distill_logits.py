"""What each distillation loss between logits computes, in numpy float64, from the papers.

Nothing here imports kdnet. Class scores come as matrices of predictions by classes unless
``axis`` says where the classes are.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def by_class(z: Array, axis: int = 1) -> Array:
    return np.moveaxis(z, axis, -1).reshape(-1, z.shape[axis])


def divisor(mode: str, *, predictions: int, counted: int, items: int) -> int:
    return max({"FULL": predictions, "VALID": counted, "BATCH_SIZE": items, "NONE": 1}[mode], 1)


def _divided(
    terms: Array, items: int, mode: str, labels: Array | None = None, ignore: int | None = None
) -> Array:
    """The sum of terms, one a prediction, over what loss_param says."""
    kept = np.ones(len(terms), bool) if ignore is None else labels.reshape(-1) != ignore
    count = divisor(mode, predictions=len(terms), counted=int(kept.sum()), items=items)
    return np.asarray(terms[kept].sum() / count)


def _standard(z: Array) -> Array:
    return (z - z.mean(axis=1, keepdims=True)) / (z.std(axis=1, ddof=1, keepdims=True) + 1e-7)


def kl(p: Array, q: Array) -> Array:
    """By prediction, with 0 · ln 0 = 0."""
    safe = np.where(p > 0, p, 1.0)
    return np.sum(p * (np.log(safe) - np.log(q)), axis=-1)


def divergence(name: str, p: Array, q: Array) -> Array:
    """By prediction; p is the teacher's."""
    if name == "CROSS_ENTROPY":
        return -np.sum(p * np.log(q), axis=-1)
    if name == "KL":
        return kl(p, q)
    if name == "REVERSE_KL":
        return kl(q, np.maximum(p, float(np.finfo(np.float32).tiny)))
    mean = (p + q) / 2
    return (kl(p, mean) + kl(q, mean)) / 2


def teacher_student(
    student: Array,
    *teachers: Array,
    temperature: float = 1.0,
    name: str = "CROSS_ENTROPY",
    squared: bool = True,
    ensemble: str = "PROBABILITIES",
    weights: tuple[float, ...] = (),
    answers: str = "LOGITS",
    standardize: bool = False,
    axis: int = 1,
    mode: str = "VALID",
) -> Array:
    ready = _standard if standardize else np.asarray
    z = ready(by_class(student, axis))
    shares = np.array(weights or [1.0] * len(teachers))
    shares = shares / shares.sum()
    given = [by_class(teacher, axis) for teacher in teachers]
    if answers == "PROBABILITIES":
        powers = [r ** (1 / temperature) for r in given]
        parts = [power / power.sum(axis=1, keepdims=True) for power in powers]
    elif ensemble == "LOGITS":
        mean = sum(share * ready(t) for share, t in zip(shares, given, strict=True))
        parts, shares = [softmax(mean / temperature)], [1.0]
    else:
        parts = [softmax(ready(t) / temperature) for t in given]
    p = sum(share * part for share, part in zip(shares, parts, strict=True))
    terms = divergence(name, p, softmax(z / temperature))
    items = int(np.prod(student.shape[: axis % student.ndim]))
    return _divided(terms, items, mode) * (temperature**2 if squared else 1)


def logits_mse(student: Array, teacher: Array, *, mode: str = "VALID") -> Array:
    count = divisor(mode, predictions=student.size, counted=student.size, items=len(student))
    return np.asarray(np.sum((student - teacher) ** 2) / count)


def decoupled(
    student: Array,
    teacher: Array,
    labels: Array,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    axis: int = 1,
    standardize: bool = False,
    mode: str = "VALID",
    ignore: int | None = None,
) -> Array:
    ready = _standard if standardize else np.asarray
    z_s, z_t = (ready(by_class(z, axis)) / temperature for z in (student, teacher))
    terms = []
    for a, b, y in zip(z_s, z_t, labels.reshape(-1).astype(int), strict=True):
        q, p = softmax(a), softmax(b)
        target = kl(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]]))
        others = kl(softmax(np.delete(b, y)), softmax(np.delete(a, y)))
        terms.append(alpha * target + beta * others)
    items = int(np.prod(student.shape[: axis % student.ndim]))
    return _divided(np.array(terms), items, mode, labels, ignore) * temperature**2


def pearson(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-8))


def dist(
    student: Array,
    teacher: Array,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    axis: int = 1,
) -> Array:
    q, p = (softmax(by_class(z, axis) / temperature) for z in (student, teacher))
    rows = np.mean([pearson(a, b) for a, b in zip(q, p, strict=True)])
    columns = np.mean([pearson(a, b) for a, b in zip(q.T, p.T, strict=True)])
    return np.asarray(temperature**2 * (beta * (1 - rows) + gamma * (1 - columns)))


def multi_level(
    student: Array,
    teacher: Array,
    *,
    temperatures: tuple[float, ...] = (4.0, 3.0, 5.0, 2.0, 6.0),
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    masked: bool = False,
    standardize: bool = False,
    axis: int = 1,
) -> Array:
    z_s, z_t = by_class(student, axis), by_class(teacher, axis)
    items = classes = 1.0
    if masked:
        sure = softmax(z_t)
        best, total = sure.max(axis=1), sure.sum(axis=0)
        items = np.mean(best <= np.percentile(best, 50))
        classes = np.mean(total <= np.percentile(total, 50))
    ready = _standard if standardize else np.asarray
    value = 0.0
    for t in temperatures:
        q, p = softmax(z_s / t), softmax(z_t / t)
        apart = kl(softmax(ready(z_t) / t), softmax(ready(z_s) / t)).mean() * t**2
        batch = np.sum((p @ p.T - q @ q.T) ** 2) / len(p)
        classwise = np.sum((p.T @ p - q.T @ q) ** 2) / p.shape[1]
        value += weights[0] * items * apart
        value += weights[1] * items * batch + weights[2] * classes * classwise
    return np.asarray(value)


def _smoothed(logits: Array, labels: Array, correct: float) -> Array:
    classes = logits.shape[1]
    u = np.full(logits.shape, (1 - correct) / (classes - 1))
    u[np.arange(len(u)), np.clip(labels.reshape(-1).astype(int), 0, classes - 1)] = correct
    return u


def label_smoothing(
    logits: Array,
    labels: Array,
    *,
    correct: float = float(np.float32(0.9)),
    axis: int = 1,
    mode: str = "VALID",
    ignore: int | None = None,
) -> Array:
    z = by_class(logits, axis)
    terms = -np.sum(_smoothed(z, labels, correct) * np.log(softmax(z)), axis=1)
    items = int(np.prod(logits.shape[: axis % logits.ndim]))
    return _divided(terms, items, mode, labels, ignore)


def teacher_free(
    logits: Array,
    labels: Array,
    *,
    correct: float = float(np.float32(0.99)),
    temperature: float = 20.0,
    axis: int = 1,
    mode: str = "VALID",
    ignore: int | None = None,
) -> Array:
    z = by_class(logits, axis)
    terms = kl(softmax(_smoothed(z, labels, correct) / temperature), softmax(z))
    items = int(np.prod(logits.shape[: axis % logits.ndim]))
    return _divided(terms / z.shape[1], items, mode, labels, ignore)


def soft_label_sigmoid(
    x: Array,
    target: Array,
    *,
    temperature: float = 1.0,
    confident: bool = False,
    ignore: float | None = None,
    mode: str = "VALID",
) -> Array:
    t = target.reshape(x.shape)
    known = (t >= 0) & (t != ignore)
    given = np.where(known, t, 0.5)
    powers = given ** (1 / temperature), (1 - given) ** (1 / temperature)
    soft = powers[0] / (powers[0] + powers[1])
    q = 1 / (1 + np.exp(-x / temperature))
    terms = -(soft * np.log(q) + (1 - soft) * np.log(1 - q))
    terms = terms * (4 * (given - 0.5) ** 2 if confident else 1.0)
    count = divisor(mode, predictions=x.size, counted=int(known.sum()), items=len(x))
    return np.asarray(terms[known].sum() / count * temperature**2)


def weighted_soft_labels(
    student: Array,
    teacher: Array,
    labels: Array,
    *,
    temperature: float = 2.0,
    axis: int = 1,
    mode: str = "VALID",
    ignore: int | None = None,
) -> Array:
    z_s, z_t = by_class(student, axis), by_class(teacher, axis)
    classes = np.clip(labels.reshape(-1).astype(int), 0, z_s.shape[1] - 1)
    at = np.arange(len(z_s)), classes
    ratio = np.log(softmax(z_s))[at] / (np.log(softmax(z_t))[at] - 1e-7)
    crossed = divergence("CROSS_ENTROPY", softmax(z_t / temperature), softmax(z_s / temperature))
    terms = (1 - np.exp(-ratio)) * crossed
    items = int(np.prod(student.shape[: axis % student.ndim]))
    return _divided(terms, items, mode, labels, ignore) * temperature**2


def curriculum_temperature(
    student: Array,
    teacher: Array,
    theta: Array,
    *,
    minimum: float = 1.0,
    width: float = 20.0,
    axis: int = 1,
    mode: str = "VALID",
) -> Array:
    t = minimum + width / (1 + np.exp(-float(theta[0])))
    return teacher_student(student, teacher, temperature=t, name="KL", axis=axis, mode=mode)
