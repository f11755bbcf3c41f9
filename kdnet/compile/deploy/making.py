"""The deploy graph: one head's part of a trained net, for any batch size, folded."""

from __future__ import annotations

from collections.abc import Mapping as ByName
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from kdnet.compile.cost import Cost, cost_of
from kdnet.compile.deploy.batch import FreeGraph, batched, free_batch
from kdnet.compile.deploy.branches import Branch
from kdnet.compile.deploy.fold import fold
from kdnet.compile.evaluation import Evaluation, compile_evaluation
from kdnet.compile.forward import trace_forward
from kdnet.compile.program import WeightSlot
from kdnet.compile.weights import weight_slots
from kdnet.errors import LayerError, fail
from kdnet.graph import Emitter, Op, Tensor, to_model
from kdnet.layers import is_data
from kdnet.net import NetModel, NetState, resolve_net
from kdnet.net.extract import deploy_net, read_tops, renamed_net
from kdnet.net.rename import Mapping
from kdnet.schema import Located
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import LayerBlobs

Array = NDArray[Any]
Shape = tuple[int, ...]
PROBABILITIES = "prob"
LOGITS = frozenset({"logits", "student logits", "teacher logits"})


@dataclass(frozen=True)
class Deploy:
    """A head's net as trained and as deployed.

    ``trained`` is its part of the TEST net at the net's own batch size. ``net`` is the deploy
    definition, with Input layers for a batch of one (``inputs``), and ``output`` its last blob.
    ``slots`` are the weights as the trained net calls them, ``own_slots`` as the deploy net does.
    """

    head: Branch
    trained: Evaluation
    net: NetModel
    inputs: ByName[str, Shape]
    output: str
    slots: tuple[WeightSlot, ...]
    own_slots: tuple[WeightSlot, ...]
    softmax: bool = False

    @property
    def shape(self) -> Shape:
        """The head's shape at the net's own batch size."""
        return self.trained.program.reports[0].shape

    @property
    def fed(self) -> dict[str, str]:
        """The trained net's data tops by the names that the deploy net has for them."""
        return dict(zip(self.inputs, self.trained.program.data, strict=True))

    @property
    def parameters(self) -> int:
        """Values of all weight blobs."""
        return sum(prod(slot.shape) for slot in self.slots)

    def own_values(self, values: ByName[str, Array]) -> dict[str, Array]:
        """Arrays by the deploy net's names, from those by the trained net's."""
        pairs = zip(self.own_slots, self.slots, strict=True)
        return {own.name: values[slot.name] for own, slot in pairs}

    def cost(self) -> Cost:
        """What one item costs.

        Raises:
            LayerError: the net takes no batch of one.
        """
        return cost_of(trace_forward(self.net, Emitter(), self.inputs), [self.output])


def make_deploy(
    test: NetModel,
    head: Branch,
    *,
    input_shapes: ByName[str, Shape],
    mapping: Mapping | None = None,
    softmax: bool = False,
    provider: str = "cpu",
) -> Deploy:
    """Cut a head out of the TEST net and define it anew for deployment.

    Raises:
        LayerError: the net's faults; no-input, when the head reads no data; softmax-of-no-logits.
        NetError, WeightsError: names that clash after ``mapping``.
    """
    net = head.net(test)
    trained = compile_evaluation(net, input_shapes=input_shapes, provider=provider)
    shapes = trained.program.data
    if not shapes:
        text = f'"{head.blob}" depends on no data: there is nothing to feed it with'
        fail(LayerError, "no-input", text, span=head.span)
    ordered = {top: shapes[top] for top in read_tops(net, is_data) if top in shapes}
    trained = replace(trained, program=replace(trained.program, data=ordered))
    inputs = batched(ordered, 1)
    located, output = deploy_net(net, inputs, is_data), head.blob
    if mapping is not None:
        located, output = renamed_net(located, mapping), mapping.rename(output)
        inputs = {mapping.rename(name): shape for name, shape in inputs.items()}
    if softmax:
        output = _add_softmax(located, head, output)
    resolved = resolve_net(located.message, located.source, NetState(pb.TEST))
    batch = next(iter(ordered.values()))[0]
    slots = _all_slots(net, input_shapes)
    own_slots = _all_slots(resolved, batched(inputs, batch))
    return Deploy(head, trained, resolved, inputs, output, slots, own_slots, softmax)


def _all_slots(net: NetModel, shapes: ByName[str, Shape]) -> tuple[WeightSlot, ...]:
    """Every weight of a net, also those that no output reads in TEST phase."""
    forward = trace_forward(net, Emitter(), shapes)
    return weight_slots(forward.weights, frozenset(), frozenset())


