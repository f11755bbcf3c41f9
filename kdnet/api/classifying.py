"""``kdnet classify``: class scores of images in files, as Caffe's classify.py gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.api.classifier import Classifier
from kdnet.api.mode import set_device, set_mode_cpu, set_mode_gpu
from kdnet.data.mean import read_mean
from kdnet.data.steps import Start, ignore
from kdnet.errors import DataError, UsageError, WeightsError, fail
from kdnet.io import load_image
from kdnet.runtime import choose_device
from kdnet.weights import atomic_write

Array = NDArray[Any]

_NPY_MAGIC = b"\x93NUMPY"
# Ten crops of each image are held at once.
_IMAGES_AT_ONCE = 16


@dataclass(frozen=True)
class ClassifyOptions:
    """What ``kdnet classify`` was asked for; None is what the net itself says.

    Attributes:
        source: an image, an .npy of images, or a folder of them.
        out: the .npy file of scores.
        model: the net.
        weights: its weight files.
        image_dims: height and width before the crop.
        mean: a mean image's file, or a number a channel.
        channel_swap: the order of the channels; () for as they are, None for blue first where
            there are three.
        extensions: of the images in a folder.
    """

    source: Path
    out: Path
    model: str
    weights: tuple[str, ...]
    oversample: bool = True
    image_dims: tuple[int, int] = (256, 256)
    mean: Path | tuple[float, ...] | None = None
    input_scale: float | None = None
    raw_scale: float | None = 255.0
    channel_swap: tuple[int, ...] | None = None
    extensions: tuple[str, ...] = ("jpg",)
    allow_unloaded: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class Classified:
    """The scores of each image, in the order of their names, and the file that has them.

    ``loaded`` says how many layers the weight files filled.
    """

    names: tuple[str, ...]
    scores: Array
    out: Path
    loaded: str


def classify(options: ClassifyOptions, start: Start = ignore) -> Classified:
    """Score images and write the scores.

    Raises:
        UsageError: no-images; bad-images; bad-preprocessing; no-image-input.
        DataError: missing-image, corrupt-image; bad-mean-file.
        WeightsError: unloaded-layers; cannot-write; the faults of weight files.
        KdnetError: the net's faults.
    """
    device, _ = choose_device(options.device)
    if device.kind == "cuda":
        set_device(device.index)
        set_mode_gpu()
    else:
        set_mode_cpu()
    net, loaded = _classifier(options)
    names, load = _images(options, net)
    advance = start(len(names))
    found = []
    for begin in range(0, len(names), _IMAGES_AT_ONCE):
        some = range(begin, min(begin + _IMAGES_AT_ONCE, len(names)))
        found.append(net.predict([load(index) for index in some], options.oversample))
        advance(len(some))
    scores = np.concatenate(found)
    out = options.out if options.out.suffix == ".npy" else Path(f"{options.out}.npy")
    with atomic_write(out) as file:
        np.lib.format.write_array(file, scores)
    return Classified(names, scores, out, loaded)


def _classifier(options: ClassifyOptions) -> tuple[Classifier, str]:
    """The net with its weights, and a sentence on how much of it was loaded.

    Raises:
        UsageError: no-image-input; bad-preprocessing.
        WeightsError: unloaded-layers.
    """
    try:
        net = Classifier(options.model, None, options.image_dims)
    except ValueError as error:
        hint = "name a deploy net: its first layer is of type Input"
        fail(UsageError, "no-image-input", f'"{options.model}": {error}', help=(hint,))
    rows = [row for path in options.weights for row in net.copy_from(path).rows]
    filled = {row.layer for row in rows if row.status == "loaded"}
    empty = [name for name in net.params if name not in filled]
    if empty and not options.allow_unloaded:
        text = f"no file fills {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''}"
        advice = ("name the weights that were trained for this net", "or pass --allow-unloaded")
        fail(WeightsError, "unloaded-layers", text, help=advice)
    try:
        _prepare(options, net)
    except ValueError as error:
        fail(UsageError, "bad-preprocessing", f'"{options.model}": {error}')
    return net, f"{len(net.params) - len(empty)} of {len(net.params)} layers loaded"


def _prepare(options: ClassifyOptions, net: Classifier) -> None:
    """Set the preprocessing; ValueError where it does not fit the net's input."""
    name, transformer = net.inputs[0], net.transformer
    if any(whole < crop for whole, crop in zip(net.image_dims, net.crop_dims, strict=True)):
        raise ValueError(
            f"its input {net.crop_dims} does not fit into images of {tuple(net.image_dims)}: "
            "give larger --images-dim"
        )
    usual = (2, 1, 0) if net.blobs[name].shape[1] == 3 else ()
    swap = usual if options.channel_swap is None else options.channel_swap
    if swap:
        transformer.set_channel_swap(name, swap)
    if options.raw_scale is not None:
        transformer.set_raw_scale(name, options.raw_scale)
    if options.input_scale is not None:
        transformer.set_input_scale(name, options.input_scale)
    if options.mean is not None:
        given = options.mean
        transformer.set_mean(name, mean_array(given) if isinstance(given, Path) else _row(given))


