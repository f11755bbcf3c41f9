"""ONNX: a model made elsewhere as one layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from kdnet.data.paths import find, suggest
from kdnet.errors import KdnetError
from kdnet.graph import Emitter, Tensor
from kdnet.graph.models import Declared, Held, Model, Node, Special, import_model, read_model
from kdnet.layers.base import ANY, Layer, Stored, Weight, layer
from kdnet.layers.batch_norm import standardized
from kdnet.net import ParamModel
from kdnet.weights.files import check_memory

# The running statistics among the inputs of a BatchNormalization node.
STATISTICS = (3, 4)


@layer("ONNX", params="onnx_param", bottoms=(1, ANY), tops=(1, ANY))
class ONNX(Layer):
    """Compute what a model in an .onnx file computes.

        y = model(x)

    The model's shapes are fixed by the bottoms, its ops are brought to kdnet's opset, and what
    depends on shapes alone is computed beforehand. A model made for one item is emitted for the
    bottom's batch, unless it would mix items. Every float array of the model that has axes
    becomes a weight blob, in the file's order and under its name there; scalars, integers and
    settings such as the bounds of a Clip stay constants. Blobs begin as the file has them, unless
    a weight file fills the layer.

    Shapes:
        x  as the model declares it  bottom i: its input i; cast where that is of integers
        y  as the model makes it     top i: its output i, or an inner tensor; cast to float
    Parameters: model, the path (required); input and output, names of tensors (all inputs, all
        outputs); trainable (false): whether the blobs are trained, as ``param`` says, of which
        the first holds for every blob that has none of its own
    Gradient: from the op rules, to the bottoms always, to the blobs where trainable. An op without
        a rule is refused where a gradient must pass it. In TRAIN, a trainable model that was
        exported for training has its Dropout nodes drop, and its BatchNormalization nodes use the
        batch's statistics and keep running ones (of the biased variance, as ONNX has it); any
        other has dropout off and uses the statistics that it holds.
    Differs from Caffe: the layer is kdnet's own.
    Faults: a file that is absent, damaged or no ONNX model; ops of other domains, loops, random
        ops, shapes that depend on values; types but float16, float32, float64 (all computed in
        float32), integers and bool; arrays in files that are not below the model's folder; bottoms
        that do not fit the declared inputs.
    Source: the ONNX standard, version 1.16 (opset 21).
    """

    @property
    def trainable(self) -> bool:
        """Whether its weights may be trained."""
        return bool(self.params.trainable)

    @cached_property
    def path(self) -> Path:
        """The file."""
        given = self.params.model
        span = self.span("model")
        self.require(bool(given), at="model", say="the path of an .onnx file must be given")
        beside = span.file if span else None
        found = find(given, beside)
        if found is None:
            text = f'there is no model "{given}"'
            self.fail("missing-model", text, span, next(iter(suggest(given, beside)), ""))
        if not found.is_file():
            self.fail("not-a-model", f'"{given}" is not an ordinary file', span)
        return found

    @cached_property
    def loaded(self) -> Model:
        """The file's content, as far as the tops need it."""
        with self._blamed():
            check_memory(str(self.path), self.path.stat().st_size)
            return read_model(str(self.path), self.params.input, self.params.output)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Faults of the model are the layer's, at the field that names the file."""
        try:
            yield
        except KdnetError as error:
            found = error.diagnostics[0]
            self.fail(found.code, found.message, self.span("model"), "; ".join(found.help))

    def check(self, *bottoms: Tensor) -> None:
        """A bottom for each input, a top for each output, and shapes that fit."""
        model = self.loaded
        self._check_count("bottom", len(bottoms), [found.name for found in model.inputs], "input")
        self._check_count("top", len(self.model.tops), model.outputs, "output")
        sizes: dict[str, int] = {}
        for index, (declared, bottom) in enumerate(zip(model.inputs, bottoms, strict=True)):
            self._check_shape(index, declared, bottom, sizes)

    def _check_count(self, word: str, count: int, names: Sequence[str], field: str) -> None:
        if count == len(names):
            return
        listed = ", ".join(f'"{name}"' for name in names)
        text = f"{count} {word}s for the model's {len(names)} {field}s: {listed}"
        hint = f"say which ones with {field}, or give a {word} to each"
        self.fail(f"{word}-count", text, self.model.source.span((word, 0)), hint)

    def _check_shape(
        self, index: int, declared: Declared, bottom: Tensor, sizes: dict[str, int]
    ) -> None:
        wanted = declared.shape
        fits = len(wanted) == bottom.rank
        for place, (axis, size) in enumerate(zip(wanted, bottom.shape, strict=False)):
            known = sizes.setdefault(axis, size) if isinstance(axis, str) and axis else axis
            # A model for one item is emitted for several where nothing in it mixes them.
            fits = fits and (known in ("", size) or (place == 0 and axis == 1))
        shown = ", ".join(str(axis) if axis != "" else "?" for axis in wanted)
        text = f'a bottom of shape {bottom.shape} for input "{declared.name}" of shape ({shown})'
        fixed = len(wanted) == bottom.rank and isinstance(wanted[0], int)
        more = f"give batches of {wanted[0]}, or export it for any batch size" if fixed else ""
        self.require_shape(fits, bottom=index, say=text, help=more)

    def weights(self, *_bottoms: Tensor) -> list[Weight]:
        """The model's float arrays, with their values."""
        statistics = self._statistics
        return [
            Weight(
                held.name,
                held.shape,
                state=held.name in statistics,
                stored=Stored(self._origin(held), partial(held.read, np.float32)),
            )
            for held in self.loaded.weights
        ]

    def _origin(self, held: Held) -> str:
        converted = "" if held.kind == "float" else f" ({held.kind} read as float32)"
        return f"{self.path}{converted}"

    @cached_property
    def _statistics(self) -> set[str]:
        """Names of arrays that are running statistics of BatchNormalization nodes."""
        return {
            node.input[place]
            for node in self.loaded.graph.node
            if node.op_type == "BatchNormalization"
            for place in STATISTICS
        }

    def param(self, index: int) -> ParamModel:
        """Nothing is trained unless trainable; then the first param holds for the rest."""
        own = self.model.param(index)
        given = len(self.model.message.param)
        if index >= given > 0:
            own = replace(self.model.param(0), name="")
        if self.trainable:
            return own
        return replace(own, lr_mult=0.0, decay_mult=0.0)

    def emit(self, g: Emitter, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The model's nodes."""
        model = self.loaded
        names = [*(found.name for found in model.inputs), *(held.name for held in model.weights)]
        given = dict(zip(names, inputs, strict=True))
        with self._blamed():
            if not (self.trainable and self.train):
                return self._imported(g, given, {})
            learning = _Learning(self, set(inputs))
            if any(node.op_type == "Dropout" for node in model.graph.node):
                # The noise of all Dropout nodes is one input, so its size must be known first.
                self._imported(Emitter(g.float_dtype, g.provider), given, learning.counting)
                learning.draw(g)
            return self._imported(g, given, learning.special)

    def _imported(
        self, g: Emitter, given: Mapping[str, Tensor], special: Mapping[str, Special]
    ) -> tuple[Tensor, ...]:
        return import_model(g, self.loaded, given, scope=self.model.name, special=special)


class _Learning:
    """The nodes that work otherwise while the model learns; they say so in the model."""

    def __init__(self, layer: ONNX, known: set[Tensor]) -> None:
        self._layer = layer
        self._known = known
        self._noise: Tensor | None = None
        self._count = 0
        self.counting = {"Dropout": self._counted}
        self.special = {
            "BatchNormalization": self._batch_normalization,
            "Dropout": self._dropout,
        }

    def draw(self, g: Emitter) -> None:
        """Declare the noise of all that was counted."""
        if self._count:
            self._noise = self._layer.noise(g, (self._count,))
        self._count = 0

    def _counted(self, _g: Emitter, node: Node) -> None:
        if _drops(node):
            self._count += node.input(0).size

    def _dropout(self, g: Emitter, node: Node) -> tuple[Tensor, ...] | None:
        x = node.input(0)
        if self._noise is None or not _drops(node):
            return None
        start, self._count = self._count, self._count + x.size
        drawn = g.reshape(g.slice(self._noise, [0], [start], [self._count]), x.shape)
        ratio = _ratio(node)
        kept = g.greater(drawn, ratio)
        return g.mul(x, g.where(kept, 1.0 / (1.0 - ratio), 0.0)), kept

    def _batch_normalization(self, g: Emitter, node: Node) -> tuple[Tensor, ...] | None:
        if not node.attrs.get("training_mode", 0):
            return None
        x, scale, bias = (node.input(index) for index in range(3))
        y, *batch = standardized(g, x, float(node.attrs.get("epsilon", 1e-5)))
        kept = float(node.attrs.get("momentum", 0.9))
        running = []
        for place, found in zip(STATISTICS, batch, strict=True):
            old = node.input(place)
            running.append(g.add(g.mul(old, kept), g.mul(g.reshape(found, old.shape), 1 - kept)))
            if old in self._known:
                self._layer.update(old, running[-1])
        wide = (x.shape[1], *[1] * (x.rank - 2))
        scaled = g.add(g.mul(y, g.reshape(scale, wide)), g.reshape(bias, wide))
        return scaled, *running


def _ratio(node: Node) -> float:
    given = node.optional(1)
    if given is None:
        return 0.5
    if given.value is None:
        node.unsupported("its ratio depends on the data")
    return float(given.value.reshape(()))


def _drops(node: Node) -> bool:
    """Whether the model itself says that the node drops; a ratio of 0 drops nothing."""
    return any(node.ints(2, [0])) and 0 < _ratio(node) < 1
