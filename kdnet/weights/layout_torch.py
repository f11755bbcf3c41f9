"""How Caffe's layers become the state dict of a PyTorch module: the rules the other way round.

Weights, biases and kernels lie in the same order in both. What differs is normalisation: Caffe
keeps sums of statistics and the factor to divide them by, and gamma and beta in a Scale layer
behind; PyTorch keeps statistics, gamma and beta in one module. And a recurrent layer: PyTorch has
the cell's value before the output gate, and a second bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from kdnet.weights.layout import GATES_IFGO, blocks
from kdnet.weights.lazy_numpy import np
from kdnet.weights.model import Array, LayerBlobs

LOST = (
    "the scale factors of BatchNorm layers, by which their statistics are divided",
    "the names of Scale layers behind BatchNorm layers",
    "layer types and messages, and the net's name",
)


def to_torch(layers: Iterable[LayerBlobs]) -> Iterator[tuple[LayerBlobs, tuple[str, ...]]]:
    """Layers as they come, and PyTorch's names of their arrays.

    A BatchNorm becomes ``running_mean`` and ``running_var``, sums divided by their factor (a
    factor of 0, of a net that never ran, leaves zeros, as in Caffe). The Scale that follows it
    becomes ``weight`` and ``bias`` of the same module. An LSTM without static input becomes
    ``weight_ih_l0`` and so on, its rows in PyTorch's order of gates and its second bias 0.
    """
    norm: LayerBlobs | None = None
    for layer in layers:
        if layer.type == "BatchNorm" and len(layer.blobs) == 3:
            norm = replace(layer, blobs=_statistics(*layer.blobs))
            yield norm, (f"{layer.name}.running_mean", f"{layer.name}.running_var")
            continue
        if _is_lstm(layer):
            yield _lstm(layer)
            continue
        owner = layer.name
        if norm is not None and _belongs(norm, layer):
            owner = norm.name
        # Layers without arrays may stand between; in a state dict there is nothing of them.
        norm = norm if not layer.blobs else None
        yield layer, _names(owner, len(layer.blobs))


def _statistics(mean: Array, variance: Array, factor: Array) -> tuple[Array, Array]:
    total = factor.reshape(-1)[0] if factor.size else 0
    if total == 1:
        return mean.reshape(-1), variance.reshape(-1)
    share = np.asarray(0 if total == 0 else 1 / total, mean.dtype)
    return mean.reshape(-1) * share, variance.reshape(-1) * share


def _belongs(norm: LayerBlobs, layer: LayerBlobs) -> bool:
    """Whether the layer scales what the BatchNorm before it makes."""
    if layer.type != "Scale" or not 1 <= len(layer.blobs) <= 2:
        return False
    return all(blob.size == norm.blobs[0].size for blob in layer.blobs)


def _is_lstm(layer: LayerBlobs) -> bool:
    if layer.type != "LSTM" or [blob.ndim for blob in layer.blobs] != [2, 1, 2]:
        return False
    rows, bias, recurrent = (blob.shape for blob in layer.blobs)
    return bool(rows[0] == bias[0] == recurrent[0] == 4 * recurrent[1])


def _lstm(layer: LayerBlobs) -> tuple[LayerBlobs, tuple[str, ...]]:
    # The exchange of the last two gates is its own inverse.
    rows, bias, recurrent = (blocks(blob, GATES_IFGO) for blob in layer.blobs)
    leaves = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    made = replace(layer, blobs=(rows, recurrent, bias, np.zeros_like(bias)))
    return made, tuple(f"{layer.name}.{leaf}" for leaf in leaves)


def _names(owner: str, count: int) -> tuple[str, ...]:
    leaves = ["weight", "bias", *map(str, range(2, count))][:count]
    return tuple(f"{owner}.{leaf}" for leaf in leaves)