def _row(values: Sequence[float]) -> Array:
    return np.asarray(values, np.float32)


def mean_array(path: Path) -> Array:
    """The mean in an .npy or a .binaryproto file; its content decides.

    Raises:
        DataError: bad-mean-file.
    """
    try:
        with path.open("rb") as file:
            is_array = file.read(len(_NPY_MAGIC)) == _NPY_MAGIC
    except OSError as error:
        fail(DataError, "bad-mean-file", f'cannot read "{path}": {error.strerror}')
    if not is_array:
        return read_mean(path)
    mean = _loaded(path, "bad-mean-file")
    # As files hold it that were made of a BlobProto.
    return mean[0] if mean.ndim == 4 and len(mean) == 1 else mean


def _loaded(path: Path, code: str) -> Array:
    """A real array in an .npy file, mapped, not read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        fail(DataError, code, f'"{path}" is no array of numbers: {error}')
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        fail(DataError, code, f'"{path}" is no array of numbers')
    return array


def _images(
    options: ClassifyOptions, net: Classifier
) -> tuple[tuple[str, ...], Callable[[int], Array]]:
    """The names of the images, and what loads the one of a number: (H, W, K), mostly in [0, 1].

    Raises:
        UsageError: no-images.
        DataError: bad-images.
    """
    channels = net.blobs[net.inputs[0]].shape[1]
    if options.source.suffix == ".npy":
        return _array_images(options.source, channels)
    paths = [options.source]
    if options.source.is_dir():
        paths = list(_in_folder(options.source, options.extensions))
        if not paths:
            text = f'"{options.source}" holds no file that ends with .{options.extensions[0]}'
            fail(UsageError, "no-images", text, help=("--ext says what images end with",))
    names = tuple(str(path) for path in paths)
    return names, lambda index: load_image(paths[index], channels != 1)


def _in_folder(folder: Path, extensions: Sequence[str]) -> Iterator[Path]:
    wanted = {f".{extension.lstrip('.').lower()}" for extension in extensions}
    return (path for path in sorted(folder.iterdir()) if path.suffix.lower() in wanted)


def _array_images(path: Path, channels: int) -> tuple[tuple[str, ...], Callable[[int], Array]]:
    array = _loaded(path, "bad-images")
    images = array[None] if array.ndim == 3 else array
    if images.ndim != 4 or images.shape[3] != channels or not images.size:
        text = f'"{path}" of shape {array.shape} does not hold images (N, H, W, {channels})'
        fail(DataError, "bad-images", text)
    # Bytes are pixels as files hold them; other numbers are taken as they are.
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    names = tuple(f"{path}[{index}]" for index in range(len(images)))
    return names, lambda index: np.asarray(images[index], np.float32) / np.float32(scale)
