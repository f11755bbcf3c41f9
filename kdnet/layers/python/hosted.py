"""Runs a user's Python layer on the host: finds its class, calls it, tells its faults."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.errors import Diagnostic, KdnetError, LayerError, RunError, Span, did_you_mean
from kdnet.layers.python.allowance import current_allowance
from kdnet.layers.python.blob import Blob, Blobs
from kdnet.layers.python.user import Layer
from kdnet.net import LayerModel

Array = NDArray[Any]
Shape = tuple[int, ...]


class HostedLayer:
    """One layer's instance of a user's class, with the blobs that it is called with.

    Args:
        model: the layer in its net.
        shapes: of the bottoms.
        in_program: whether what the code raises goes on as it is, with a note that names the
            layer: a program that runs the net may wait for it.

    Raises:
        LayerError: python-module, python-class, python-weights, python-layer-failed,
            python-empty-top.
    """

    def __init__(
        self, model: LayerModel, shapes: Sequence[Shape], *, in_program: bool = False
    ) -> None:
        self.model = model
        self._in_program = in_program
        self.bottoms = [Blob(shape) for shape in shapes]
        self.tops = [self._top(name) for name in model.tops]
        self.code: Any = self._made()
        self._call(LayerError, "setup", self.bottoms, self.tops)
        self._shape(LayerError)
        self.blobs: list[Any] = list(self.code.blobs)
        for blob in self.blobs:
            if not isinstance(blob, Blob):
                text = f"blobs holds {blob!r}, which is no weight"
                hint = "self.blobs.add_blob(5, 3) adds one of shape (5, 3)"
                self._fail(LayerError, "python-weights", text, hint)
        self._fed: list[Array] = []

    def _top(self, name: str) -> Blob:
        """A blob of its own, or the bottom's where the layer works in place."""
        bottoms = self.model.bottoms
        return self.bottoms[bottoms.index(name)] if name in bottoms else Blob(())

    @property
    def shapes(self) -> list[Shape]:
        """Those of the tops."""
        return [top.shape for top in self.tops]

    def reshape(self, shapes: Sequence[Shape]) -> None:
        """Let the tops follow the shapes of the bottoms.

        Raises:
            LayerError: python-layer-failed, python-empty-top.
        """
        for blob, shape in zip(self.bottoms, shapes, strict=True):
            blob.reshape(shape)
        self._shape(LayerError)

    def forward(
        self,
        bottoms: Sequence[Array],
        blobs: Sequence[Array] = (),
        fixed: Sequence[Shape] | None = None,
    ) -> list[Array]:
        """The tops' values, given the bottoms'.

        Args:
            bottoms: the bottoms' values.
            blobs: the weights' values; where none are given they are what they are.
            fixed: the shapes that the tops must have, where they may not change.

        Raises:
            RunError: python-layer-failed, python-empty-top, python-shape-changed.
        """
        for blob, values in zip(self.bottoms, bottoms, strict=True):
            # A blob's arrays are what the code may keep hold of: they stay the same ones.
            blob.reshape(values.shape)
            blob.data[...] = values
        for blob, values in zip(self.blobs, blobs, strict=False):
            blob.data[...] = values
        self._fed = [np.array(values) for values in blobs]
        self._shape(RunError)
        if fixed is not None:
            self._check_shapes(fixed)
        self._call(RunError, "forward", self.bottoms, self.tops)
        return [top.data.copy() for top in self.tops]

    def _shape(self, kind: type[KdnetError]) -> None:
        self._call(kind, "reshape", self.bottoms, self.tops)
        for name, shape in zip(self.model.tops, self.shapes, strict=True):
            if min(shape, default=1) < 1:
                text = f'reshape gave top "{name}" the shape {shape}, which holds nothing'
                hint = "leave one item, which counts for nothing, where there is none"
                self._fail(kind, "python-empty-top", text, hint)

    def _check_shapes(self, fixed: Sequence[Shape]) -> None:
        tops = zip(self.model.tops, self.shapes, fixed, strict=True)
        found = [(f'top "{name}"', shape, wanted) for name, shape, wanted in tops]
        held = enumerate(zip(self.blobs, self._fed, strict=True))
        found += [(f"weight {i}", blob.shape, values.shape) for i, (blob, values) in held]
        for what, shape, wanted in found:
            if shape != wanted:
                text = f"reshape gave {what} the shape {shape}; it was {wanted} when the net was"
                hint = "pad to a fixed shape: a compiled graph cannot follow"
                self._fail(RunError, "python-shape-changed", f"{text} compiled", hint)

    def backward(
        self, slopes: Sequence[Array | None], wanted: Sequence[bool]
    ) -> tuple[list[Array], list[Array]]:
        """The gradients of the bottoms and of the weights, given the tops'.

        What is not wanted of the bottoms' means nothing.

        Raises:
            RunError: python-layer-failed.
        """
        for blob in self.blobs:
            blob.diff[...] = 0
        bottoms = self.pull(slopes, wanted)
        return bottoms, [blob.diff.copy() for blob in self.blobs]

    def pull(self, slopes: Sequence[Array | None], wanted: Sequence[bool]) -> list[Array]:
        """The gradients of the bottoms; those of the weights come on top of what is there.

        Raises:
            RunError: python-layer-failed.
        """
        for blob in self.bottoms:
            blob.diff[...] = 0
        for blob, slope in zip(self.tops, slopes, strict=True):
            blob.diff[...] = 0 if slope is None else slope
        self._call(RunError, "backward", self.tops, list(wanted), self.bottoms)
        return [blob.diff.copy() for blob in self.bottoms]

    def adopt(self, blobs: Sequence[Any]) -> None:
        """Let the code work on these weights, each with ``data`` and ``diff``, from now on."""
        self.blobs[:] = blobs
        self.code.blobs[:] = blobs

    def written(self) -> Mapping[int, Array]:
        """The weights that the code wrote since they were given to it, by index."""
        held = enumerate(zip(self.blobs, self._fed, strict=True))
        return {
            index: blob.data
            for index, (blob, values) in held
            if not np.array_equal(blob.data, values)
        }

    def _made(self) -> Any:
        found = self._class()
        try:
            code = found.__new__(found)
            code.blobs = Blobs()
            code.__init__()
        except Exception as error:
            raise self._failed(LayerError, "__init__", error) from error
        code.param_str = self.model.message.python_param.param_str
        code.phase, code.name = int(self.model.phase), self.model.name
        return code

    def _class(self) -> Any:
        params = self.model.message.python_param
        module = self._module(params.module)
        found = getattr(module, params.layer, None)
        if isinstance(found, type) and callable(getattr(found, "forward", None)):
            return found
        names = [name for name, value in vars(module).items() if isinstance(value, type)]
        text = f'module "{params.module}" has no layer class "{params.layer}"'
        hints = did_you_mean(params.layer, names) or ("it derives from caffe.Layer",)
        return self._fail(LayerError, "python-class", text, *hints, at="layer")

    def _module(self, name: str) -> Any:
        # Code that was written for pycaffe imports it for its Layer, and finds kdnet's.
        sys.modules.setdefault("caffe", importlib.import_module("kdnet"))
        before, folders = list(sys.path), self._folders
        sys.path[:0] = folders
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            places = ", ".join(f'"{place}"' for place in folders)
            text = f'there is no module "{error.name}"'
            hint = f"modules are sought in {places} and on PYTHONPATH"
            return self._fail(LayerError, "python-module", text, hint, at="module")
        except Exception as error:
            raise self._failed(LayerError, "importing its module", error) from error
        finally:
            sys.path[:] = before

    @property
    def _folders(self) -> list[str]:
        """Where modules are sought before all else, each once."""
        net = self.model.source.span(())
        beside = [os.path.dirname(os.path.abspath(net.file))] if net else []
        allowance = current_allowance()
        return list(dict.fromkeys([*beside, *(allowance.folders if allowance else ())]))

    def _call(self, kind: type[KdnetError], method: str, *given: Any) -> None:
        function: Callable[..., Any] | None = getattr(self.code, method, None)
        if function is None and method in ("setup", "reshape"):
            return
        try:
            if function is None:
                getattr(Layer(), method)(*given)
            else:
                function(*given)
        except Exception as error:
            if self._in_program:
                span = self._span("")
                error.add_note(
                    f'in layer "{self.model.name}" (Python){f", {span}" if span else ""}'
                )
                raise
            raise self._failed(kind, method, error) from error

    def _failed(self, kind: type[KdnetError], doing: str, error: Exception) -> KdnetError:
        frames = traceback.extract_tb(error.__traceback__)
        own = os.path.dirname(__file__)
        theirs = [frame for frame in frames if os.path.dirname(frame.filename) != own]
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        text = f"{doing} raised {said}"
        hints = [f"at {frame.filename}:{frame.lineno}, in {frame.name}" for frame in theirs[-1:]]
        return kind(self._fault("python-layer-failed", text, hints))

    def _fail(
        self, kind: type[KdnetError], code: str, text: str, *hints: str, at: str = ""
    ) -> Any:
        raise kind(self._fault(code, text, hints, self._span(at)))

    def _fault(
        self, code: str, text: str, hints: Sequence[str], span: Span | None = None
    ) -> Diagnostic:
        message = f'layer "{self.model.name}" (Python): {text}'
        return Diagnostic(code, message, span or self._span(""), help=tuple(hints))

    def _span(self, at: str) -> Span | None:
        path = ("python_param", at) if at else ("python_param",)
        return self.model.source.span(path)


def hosted_layer(model: LayerModel, shapes: Sequence[Shape]) -> HostedLayer:
    """A layer of a net that is traced: a new one, or the one that lives already.

    Raises:
        LayerError: what :class:`HostedLayer` raises.
    """
    allowance = current_allowance()
    instances = allowance.instances if allowance else None
    if instances is None:
        return HostedLayer(model, shapes)
    known = instances.get(id(model.message))
    if known is None:
        known = instances[id(model.message)] = HostedLayer(model, shapes, in_program=True)
    else:
        known.reshape(shapes)
    return known