def _add_softmax(located: Located[pb.NetParameter], head: Branch, blob: str) -> str:
    layers = located.message.layer
    why = ""
    if layers[-1].type == "Softmax":
        why = "a Softmax layer makes it"
    elif head.roles and not head.roles & LOGITS:
        why = f"it is read as {', '.join(sorted(head.roles))}"
    if why:
        text = f'--softmax: "{head.blob}" holds no logits of one class among many: {why}'
        fail(LayerError, "softmax-of-no-logits", text, span=head.span)
    taken = {name for layer in layers for name in (layer.name, *layer.top)}
    name = PROBABILITIES if PROBABILITIES not in taken else f"{blob}/{PROBABILITIES}"
    added = layers.add(name=name, type="Softmax", bottom=[blob], top=[name])
    if head.axis != 1:
        added.softmax_param.axis = head.axis
    return name


def blobs_of(deploy: Deploy, values: ByName[str, Array]) -> list[LayerBlobs]:
    """The deploy net's weighted layers for a weight file.

    Args:
        deploy: the net.
        values: arrays by the names of the trained net's weights.
    """
    own = deploy.own_values(values)
    found: dict[str, dict[int, Array]] = {}
    for slot in deploy.own_slots:
        for (layer, index), shape in zip(slot.users, slot.user_shapes, strict=True):
            found.setdefault(layer, {})[index] = own[slot.name].reshape(shape)
    return [
        LayerBlobs(layer.name, layer.type, tuple(b for _, b in sorted(found[layer.name].items())))
        for layer in deploy.net.layers
        if layer.name in found
    ]


@dataclass(frozen=True)
class Preprocess:
    """What a data layer does to its images before the net: ``(x − mean) · scale``.

    ``mean`` broadcasts against (C, H, W) and is None where nothing is subtracted.
    """

    mean: Array | None = None
    scale: float = 1.0
    notes: Sequence[str] = field(default=())

    @property
    def is_nothing(self) -> bool:
        """Whether images pass unchanged."""
        return self.mean is None and self.scale == 1.0

    def apply(self, images: Array) -> Array:
        """The net's input, float32."""
        centred = images if self.mean is None else images - self.mean
        return np.asarray(centred * np.float32(self.scale), np.float32)


def onnx_model(
    deploy: Deploy,
    values: ByName[str, Array],
    metadata: ByName[str, str],
    preprocess: ByName[str, Preprocess] | None = None,
) -> onnx.ModelProto:
    """The deploy net as a model that stands alone and takes any batch size.

    Args:
        deploy: the net.
        values: arrays by the names of the trained net's weights.
        metadata: the model's metadata_props.
        preprocess: by input name, what is put in front of the net.

    Raises:
        LayerError: batch-bound.
    """
    graph = free_batch(deploy.net, deploy.inputs, deploy.output)
    own = deploy.own_values(values)
    held = {tensor: own[tensor.name] for tensor in graph.weights}
    folded = fold(graph.ops, graph.output, held)
    front, fed = _front(graph, preprocess or {})
    ops = [*front, *(_reading(op, fed) for op in folded.ops)]
    output = fed.get(folded.output, folded.output)
    model = to_model(
        ops,
        graph.inputs,
        {deploy.output: output},
        name=deploy.net.name,
        metadata=metadata,
    )
    for values_info, tensor in zip(model.graph.input, graph.inputs, strict=True):
        _free(values_info, graph.axes[tensor])
    _free(model.graph.output[0], graph.axes[graph.output])
    return model


def _free(info: onnx.ValueInfoProto, axes: Sequence[str | int]) -> None:
    """Name the extents that follow the batch."""
    for dim, extent in zip(info.type.tensor_type.shape.dim, axes, strict=True):
        if isinstance(extent, str):
            dim.dim_param = extent


def _reading(op: Op, instead: ByName[Tensor, Tensor]) -> Op:
    inputs = tuple(instead.get(t, t) if t is not None else None for t in op.inputs)
    return replace(op, inputs=inputs)


def _front(
    graph: FreeGraph, preprocess: ByName[str, Preprocess]
) -> tuple[list[Op], dict[Tensor, Tensor]]:
    """Ops on the fed images, and what the net reads in place of each."""
    g = Emitter()
    instead: dict[Tensor, Tensor] = {}
    for tensor in graph.inputs:
        found = preprocess.get(tensor.name)
        if found is None or found.is_nothing:
            continue
        with g.scope(f"preprocess/{tensor.name}"):
            x = tensor
            if found.mean is not None:
                x = g.sub(x, g.constant(found.mean))
            instead[tensor] = g.mul(x, found.scale)
    return g.ops, instead
