"""``kdnet.Net``: a net whose blobs and weights are arrays, as in pycaffe."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kdnet.api.batching import Arrays, collected, copied, in_batches
from kdnet.api.blobs import Blob, Floats, Named, Parameter
from kdnet.api.callbacks import LayerCall
from kdnet.api.hosted import PythonLayers
from kdnet.api.mode import current_device, current_seed
from kdnet.api.models import FilePath, Given, Model, Positional, arguments, read_model, resolved
from kdnet.api.passes import Passes, Setting
from kdnet.api.segments import trace_range
from kdnet.api.streams import Streams
from kdnet.api.weights import Weights
from kdnet.compile.weights import weight_slots
from kdnet.errors import DataError, did_you_mean, fail
from kdnet.net import NetModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import Audit, WeightFile, read_weights, write_weights


@dataclass(frozen=True)
class LayerView:
    """A layer of a net: its name, its type, and its weights."""

    name: str
    type: str
    blobs: list[Parameter]


class Net:
    """A net in one phase, with every blob and every weight at hand.

        net = kdnet.Net("deploy.prototxt", "net.caffemodel", kdnet.TEST)
        net.blobs["data"].data[...] = images
        scores = net.forward()["prob"]

    Args:
        model: a net's file, a join's description, a NetParameter message or a NetSpec.
        args: in pycaffe's orders: weights and phase; or phase, level, stages and weights.
        weights: a weight file of any format; what it does not hold starts from fillers.
        phase: ``kdnet.TEST`` (the default) or ``kdnet.TRAIN``.
        level: the net's level.
        stages: the net's stages.

    Attributes:
        blobs: each blob by name, in the net's order.
        params: the weights of each layer that has any, by the layer's name.
        inputs: the blobs of Input layers.
        outputs: the blobs that no layer reads, in alphabetical order.
        bottom_names: what each layer reads, by its name.
        top_names: what each layer makes.
        blob_loss_weights: each blob's weight in the loss.
        layers: the layers in order; of a Python layer its object.

    Raises:
        KdnetError: what is wrong with the files.
    """

    def __init__(
        self,
        model: Model,
        *args: Positional,
        weights: FilePath | None = None,
        phase: int | None = None,
        level: int | None = None,
        stages: Sequence[str] | None = None,
    ) -> None:
        chosen = arguments(args, Given(weights, phase, level, stages))
        named = read_model(model)
        phase = pb.TEST if chosen.phase is None else chosen.phase
        net = resolved(named.located, phase, chosen.level or 0, chosen.stages or ())
        setting = Setting(current_device(), current_seed() or 0)
        self._make(net, setting, PythonLayers(net))
        files = list(named.files)
        if chosen.weights is not None:
            files.append(read_weights(os.fspath(chosen.weights)))
        if files:
            self._weights.load(files)

    @classmethod
    def of_model(cls, net: NetModel, setting: Setting, hosted: PythonLayers) -> Net:
        """The net of a model that is there already, such as a solver's."""
        made = cls.__new__(cls)
        made._make(net, setting, hosted)
        return made

    def _make(self, net: NetModel, setting: Setting, hosted: PythonLayers) -> None:
        device, seed, schedules = setting
        with hosted.allowed():
            forward = trace_range(net, range(len(net.layers)), {}, device.kind, schedules)
        self.model, self._hosted = net, hosted
        self._weights = Weights(
            weight_slots(forward.weights, frozenset(), frozenset(forward.trace.updates)), seed
        )
        hosted.keep_arrays(self._weights)
        self._streams = Streams(net, seed)
        self._passes = Passes(net, self._weights, self._streams, hosted, setting)
        self._passes.filtered = frozenset(forward.trace.kept)
        names = list(dict.fromkeys(top for layer in net.layers for top in layer.tops))
        self.blob_loss_weights = OrderedDict((name, forward.makers[name][1]) for name in names)
        weights = self.blob_loss_weights
        blobs = ((name, Blob(forward.blobs[name].shape, weights[name])) for name in names)
        self.blobs: Named[Blob] = Named(blobs, "blob")
        self._passes.attach(self.blobs)
        self.inputs = [top for layer in net.layers if layer.type == "Input" for top in layer.tops]
        self.outputs = list(net.outputs)
        self.bottom_names = OrderedDict((layer.name, list(layer.bottoms)) for layer in net.layers)
        self.top_names = OrderedDict((layer.name, list(layer.tops)) for layer in net.layers)
        self._name_parameters()

    def _name_parameters(self) -> None:
        found = self._weights.parameters(self.model)
        self.params: Named[list[Parameter]] = Named(found.items(), "layer with weights")
        self._hosted.adopt(found)

    @property
    def name(self) -> str:
        """The net's name."""
        return self.model.name

    @property
    def layers(self) -> list[Any]:
        """The layers in order; for a Python layer the instance of its class."""
        return [
            LayerView(layer.name, layer.type, self.params.get(layer.name, []))
            if hosted is None
            else hosted.code
            for layer, hosted in zip(self.model.layers, self._hosted.all(), strict=True)
        ]

    @property
    def layer_dict(self) -> OrderedDict[str, Any]:
        """The layers by name."""
        return OrderedDict(zip(self._layer_names, self.layers, strict=True))

    @property
    def _layer_names(self) -> list[str]:
        return [layer.name for layer in self.model.layers]

    def _index(self, layer: str) -> int:
        names = self._layer_names
        if layer not in names:
            hint = "".join(f"; {text}" for text in did_you_mean(layer, names))
            raise ValueError(f'the net has no layer "{layer}"{hint}')
        return names.index(layer)

    def _known(self, names: Iterable[str]) -> list[str]:
        """The names, each once, if they are blobs."""
        found = dict.fromkeys(names)
        return [name for name in found if self.blobs[name] is not None]

    def _fill(self, given: Mapping[str, ArrayLike], wanted: Sequence[str], what: str) -> None:
        """Write arrays into blobs: all of ``wanted`` or none."""
        if not given:
            return
        if set(given) != set(wanted):
            listed = ", ".join(wanted) or "none"
            raise ValueError(f"{', '.join(given)}: the net's {what}s are {listed}; give all")
        for name, value in given.items():
            array = self.blobs[name].data if what == "input" else self.blobs[name].diff
            rows = np.shape(value)[:1]
            if array.ndim and rows != array.shape[:1]:
                found = rows[0] if rows else 1
                text = f'"{name}" is given {found} items where the net has room for {len(array)}'
                raise ValueError(f"{text}: reshape the blob first")
            array[...] = value

    def before_forward(self, call: LayerCall) -> None:
        """Have ``call(index)`` called before the forward pass of each layer.

        Layers are then compiled and run one by one, from the next forward pass on, also in a
        solver's steps: what ``call`` writes into blobs counts, and what it reads is there.
        """
        self._passes.called().before_forward.append(call)

    def after_forward(self, call: LayerCall) -> None:
        """Have ``call(index)`` called after the forward pass of each layer."""
        self._passes.called().after_forward.append(call)

    def before_backward(self, call: LayerCall) -> None:
        """Have ``call(index)`` called before the backward pass of each layer."""
        self._passes.called().before_backward.append(call)

    def after_backward(self, call: LayerCall) -> None:
        """Have ``call(index)`` called after the backward pass of each layer."""
        self._passes.called().after_backward.append(call)

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: ArrayLike,
    ) -> dict[str, Floats]:
        """Run the net, or the layers from ``start`` to ``end``, both included.

        Data layers among them read their next batch. What layers read from before ``start`` is
        what those blobs hold.

        Args:
            blobs: further blobs to return.
            start: the first layer.
            end: the last layer; its tops are returned instead of the net's outputs.
            inputs: values of the net's input blobs: all of them, or none.

        Returns:
            The blobs' own arrays by name: the next run writes into them.

        Raises:
            KdnetError: what the data or the runtime raised.
        """
        first = 0 if start is None else self._index(start)
        last = len(self.model.layers) - 1 if end is None else self._index(end)
        tops = self.outputs if end is None else self.top_names[end]
        if first > last:
            raise ValueError(f'layer "{start}" does not lie before "{end}"')
        wanted = self._known([*tops, *(blobs or ())])
        self._fill(inputs, self.inputs, "input")
        self._passes.forward(range(first, last + 1))
        return {name: self.blobs[name].data for name in wanted}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **seeds: ArrayLike,
    ) -> dict[str, Floats]:
        """Compute gradients by going over the last forward pass again and then back.

        They start at the diffs of what lies on top: a loss has its loss weight there, other
        outputs 0 until they are written. Gradients of weights are added to what ``diff`` holds.

        Args:
            diffs: further blobs whose gradients are wanted.
            start: the layer at which gradients start, at the diffs of its tops.
            end: the layer at which they end; its bottoms' diffs are returned.
            seeds: diffs of the net's outputs: all of them, or none.

        Returns:
            The diffs of the net's inputs, or of ``end``'s bottoms, and of ``diffs``.

        Raises:
            GraphError: a layer on the way has no gradient.
        """
        first = len(self.model.layers) - 1 if start is None else self._index(start)
        last = 0 if end is None else self._index(end)
        bottoms = self.inputs if end is None else self.bottom_names[end]
        if first < last:
            raise ValueError(f'layer "{start}" does not lie behind "{end}"')
        wanted = self._known([*bottoms, *(diffs or ())])
        self._fill(seeds, self.outputs, "output")
        self._passes.backward(first, last, wanted)
        return {name: self.blobs[name].diff for name in wanted}

    def forward_all(
        self, blobs: Sequence[str] | None = None, **inputs: Arrays
    ) -> dict[str, Floats]:
        """Run arrays of any length in batches; the last one is filled up with zeros.

        Returns:
            One array a blob, for all items.
        """
        batches = in_batches(inputs, self._batch_size(inputs))
        count = len(next(iter(inputs.values())))
        return collected((self.forward(blobs, None, None, **batch) for batch in batches), count)

    def forward_backward_all(
        self,
        blobs: Sequence[str] | None = None,
        diffs: Sequence[str] | None = None,
        **arrays: Arrays,
    ) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Forward and backward passes over arrays of any length, in batches.

        Args:
            blobs: as for :meth:`forward`.
            diffs: as for :meth:`backward`.
            arrays: values of inputs and diffs of outputs.
        """
        inputs, outputs = set(self.inputs), set(self.outputs)
        values, slopes = [], []
        for batch in in_batches(arrays, self._batch_size(arrays)):
            fed = {name: array for name, array in batch.items() if name in inputs}
            values.append(copied(self.forward(blobs, None, None, **fed)))
            seeds = {name: array for name, array in batch.items() if name in outputs}
            slopes.append(copied(self.backward(diffs, None, None, **seeds)))
        count = len(next(iter(arrays.values())))
        return collected(values, count), collected(slopes, count)

    def _batch_size(self, arrays: Mapping[str, Arrays]) -> int:
        names = self._known(arrays)
        if not names:
            raise ValueError("give the arrays of the net's inputs")
        return self.blobs[names[0]].shape[0]

    def reshape(self) -> None:
        """Give every blob the shape that follows from those of the inputs.

        :meth:`forward` does so too.
        """
        self._passes.reshape()

    def clear_param_diffs(self) -> None:
        """Set the gradients of all weights to 0."""
        self._passes.clear_slopes()

    def copy_from(self, file: FilePath | WeightFile) -> Audit:
        """Load weights by layer name from a file of any format; what became of each layer.

        Raises:
            WeightsError: the file's faults; weights-shape-mismatch, weights-blob-count.
        """
        found = file if isinstance(file, WeightFile) else read_weights(os.fspath(file))
        return self._weights.load([found])

    def load_hdf5(self, file: FilePath) -> Audit:
        """As :meth:`copy_from`, which knows every format."""
        return self.copy_from(file)

    def share_with(self, other: Net) -> None:
        """Use the other net's weights, for layers of the same name, as one's own.

        Raises:
            WeightsError: share-mismatch.
        """
        self._weights.adopt(other._weights)
        self._name_parameters()

    def save(self, file: FilePath) -> None:
        """Write all weights: a .caffemodel, or what the name's ending says.

        Raises:
            WeightsError: cannot-write, unwritable-layer.
        """
        path = os.fspath(file)
        known = path.lower().endswith((".h5", ".hdf5", ".npz", ".safetensors", ".onnx"))
        self._write(path, None if known else "caffemodel")

    def save_hdf5(self, file: FilePath) -> None:
        """Write all weights as Caffe's HDF5."""
        self._write(os.fspath(file), "hdf5")

    def _write(self, path: str, form: str | None) -> None:
        layers = self._weights.layers(self.model)
        write_weights(path, layers, format=form, net_name=self.name)

    def set_input_arrays(self, data: ArrayLike, labels: ArrayLike) -> None:
        """Let the net's first layer, a MemoryData layer, read these arrays from now on.

        Raises:
            DataError: no-memory-data, memory-arrays.
        """
        layer = self.model.layers[0]
        if layer.type != "MemoryData":
            text = f'the first layer "{layer.name}" is no MemoryData layer'
            fail(DataError, "no-memory-data", text, span=layer.position)
        self._streams.give(layer, data, labels)
