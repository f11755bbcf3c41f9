"""Exported models run: compared with the trained net, timed, and scored."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray

from kdnet.compile import Program
from kdnet.compile.deploy.batch import batched
from kdnet.compile.deploy.branches import Label
from kdnet.compile.deploy.making import Deploy, Preprocess
from kdnet.compile.evaluation import compile_evaluation
from kdnet.data import Feeder, Source
from kdnet.errors import RunError, fail
from kdnet.runtime.device import CPU_PROVIDER, Device, onnxruntime
from kdnet.runtime.engine import FATAL, Engine, thread_count
from kdnet.runtime.failures import session_failure, step_failure
from kdnet.runtime.state import StateBuffers
from kdnet.weights import philox

Array = NDArray[Any]
Shape = tuple[int, ...]
TOLERANCE = 1e-4
WARM_UP = 3
CHECKED_BATCHES = (1, 3)
# Raw images hold whole grey levels.
LEVELS = 256


class Exported:
    """A session of an exported file, as whoever gets it would make one.

    Args:
        path: the file.
        model: what it holds; its nodes know their prototxt positions.
        device: where it runs.
    """

    def __init__(self, path: str, model: onnx.ModelProto, device: Device) -> None:
        self.model = model
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.log_severity_level = FATAL
        # Reshaping by the batch is arithmetic on whole numbers, which CUDA leaves to the CPU.
        providers = [*device.providers, CPU_PROVIDER] if device.kind == "cuda" else [CPU_PROVIDER]
        try:
            self._session = ort.InferenceSession(path, options, providers=providers)
        except Exception as error:
            raise session_failure(error, model, str(device)) from error

    def run(self, feeds: Mapping[str, Array]) -> Array:
        """The model's output.

        Raises:
            RunError: what the runtime said.
        """
        try:
            found: list[Array] = self._session.run(None, dict(feeds))
        except Exception as error:
            raise step_failure(error, self.model) from error
        return found[0]


def trained_output(
    program: Program, values: Mapping[str, Array], feeds: Mapping[str, Array], blob: str = ""
) -> Array:
    """The report ``blob`` of an evaluation program, else its first."""
    engine = Engine(program, Device("cpu"), values)
    found = engine.run(StateBuffers(Device("cpu"), {}), feeds, keep=False)
    wanted = (report for report in program.reports if report.blob == blob)
    return found[next(wanted, program.reports[0]).output]


def check_export(
    exported: Exported,
    deploy: Deploy,
    values: Mapping[str, Array],
    batch: Mapping[str, Array] | None,
    preprocess: Mapping[str, Preprocess],
) -> dict[int, float]:
    """The largest relative difference from the trained net by batch size.

    At the net's own batch size the TEST net itself runs, with its own graph; at others the deploy
    definition, unfolded. A difference is relative to the largest value of the output.

    Args:
        exported: the model, with ``preprocess`` inside.
        deploy: what it was made of.
        values: arrays by the names of the trained net's weights.
        batch: a batch of the net's inputs; random where there is none, or with ``preprocess``.
        preprocess: what the model does to its inputs first, by name.

    Raises:
        RunError: export-mismatch.
    """
    program = deploy.trained.program
    own = next(iter(program.data.values()))[0]
    found = {}
    for size in dict.fromkeys((*CHECKED_BATCHES, own)):
        fed = None if preprocess or size != own else batch
        raw = fed or _random(batched(deploy.inputs, size), preprocess)
        feeds = {
            name: preprocess[name].apply(array) if name in preprocess else array
            for name, array in raw.items()
        }
        wanted = _trained(deploy, values, feeds, whole=size == own)
        if not np.isfinite(wanted).all():
            _refuse(deploy, "the trained net itself gives values that are not finite")
        found[size] = _difference(exported.run(raw), wanted)
    worst = max(found.values())
    if not worst <= TOLERANCE:
        told = ", ".join(f"{value:.2g} at batch {size}" for size, value in found.items())
        most = f"at most {TOLERANCE:g} of the largest output is allowed"
        _refuse(deploy, f"the exported model differs from the trained net: {told}", most)
    return found


def _refuse(deploy: Deploy, why: str, *hints: str) -> NoReturn:
    text = f'"{deploy.head.blob}": {why}'
    fail(RunError, "export-mismatch", text, span=deploy.head.span, help=hints)


def _random(shapes: Mapping[str, Shape], preprocess: Mapping[str, Preprocess]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for name, shape in shapes.items():
        stream = philox(0, "export", name, shape[0])
        if name in preprocess:
            found[name] = stream.integers(0, LEVELS, shape).astype(np.float32)
        else:
            found[name] = stream.standard_normal(shape, np.float32)
    return found


def _trained(
    deploy: Deploy, values: Mapping[str, Array], feeds: Mapping[str, Array], *, whole: bool
) -> Array:
    if whole:
        fed = {trained: feeds[name] for name, trained in deploy.fed.items()}
        scores = trained_output(deploy.trained.program, values, fed)
        return _softmax(scores, deploy.head.axis) if deploy.softmax else scores
    shapes = {name: array.shape for name, array in feeds.items()}
    evaluation = compile_evaluation(deploy.net, input_shapes=shapes)
    return trained_output(evaluation.program, deploy.own_values(values), feeds, deploy.output)


def _softmax(scores: Array, axis: int) -> Array:
    wide = np.exp(scores.astype(np.float64) - scores.max(axis=axis, keepdims=True))
    return np.asarray(wide / wide.sum(axis=axis, keepdims=True))


def _difference(found: Array, wanted: Array) -> float:
    """Relative to the largest wanted value; infinite where something is not finite."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    largest = float(np.abs(wanted).max(initial=0.0))
    distance = float(np.abs(found.astype(np.float64) - wanted).max(initial=0.0))
    return distance / max(largest, float(np.finfo(np.float32).tiny))


