"""Runs a user's Python layer on the host: finds its class, calls it, tells its faults."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from numpy.typing import NDArray

from kdnet.errors import Diagnostic, KdnetError, LayerError, RunError, Span, did_you_mean
from kdnet.layers.python.blob import Blob
from kdnet.layers.python.user import Layer
from kdnet.net import LayerModel

Array = NDArray[Any]
Shape = tuple[int, ...]

_folders: ContextVar[tuple[str, ...] | None] = ContextVar("folders", default=None)


@contextmanager
def allowed_python(*folders: str) -> Iterator[None]:
    """While the block runs, nets may hold Python layers.

    Their modules are sought beside the net, then in ``folders``, then where Python itself looks,
    PYTHONPATH among it.
    """
    token = _folders.set(tuple(os.path.abspath(folder) for folder in folders))
    try:
        yield
    finally:
        _folders.reset(token)


def python_is_allowed() -> bool:
    """Whether a block of :func:`allowed_python` runs."""
    return _folders.get() is not None


class HostedLayer:
    """One layer's instance of a user's class, with the blobs that it is called with.

    Args:
        model: the layer in its net.
        shapes: of the bottoms.

    Raises:
        LayerError: python-module, python-class, python-weights, python-layer-failed.
    """

    def __init__(self, model: LayerModel, shapes: Sequence[Shape]) -> None:
        self.model = model
        self.bottoms = [Blob(shape) for shape in shapes]
        self.tops = [Blob(()) for _ in model.tops]
        self._code: Any = self._made()
        self._call(LayerError, "setup", self.bottoms, self.tops)
        self._call(LayerError, "reshape", self.bottoms, self.tops)
        if len(self._code.blobs):
            self._fail(LayerError, "python-weights", "weights of Python layers are not built")
        self.shapes = [top.shape for top in self.tops]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        """The tops' values, given the bottoms'.

        Raises:
            RunError: python-layer-failed; python-shape-changed, as a graph's shapes are fixed.
        """
        for blob, values in zip(self.bottoms, bottoms, strict=True):
            # A blob's arrays are what the code may keep hold of: they stay the same ones.
            blob.data[...] = values
        self._call(RunError, "reshape", self.bottoms, self.tops)
        found = [top.shape for top in self.tops]
        if found != self.shapes:
            index = next(i for i, shape in enumerate(found) if shape != self.shapes[i])
            self._fail(
                RunError,
                "python-shape-changed",
                f'reshape gave top "{self.model.tops[index]}" the shape {found[index]}; it was '
                f"{self.shapes[index]} when the net was compiled",
                "pad to a fixed shape: a compiled graph cannot follow",
            )
        self._call(RunError, "forward", self.bottoms, self.tops)
        return [top.data.copy() for top in self.tops]

    def backward(self, slopes: Sequence[Array | None], wanted: Sequence[bool]) -> list[Array]:
        """The bottoms' gradients, given the tops'; what is not wanted stays 0.

        Raises:
            RunError: python-layer-failed.
        """
        for blob, slope in zip(self.tops, slopes, strict=True):
            blob.diff[...] = 0 if slope is None else slope
        for blob in self.bottoms:
            blob.diff[...] = 0
        self._call(RunError, "backward", self.tops, list(wanted), self.bottoms)
        return [blob.diff.copy() for blob in self.bottoms]

    def _made(self) -> Any:
        found = self._class()
        try:
            code = found.__new__(found)
            code.__init__()
        except Exception as error:
            raise self._failed(LayerError, "__init__", error) from error
        code.param_str = self.model.message.python_param.param_str
        code.phase, code.name, code.blobs = int(self.model.phase), self.model.name, []
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
        return list(dict.fromkeys([*beside, *(_folders.get() or ())]))

    def _call(self, kind: type[KdnetError], method: str, *given: Any) -> None:
        function: Callable[..., Any] | None = getattr(self._code, method, None)
        if function is None and method in ("setup", "reshape"):
            return
        try:
            if function is None:
                getattr(Layer(), method)(*given)
            else:
                function(*given)
        except Exception as error:
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
