"""Keras's HDF5 files: whole models and weights of Keras 2, and ``.weights.h5`` of Keras 3.

Kernels, dense layers, normalisations and recurrent gates become Caffe's by the rules of
:mod:`kdnet.weights.layout`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from kdnet.errors import Diagnostic, Faults, WeightsError, did_you_mean, fail
from kdnet.weights.hdf5 import SIGNATURE, child, kind_of, open_hdf5, read_array
from kdnet.weights.hdf5_texts import read_texts
from kdnet.weights.keras_config import Config, read_config
from kdnet.weights.layout import flatten_to_channels_first, plan
from kdnet.weights.model import Array, LayerBlobs
from kdnet.weights.registry import Stream, weight_format
from kdnet.weights.tensors import Tensor, check_text, corrupt, layers_of

# The arrays of each class of layer, in Keras's order, for files that only number them.
_VARIABLES = {
    **dict.fromkeys(
        [f"conv{axes}d{kind}" for axes in "123" for kind in ("", "_transpose")] + ["dense"],
        ("kernel", "bias"),
    ),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "depthwise_conv2d": ("depthwise_kernel", "bias"),
    "embedding": ("embeddings",),
    "gru": ("kernel", "recurrent_kernel", "bias"),
    "layer_normalization": ("gamma", "beta"),
    "lstm": ("kernel", "recurrent_kernel", "bias"),
    "p_re_lu": ("alpha",),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
}
# Keras leaves gamma, beta or both out: how many arrays there are says which only at the ends.
_STATISTICS = ("moving_mean", "moving_variance")
_NO_WEIGHTS = ("seed_generator", "optimizer", "optimizer_weights", "metrics")
_DEEPEST = 32
_UNKNOWN_FLATTEN = (
    "this file does not say where a Flatten is: the columns of a dense layer behind one are still "
    "in the order of rows, columns, channels"
)
_UNKNOWN_ORDER = (
    'what stands before or within "{}" is not known: columns of dense layers there may be in the '
    "order of rows, columns, channels"
)
_SETTLED = "; kdnet weights convert --flatten LAYER=CHANNELS puts them in Caffe's order"

Group = dict[str, Tensor]


def _is_keras(path: str, head: bytes) -> bool:
    return head.startswith(SIGNATURE) and kind_of(path) == "keras"


@weight_format("keras", sniff=_is_keras)
def read_keras(path: str) -> Stream:
    """Read what Keras's ``save`` and ``save_weights`` write into an .h5 file.

    A dense layer behind a Flatten of channels-last maps gets its columns in Caffe's order where
    the file has the model's configuration; where it has not, a note says so, and the stream's
    ``flattened`` takes it from the user.

    Raises:
        WeightsError: ``foreign-weights`` without arrays, ``truncated-weights``,
            ``corrupt-weights``, ``weights-too-large``.
    """
    with open_hdf5(path) as file:
        config = read_config(next(iter(read_texts(path, file, "model_config")), None))
        found = dict(_named(path, file, config) if _has_names(file) else _numbered(path, file))
    if not any(found.values()):
        fail(WeightsError, "foreign-weights", f'"{path}" is a Keras file without arrays')
    known = config.flattened if config else {}
    doubts = _doubts(config)

    def told(channels: Mapping[str, int]) -> Stream:
        _check_told(path, channels, found, doubts)
        left = [doubts[place] for place in doubts if not any(_is_in(n, place) for n in channels)]
        return Stream("", _layers(path, found, {**known, **channels}), doubts=tuple(left))

    return Stream(
        "",
        _layers(path, found, known),
        doubts=tuple(doubts.values()),
        flattened=told if doubts else None,
    )


def _doubts(config: Config | None) -> dict[str, str]:
    """What is not known, by the layer or the model within which it is not; "" is the whole."""
    if config is None:
        return {"": _UNKNOWN_FLATTEN + _SETTLED}
    return {name: _UNKNOWN_ORDER.format(name) + _SETTLED for name in config.unknown}


def _is_in(name: str, place: str) -> bool:
    return place in ("", name) or name.startswith(f"{place}/")


def _check_told(
    path: str, channels: Mapping[str, int], found: Mapping[str, Group], places: Iterable[str]
) -> None:
    """Refuse what a user says of layers that are none, or of which the file says it.

    Raises:
        WeightsError: ``wrong-flatten``.
    """
    faults = Faults(WeightsError)
    dense = {name: inputs for name, group in found.items() if (inputs := _dense_inputs(group))}
    for name, count in channels.items():
        hint: tuple[str, ...] = ()
        if name not in dense:
            reason = f'it has no dense layer "{name}"'
            hint = did_you_mean(name, dense)
        elif not any(_is_in(name, place) for place in places):
            reason = f'it says itself what dense layer "{name}" flattens'
        elif dense[name] % count:
            reason = f'dense layer "{name}" takes {dense[name]} values, no multiple of {count}'
        else:
            continue
        faults.add(Diagnostic("wrong-flatten", f'"{path}": {reason}', help=hint))
    faults.raise_if_any()


def _dense_inputs(group: Group) -> int:
    """How many values a dense layer takes; 0 for other layers."""
    rules = [rule for rule, _ in plan({leaf: tensor.shape for leaf, tensor in group.items()})]
    is_dense = any(rule is not None and rule.name == "keras/dense" for rule in rules)
    return group["kernel"].shape[0] if is_dense else 0


def _layers(
    path: str, found: Mapping[str, Group], channels: Mapping[str, int]
) -> Iterator[LayerBlobs]:
    with open_hdf5(path):
        for name, group in found.items():
            for layer in layers_of(name, group):
                yield _unflattened(layer, channels.get(layer.name, 0))


def _unflattened(layer: LayerBlobs, channels: int) -> LayerBlobs:
    if not channels or layer.type != "InnerProduct" or layer.blobs[0].shape[1] % channels:
        return layer
    moved = flatten_to_channels_first(layer.blobs[0], channels)
    return replace(layer, blobs=(moved, *layer.blobs[1:]))


def _tensor(path: str, place: str, dataset: Any) -> Tensor:
    """A dataset, known by its place; it is opened again when it is read."""
    check_text(path, place)
    shape = getattr(dataset, "shape", None)
    if shape is None:
        corrupt(path, f'"{place}" is not an array')
    return Tensor(place, shape, dataset.dtype.name, partial(_load, path, place))


def _load(path: str, place: str) -> Array:
    with open_hdf5(path) as file:
        values, _ = read_array(path, f'"{place}"', child(file, place))
    return values


# --- Keras 2: the names are in attributes


def _has_names(file: Any) -> bool:
    return "layer_names" in file.attrs or "model_weights" in file


def _named(path: str, file: Any, config: Config | None) -> Iterator[tuple[str, Group]]:
    place = "" if "layer_names" in file.attrs else "model_weights/"
    root = child(file, place)
    for layer in _names(path, root, "layer_names"):
        group = child(root, layer)
        paths = _names(path, group, "weight_names") if group is not None else []
        kind = config.classes.get(layer, layer) if config else layer
        common = _common([_parts(name)[:-1] for name in paths])
        groups: dict[str, Group] = {}
        for name in paths:
            *parent, leaf = _parts(name)
            full = f"{place}{layer}/{name}"
            if not set(parent) & set(_NO_WEIGHTS):
                inner = groups.setdefault("/".join((layer, *parent[common:])), {})
                inner[_leaf(kind, leaf.removesuffix(":0"))] = _tensor(
                    path, full, child(file, full)
                )
        yield from groups.items()


def _leaf(kind: str, leaf: str) -> str:
    """Keras 3 calls the kernel of a depthwise convolution a kernel, as any other."""
    return "depthwise_kernel" if leaf == "kernel" and "depthwise" in kind.lower() else leaf


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part]


def _common(parents: list[list[str]]) -> int:
    """How many parts all paths begin with."""
    columns = zip(*parents, strict=False)
    return next(
        (at for at, column in enumerate(columns) if len(set(column)) > 1),
        min(map(len, parents), default=0),
    )


def _names(path: str, group: Any, key: str) -> list[str]:
    """The texts of an attribute, which Keras splits into several where it is long."""
    texts = read_texts(path, group, key)
    for index in itertools.count():
        more = read_texts(path, group, f"{key}{index}")
        if not more:
            return texts
        texts += more
    return texts


# --- Keras 3: a group of numbered arrays a layer


def _numbered(path: str, file: Any) -> Iterator[tuple[str, Group]]:
    for parts, variables in _variables(file, ()):
        kept = [part for part in parts if part not in ("layers", "cell")]
        if not kept or set(parts) & set(_NO_WEIGHTS):
            continue
        owner = child(file, "/".join((*parts[:-1], "vars"))) if parts[-1] == "cell" else variables
        title = next(iter(read_texts(path, owner, "name")), "") if owner is not None else ""
        name = "/".join((*kept[:-1], title or kept[-1]))
        leaves = _leaves(re.sub(r"_\d+$", "", kept[-1]), len(variables))
        place = "/".join((*parts, "vars"))
        yield (
            name,
            {
                leaf: _tensor(path, f"{place}/{index}", child(variables, str(index)))
                for index, leaf in enumerate(leaves)
            },
        )


def _variables(group: Any, parts: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every group ``vars`` with arrays, and the names that lead to it."""
    import h5py

    for name in group if len(parts) < _DEEPEST else ():
        found = child(group, name)
        if not isinstance(found, h5py.Group):
            continue
        if name != "vars":
            yield from _variables(found, (*parts, name))
        elif len(found):
            yield parts, found


def _leaves(kind: str, count: int) -> tuple[str, ...]:
    """What the arrays of a layer of this class are; numbers where that is not certain."""
    known = _VARIABLES.get(kind, ())
    if kind == "batch_normalization" and count != len(known):
        known = _STATISTICS if count == len(_STATISTICS) else ()
    if len(known) < count or count < len(known) - 1:
        return tuple(map(str, range(count)))
    return known[:count]
