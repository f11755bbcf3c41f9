"""What an exported net's inputs are: the pixels' way from a file to the blob."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdnet.compile.deploy.making import Deploy, Preprocess
from kdnet.data.located import blamed_on, existing
from kdnet.data.mean import read_mean
from kdnet.errors import UsageError, WeightsError, fail
from kdnet.net import LayerModel
from kdnet.version import __version__

PARAM = "transform_param"


def image_layers(deploy: Deploy) -> dict[str, LayerModel]:
    """The data layer of each input that it transforms, by the input's name."""
    layers = {
        layer.tops[0]: layer
        for layer in deploy.trained.net.layers
        if layer.tops and layer.message.HasField(PARAM)
    }
    return {name: layers[top] for name, top in deploy.fed.items() if top in layers}


def preprocessing(deploy: Deploy) -> dict[str, Preprocess]:
    """The arithmetic of each input's transform_param; crops and mirrors are left to the caller.

    Raises:
        DataError: missing-data-source, bad-mean-file.
    """
    found = {}
    for name, layer in image_layers(deploy).items():
        param = layer.message.transform_param
        mean = None
        if param.HasField("mean_file"):
            path = existing(layer, param.mean_file, PARAM, "mean_file")
            with blamed_on(layer, PARAM, "mean_file"):
                mean = _centre(read_mean(path), deploy.inputs[name])
        elif param.mean_value:
            mean = np.array(param.mean_value, np.float32).reshape(-1, 1, 1)
        found[name] = Preprocess(mean, param.scale)
    return {name: each for name, each in found.items() if not each.is_nothing}


def _centre(mean: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The middle of a mean image, where TEST crops."""
    height, width = shape[2:]
    top, left = (mean.shape[1] - height) // 2, (mean.shape[2] - width) // 2
    return mean[:, top : top + height, left : left + width]


def described(deploy: Deploy) -> dict[str, dict[str, object]]:
    """By input name, what transform_param says, in its own words."""
    found = {}
    for name, layer in image_layers(deploy).items():
        param = layer.message.transform_param
        said: dict[str, object] = {}
        if param.HasField("mean_file"):
            said["mean_file"] = param.mean_file
        if param.mean_value:
            said["mean_value"] = [float(value) for value in param.mean_value]
        if param.scale != 1:
            said["scale"] = param.scale
        if param.crop_size:
            said["crop_size"] = param.crop_size
        found[name] = said
    return {name: said for name, said in found.items() if said}


def heading(deploy: Deploy, path: str) -> str:
    """The first lines of a deploy definition: where it comes from and what it takes."""
    lines = [f'# Blob "{deploy.head.blob}" of {Path(path).name}, written by kdnet {__version__}.']
    for name, said in described(deploy).items():
        told = ", ".join(f"{key} {_words(value)}" for key, value in said.items())
        lines.append(f'# Images become "{name}" as (x - mean) * scale: {told}.')
    return "".join(f"{line}\n" for line in lines)


def _words(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{each:g}" for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def metadata(
    deploy: Deploy, preprocess: Mapping[str, Preprocess], classes: tuple[str, ...]
) -> dict[str, str]:
    """The model's metadata_props: JSON values under ``kdnet.`` keys."""
    found: dict[str, object] = {
        "version": __version__,
        "net": deploy.net.name,
        "head": deploy.head.blob,
        "inputs": described(deploy),
        "preprocess": sorted(preprocess),
        "softmax": deploy.softmax,
    }
    if classes:
        found["classes"] = list(classes)
    return {f"kdnet.{key}": json.dumps(value) for key, value in found.items()}


def read_classes(path: str) -> tuple[str, ...]:
    """The class names of a file with one a line.

    Raises:
        UsageError: unreadable-classes.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        fail(UsageError, "unreadable-classes", f'cannot read class names from "{path}": {reason}')
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def check_classes(deploy: Deploy, classes: tuple[str, ...]) -> None:
    """Refuse another number of names than the head has classes.

    Raises:
        WeightsError: class-count.
    """
    shape, axis = deploy.shape, deploy.head.axis
    count = shape[axis] if len(shape) > axis else 0
    if classes and len(classes) != count:
        text = f'{len(classes)} class names for "{deploy.head.blob}" of {count} classes'
        fail(WeightsError, "class-count", text, span=deploy.head.span)
