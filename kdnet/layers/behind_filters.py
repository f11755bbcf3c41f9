"""Which layers may read what a Filter left of a batch, and what they pass on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdnet.graph import Tensor
from kdnet.layers.base import Layer
from kdnet.layers.batch_norm import BatchNorm
from kdnet.layers.filter import Filter
from kdnet.layers.kept import Kept

CODE = "filtered-batch"
# They sum over the items that are there, and divide by their number.
COUNTING = frozenset(
    {
        *("Accuracy", "ContrastiveLoss", "EuclideanLoss", "HingeLoss", "InfogainLoss"),
        *("MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss"),
        "TeacherStudentCrossEntropy",
    }
)
# Each item of a top is made of the same item of the bottoms, unless an axis of theirs is 0.
BY_ITEM = frozenset(
    {
        *("AbsVal", "ArgMax", "Axpy", "BNLL", "BatchNorm", "Bias", "Clip", "Concat"),
        *("Convolution", "ConvolutionDepthwise", "Crop", "Deconvolution", "DepthwiseConvolution"),
        *("Dropout", "ELU", "Eltwise", "Embed", "Exp", "Flatten", "Im2col", "InnerProduct"),
        *("Interp", "LRN", "Log", "MVN", "Normalize", "PReLU", "Permute", "Pooling", "Power"),
        *("ReLU", "ReLU6", "Reduction", "Reshape", "SPP", "Scale", "ShuffleChannel", "Sigmoid"),
        *("Silence", "Slice", "Softmax", "Split", "Swish", "TanH", "Threshold", "Tile"),
    }
)
# They may mix items only by a top of another extent, which is looked at.
SHAPED = frozenset({"Concat", "Crop", "Flatten", "Reshape", "Slice", "Tile"})
PAIRED = frozenset({"Bias", "Scale"})
# Their other bottoms need not be made of items.
FIRST_ALONE: Mapping[str, int] = {"Bias": 1, "Crop": 1, "InfogainLoss": 2, "Scale": 1}


def receive(layer: Layer, originals: Sequence[Tensor]) -> None:
    """Tell a layer what a Filter left of its bottoms' batch.

    Args:
        layer: the layer, before it is emitted.
        originals: the blobs that it reads, which its bottoms may be copies of.

    Raises:
        LayerError: filtered-batch, where it would not give what it gives for the kept items alone.
    """
    if isinstance(layer, Filter):
        layer.selector = originals[-1]
    found = [layer.trace.kept.get(name) for name in layer.model.bottoms]
    kept = next((one for one in found if one is not None), None)
    if kept is None:
        return
    if layer.type not in COUNTING | BY_ITEM | {"Filter"}:
        _refuse(layer, found, f"no {layer.type} can read what a Filter left of a batch")
    _check_bottoms(layer, found, kept, originals)
    _check_axis(layer, found, originals)
    layer.kept = kept


def pass_on(layer: Layer, bottoms: Sequence[Tensor], tops: Sequence[Tensor]) -> None:
    """Note which tops hold kept items only, and refuse those that mix them with the others."""
    if isinstance(layer, Filter):
        return
    for index, (name, top) in enumerate(zip(layer.model.tops, tops, strict=True)):
        layer.trace.kept.pop(name, None)
        if layer.kept is None or (layer.type in COUNTING and top.shape != bottoms[0].shape):
            continue
        if top.shape[:1] != (layer.kept.items,):
            text = f'top "{name}" of shape {top.shape} mixes the items that a Filter kept with'
            layer.fail(CODE, f"{text} others", layer.model.source.span(("top", index)))
        if any(layer.model.message.loss_weight[index : index + 1]):
            text = f'the sum of top "{name}" would count items that a Filter did not keep'
            layer.fail(CODE, text, layer.model.source.span(("loss_weight", index)))
        layer.trace.kept[name] = layer.kept


def _refuse(layer: Layer, found: Sequence[Kept | None], text: str) -> None:
    """Raise at the first bottom that was filtered."""
    index = next(index for index, one in enumerate(found) if one is not None)
    hint = "put the Filter behind it, or filter right before a loss"
    layer.fail(CODE, text, layer.model.source.span(("bottom", index)), hint)


def _check_bottoms(
    layer: Layer, found: Sequence[Kept | None], kept: Kept, originals: Sequence[Tensor]
) -> None:
    """All bottoms that hold items hold the same ones."""
    for index, (one, tensor) in enumerate(zip(found, originals, strict=True)):
        free = index >= FIRST_ALONE.get(layer.type, len(found)) and found[0] is not None
        if free and one is None and not _by_first_axis(layer, tensor):
            continue
        if one is None or one.selector is not kept.selector:
            name = layer.model.bottoms[index]
            how = "not filtered" if one is None else "filtered by another blob"
            text = f'bottom "{name}" is {how}, but another bottom is: their items do not match'
            layer.fail(CODE, text, layer.model.source.span(("bottom", index)))


def _by_first_axis(layer: Layer, operand: Tensor) -> bool:
    """Whether the second operand of Scale or Bias has a number for each item."""
    return layer.type in PAIRED and bool(operand.rank) and layer.params.axis == 0


def _check_axis(layer: Layer, found: Sequence[Kept | None], originals: Sequence[Tensor]) -> None:
    """No parameter makes the batch an axis like any other."""
    if isinstance(layer, BatchNorm) and not layer.stored:
        text = "the batch's statistics are of all items; with use_global_stats it may follow"
        _refuse(layer, found, text)
    if layer.type == "Permute" and list(layer.params.order[:1]) not in ([], [0]):
        _refuse(layer, found, "it moves the batch to another axis")
    axis = _along(layer, len(found))
    if axis is not None and axis % originals[0].rank == 0:
        _refuse(layer, found, "axis 0 is the batch, of which a Filter kept some items")


def _along(layer: Layer, bottoms: int) -> int | None:
    """The axis along which a layer mixes elements; None where there is none, or its top tells."""
    shaped = layer.type in SHAPED or (layer.type in PAIRED and bottoms > 1)
    unset = layer.type == "ArgMax" and not layer.params.HasField("axis")
    return None if shaped or unset else getattr(layer.params, "axis", None)
