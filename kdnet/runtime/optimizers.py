"""What ONNX Runtime is spared when it opens a session, so that deep nets open soon.

It sorts the whole graph before each of some 120 passes, and keeps the nodes that are ready in a
list that it walks for every node it puts there. Several nodes a weight are ready from the start:
the time grows with the square of the depth. So passes are left out that have nothing to do, and
in large graphs the nodes that wait for nothing come first, which takes them off that list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx

# Fuses Pad(0) with MaxPool into padding by minus infinity: wrong where all inputs are negative.
WRONG = ("Pad_Fusion",)
_QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits"}
)
_NORMALIZED = frozenset({"LayerNormalization", "SimplifiedLayerNormalization", "Pow"})
# Each pass with the ops of which it needs one at least. Source: onnxruntime/core/optimizer, 1.31.
_NEEDS: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        (
            "DoubleQDQPairsRemover",
            "DynamicQuantizeMatMulFusion",
            "EnsureUniqueDQForNodeUnit",
            "MatMulIntegerToFloatFusion",
            "MatMulNBitsFusion",
            "QDQFinalCleanupTransformer",
            "QDQPropagationTransformer",
            "QDQS8ToU8Transformer",
            "QDQSelectorActionTransformer",
            "WeightBiasQuantization",
            "WhereDummyDq",
        ),
        _QUANTIZED,
    ),
    **dict.fromkeys(
        (
            "AttentionFusion",
            "BiasSkipLayerNormFusion",
            "EmbedLayerNormFusion",
            "GroupQueryAttentionFusion",
            "GroupQueryAttentionPreNormFusion",
            "LayerNormFusionL1",
            "LayerNormFusionL2",
            "SimplifiedLayerNormFusion",
            "SkipLayerNormFusion",
        ),
        _NORMALIZED,
    ),
    **dict.fromkeys(("GeluFusionL1", "GeluFusionL2"), frozenset({"Erf", "Tanh"})),
    "BiasGeluFusion": frozenset({"Erf", "Tanh", "Gelu"}),
    "BiasDropoutFusion": frozenset({"Dropout"}),
    "BiasSoftmaxFusion": frozenset({"Softmax"}),
    "FastGeluFusion": frozenset({"Tanh"}),
    "GatherSliceToSplitFusion": frozenset({"Gather"}),
    "GatherToSliceFusion": frozenset({"Gather"}),
    "QuickGeluFusion": frozenset({"Sigmoid"}),
    "SliceConcatToSpaceToDepthFusion": frozenset({"Concat"}),
}
# What the emitter leaves nothing for, or next to nothing: the step of a ResNet-101 takes as long
# without, and its session opens in a fifth of the time.
_LITTLE = (
    "CommonSubexpressionElimination",
    "ConstantSharing",
    "Level2_RuleBasedTransformer",
    "MatMulActivationFusion",
    "MatMulAddFusion",
    "MatMulScaleFusion",
    "MatmulTransposeFusion",
    "NhwcTransformer",
    "ReshapeFusion",
    "TransposeOptimizer",
    "TransposeOptimizer_CPUExecutionProvider",
)
# What only works on constants: the weights of a frozen net.
_OF_CONSTANTS = ("ConstantFolding", "NchwcTransformer")
LARGE_NODES = 5000
# From here on nothing is optimized unless a net is frozen: the step of a ResNet-497 takes as long,
# and its session opens in half the time.
HUGE_NODES = 30_000


def optimizes(nodes: Sequence[onnx.NodeProto], *, constants: bool) -> bool:
    """Whether a session of these nodes is to be optimized at all.

    Args:
        nodes: the graph's.
        constants: whether weights are constants of the graph, so that more can be done ahead.
    """
    return constants or len(nodes) <= HUGE_NODES


def left_out(nodes: Iterable[onnx.NodeProto], *, constants: bool) -> list[str]:
    """The optimizers that a session of these nodes does without.

    Args:
        nodes: the graph's.
        constants: whether weights are constants of the graph, so that more can be done ahead.
    """
    kinds = [node.op_type for node in nodes]
    present = frozenset(kinds)
    found = [*WRONG, *(name for name, needed in _NEEDS.items() if not needed & present)]
    if len(kinds) > LARGE_NODES:
        found += _LITTLE
        found += () if constants else _OF_CONSTANTS
    return found


def model_bytes(model: onnx.ModelProto) -> bytes:
    """A model for a session; in a large one the nodes that read no other's output come first."""
    nodes = model.graph.node
    if len(nodes) <= LARGE_NODES:
        return model.SerializeToString()
    made = {name for node in nodes for name in node.output}
    waiting = [any(name in made for name in node.input) for node in nodes]
    ordered = onnx.ModelProto()
    ordered.CopyFrom(model)
    del ordered.graph.node[:]
    for turn in (False, True):
        ordered.graph.node.extend(
            node for node, waits in zip(nodes, waiting, strict=True) if waits is turn
        )
    return ordered.SerializeToString()
