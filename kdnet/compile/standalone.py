"""Programs as files that stand alone: weights inside, and metadata that says what is what."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from errno import EISDIR
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kdnet.compile.program import LOSS, RATE, Program
from kdnet.compile.training import Training
from kdnet.errors import WeightsError, fail
from kdnet.graph import embed_arrays, save_model
from kdnet.version import __version__

Array = NDArray[Any]


def metadata(program: Program, extra: Mapping[str, object]) -> dict[str, str]:
    """The meaning of every input and output as JSON values under ``kdnet.`` keys.

    ``kdnet.state`` maps each state input to the output that replaces it; ``kdnet.data``,
    ``kdnet.noise`` (uniform float32 in [0, 1)), ``kdnet.rate``, ``kdnet.scalars`` and
    ``kdnet.loss`` name the rest; ``kdnet.reports`` maps each reported
    output to its blob and loss weight.
    """
    meaning = {
        "version": __version__,
        "state": {slot.name: slot.following for slot in program.state},
        "data": {name: list(shape) for name, shape in program.data.items()},
        "noise": {slot.name: list(slot.shape) for slot in program.noise},
        "reads": list(program.reads),
        "rate": RATE if program.has_rate else None,
        "scalars": [slot.name for slot in program.scalars],
        "loss": LOSS if program.has_loss else None,
        "reports": {
            report.output: {"blob": report.blob, "loss_weight": report.loss_weight}
            for report in program.reports
        },
        **extra,
    }
    return {f"kdnet.{key}": json.dumps(value) for key, value in meaning.items()}


def standalone(
    program: Program, values: Mapping[str, Array], extra: Mapping[str, object] | None = None
) -> onnx.ModelProto:
    """A copy of the program's model that needs no other file.

    Frozen weights become initializers. State inputs and inputs that are only read keep their
    place as inputs and get ``values`` as defaults: zeros where there is none, as for history.
    """
    shapes = {slot.name: slot.shape for slot in program.state}
    defaults = {
        name: values.get(name, np.zeros(shapes.get(name, ()), np.float32))
        for name in (*shapes, *program.reads)
    }
    frozen = {name: values[name] for name in program.frozen}
    return embed_arrays(program.model, {**frozen, **defaults}, metadata(program, extra or {}))


def write_training(
    training: Training, values: Mapping[str, Array], path: str, extra: Mapping[str, object]
) -> list[str]:
    """Write the step as one file, or (iter_size > 1) as ``.gradient`` and ``.update`` files.

    Returns:
        The paths written.

    Raises:
        WeightsError: cannot-write; what was there before stays whole.
    """
    if training.update is None:
        return _save(standalone(training.main, values, extra), path)
    stem, suffix = str(Path(path).with_suffix("")), Path(path).suffix
    zeros = {slot.name: np.zeros(slot.shape, np.float32) for slot in training.accumulators}
    known = {**values, **zeros}
    written = []
    for name, program in (("gradient", training.main), ("update", training.update)):
        model = standalone(program, known, {**extra, "iter_size": training.iter_size})
        written += _save(model, f"{stem}.{name}{suffix}")
    return written


def _save(model: onnx.ModelProto, path: str) -> list[str]:
    # A symbolic link stays a link: the file that it names is replaced.
    target = Path(os.path.realpath(path) if os.path.islink(path) else path)
    if target.is_dir():
        fail(WeightsError, "cannot-write", f'cannot write "{path}": {os.strerror(EISDIR)}')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".kdnet-", dir=target.parent) as made:
            files = [Path(file) for file in save_model(model, str(Path(made) / target.name))]
            for file in reversed(files):
                file.replace(target.with_name(file.name))
    except OSError as error:
        fail(WeightsError, "cannot-write", f'cannot write "{path}": {error.strerror or error}')
    return [path, *(str(target.with_name(file.name)) for file in files[1:])]