@dataclass(frozen=True)
class Latency:
    """Milliseconds a run: the median, the 10th and the 90th percentile."""

    median_ms: float
    low_ms: float
    high_ms: float


def measure_latency(
    exported: Exported, inputs: Mapping[str, Shape], *, batch: int, runs: int
) -> Latency:
    """Time ``runs`` runs at one batch size, after a few that do not count."""
    feeds = _random(batched(inputs, batch), {})
    times = []
    for index in range(WARM_UP + runs):
        began = time.perf_counter()
        exported.run(feeds)
        if index >= WARM_UP:
            times.append((time.perf_counter() - began) * 1e3)
    low, median, high = np.percentile(times, (10, 50, 90))
    return Latency(float(median), float(low), float(high))


@dataclass(frozen=True)
class Contender:
    """A model to score: the session, its inputs' names by data top, and where its labels are."""

    exported: Exported
    fed: Mapping[str, str]
    label: Label


@dataclass
class Tally:
    """Right answers among those counted."""

    right: int = 0
    counted: int = 0

    @property
    def share(self) -> float:
        """Top-1 accuracy; 0 where nothing was counted."""
        return self.right / self.counted if self.counted else 0.0


def score(
    contenders: Iterable[Contender], sources: Sequence[Source], iterations: int
) -> list[Tally]:
    """Top-1 of each contender over the same batches; a tie counts against it, as in Accuracy."""
    named = list(contenders)
    tallies = [Tally() for _ in named]
    with Feeder(sources) as feeder:
        for _ in range(iterations):
            batch = feeder.next()
            for contender, tally in zip(named, tallies, strict=True):
                _count(contender, batch, tally)
    return tallies


def _count(contender: Contender, batch: Mapping[str, Array], tally: Tally) -> None:
    feeds = {name: batch[top] for name, top in contender.fed.items()}
    scores = np.moveaxis(contender.exported.run(feeds), contender.label.axis, -1)
    labels = batch[contender.label.blob].reshape(scores.shape[:-1]).astype(np.int64)
    known = (labels >= 0) & (labels < scores.shape[-1])
    if contender.label.ignore is not None:
        known &= labels != contender.label.ignore
    scores, labels = scores[known], labels[known]
    own = np.take_along_axis(scores, labels[:, None], axis=-1)
    tally.right += int(((scores >= own).sum(axis=-1) == 1).sum())
    tally.counted += len(labels)
