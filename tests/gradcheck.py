"""The checks that every gradient rule and every layer must pass, on one small graph at a time.

A :class:`Program` says how a graph is built and on which numbers it runs. The graph is built in
float64 and run by ONNX's own reference evaluator, which knows nothing of kdnet; only the float32
comparison uses ONNX Runtime. ``check_all`` runs every check; one that fails raises AssertionError
with names and numbers when it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import erf
from typing import Any

import numpy as np
import onnx
import oracles
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from kdnet.autodiff import gradients
from kdnet.graph import Emitter, Op, Tensor, to_model
from kdnet.graph.serialize import needed_ops

Array = np.ndarray[Any, Any]
Build = Callable[[Emitter, Mapping[str, Tensor]], Mapping[str, Tensor]]

EPSILON = 1e-6
EXHAUSTIVE = 64
SEED = "seed/"
GRADIENT = "d/"
LATE = "noise/"


@dataclass(frozen=True)
class Program:
    """A graph and the numbers it is checked on.

    ``build(g, inputs)`` emits the forward pass and returns its outputs by name. ``arrays`` are
    its inputs: float64, except where the graph reads integers or booleans. Names that begin with
    ``noise/`` are not handed to ``build``: the graph declares such inputs itself and they are
    matched by name. ``wrt`` names the inputs whose gradients are checked, ``seed`` fixes the
    random directions, and ``gradient_of`` limits the outputs that gradients arrive at.
    """

    build: Build
    arrays: Mapping[str, Array]
    wrt: tuple[str, ...] = ()
    provider: str = "cpu"
    seed: int = 0
    gradient_of: tuple[str, ...] = ()


class Conv(OpRun):
    op_domain = ""

    def _run(self, x, w, b=None, **attrs):
        y = oracles.conv(x, w, b, **_geometry(w.shape[2:], attrs), group=attrs.get("group") or 1)
        return (y.astype(x.dtype),)


class ConvTranspose(OpRun):
    op_domain = ""

    def _run(self, x, w, b=None, **attrs):
        more = {"group": attrs.get("group") or 1, "extra": attrs.get("output_padding")}
        y = oracles.conv_transpose(x, w, b, **_geometry(w.shape[2:], attrs), **more)
        return (y.astype(x.dtype),)


class Erf(OpRun):
    op_domain = ""

    def _run(self, x):
        return (_erf(x).astype(x.dtype),)


class Gelu(OpRun):
    op_domain = ""

    def _run(self, x, approximate=None):
        if approximate == "tanh":
            share = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
        else:
            share = _erf(x / np.sqrt(2))
        return ((x * (1 + share) / 2).astype(x.dtype),)


_erf = np.vectorize(erf, otypes=[np.float64])


class LRN(OpRun):
    op_domain = ""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        return (oracles.lrn_across(x, size, alpha, beta, bias).astype(x.dtype),)


def _geometry(kernel: tuple[int, ...], attrs: Mapping[str, Any]) -> dict[str, Any]:
    axes = len(kernel)
    return {
        "strides": attrs.get("strides") or [1] * axes,
        "dilations": attrs.get("dilations") or [1] * axes,
        "pads": attrs.get("pads") or [0] * 2 * axes,
    }


# onnx.reference has no grouped ConvTranspose, sums LRN over the wrong axis, rounds Erf to float32
# (inside Gelu too), and its Conv is slow.
REFERENCE_OPS = [Conv, ConvTranspose, Erf, Gelu, LRN]


class Traced:
    """A program's graph in one float type: forward, then gradients appended on demand."""

    def __init__(self, program: Program, float_dtype: Any = np.float64) -> None:
        self.program = program
        self.g = Emitter(float_dtype, program.provider)
        self.inputs: dict[str, Tensor] = {}
        for name, array in program.arrays.items():
            if not name.startswith(LATE):
                self.inputs[name] = self.g.input(name, array.shape, _declared(array, self.g))
        self.outputs = dict(program.build(self.g, self.inputs))
        self.forward_count = len(self.g.ops)
        self._adopt_late_inputs()

    def _adopt_late_inputs(self) -> None:
        made = {tensor for op in self.g.ops for tensor in op.outputs}
        for op in self.g.ops:
            for tensor in op.inputs:
                if tensor is not None and tensor.value is None and tensor not in made:
                    self.inputs.setdefault(tensor.name, tensor)

    def float_outputs(self) -> dict[str, Tensor]:
        """The outputs at which a gradient may arrive."""
        chosen = self.program.gradient_of or tuple(self.outputs)
        return {name: self.outputs[name] for name in chosen if self.outputs[name].is_float}

    def with_gradients(self, wrt: tuple[str, ...]) -> dict[str, Tensor]:
        """Append the gradients of Σ ⟨output, seed⟩; name to tensor, absent where there is none."""
        for name, tensor in self.float_outputs().items():
            self.inputs[SEED + name] = self.g.input(SEED + name, tensor.shape, tensor.dtype)
        seeds = [(t, self.inputs[SEED + n]) for n, t in self.float_outputs().items()]
        found = gradients(self.g, seeds, [self.inputs[name] for name in wrt])
        return {name: found[self.inputs[name]] for name in wrt if self.inputs[name] in found}

    def model(self, outputs: Mapping[str, Tensor]) -> onnx.ModelProto:
        """The model of the given outputs, reading only the inputs that they need."""
        kept = needed_ops(self.g.ops, outputs.values())
        read = {tensor for op in kept for tensor in op.inputs} | set(outputs.values())
        inputs = [tensor for tensor in self.inputs.values() if tensor in read]
        return to_model(self.g.ops, inputs, outputs, name="checked")


def _declared(array: Array, g: Emitter) -> Any:
    return g.float_dtype if np.issubdtype(array.dtype, np.floating) else array.dtype


def reference(model: onnx.ModelProto) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """A function that runs the model on the reference evaluator."""
    evaluator = ReferenceEvaluator(model, new_ops=REFERENCE_OPS)
    wanted = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    labels = [value.name for value in model.graph.output]

    def run(arrays: Mapping[str, Array]) -> dict[str, Array]:
        feeds = {
            name: np.asarray(arrays[name], onnx.helper.tensor_dtype_to_np_dtype(kind))
            for name, kind in wanted.items()
        }
        found = evaluator.run(None, feeds)
        return dict(zip(labels, map(np.asarray, found), strict=True))

    return run


def onnxruntime_run(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The model's outputs from ONNX Runtime on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["Pad_Fusion"],
    )
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    feeds = {
        name: np.asarray(arrays[name], onnx.helper.tensor_dtype_to_np_dtype(kind), order="C")
        for name, kind in kinds.items()
    }
    labels = [value.name for value in model.graph.output]
    return dict(zip(labels, session.run(labels, feeds), strict=True))


class Check:
    """All checks of one program."""

    def __init__(self, program: Program, tol: float = 1e-6, ort_tol: float = 2e-5) -> None:
        self.program = program
        self.tol = tol
        self.ort_tol = ort_tol

    @cached_property
    def traced(self) -> Traced:
        """The float64 graph with the gradients of ``wrt``."""
        traced = Traced(self.program)
        self._gradients = traced.with_gradients(self.program.wrt)
        return traced

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """Outputs and gradients of the float64 graph."""
        outputs = dict(self.traced.outputs)
        return outputs | {GRADIENT + name: t for name, t in self._gradients.items()}

    @cached_property
    def model(self) -> onnx.ModelProto:
        """Forward and gradients in one float64 model."""
        return self.traced.model(self.outputs)

    @cached_property
    def seeds(self) -> dict[str, Array]:
        """A random gradient for every float output."""
        rng = np.random.default_rng([self.program.seed, 1])
        shapes = {name: tensor.shape for name, tensor in self.traced.float_outputs().items()}
        return {SEED + name: rng.standard_normal(shape) for name, shape in shapes.items()}

    @cached_property
    def results(self) -> dict[str, Array]:
        """Every output and gradient in float64, from the reference evaluator."""
        return reference(self.model)({**self.program.arrays, **self.seeds})

    def forward(self) -> dict[str, Array]:
        """The outputs in float64."""
        return {name: self.results[name] for name in self.traced.outputs}

    def gradient(self, name: str) -> Array:
        """The gradient by an input in float64; zeros where the graph has none."""
        return self.results.get(GRADIENT + name, np.zeros(self.program.arrays[name].shape))

    def shapes(self) -> None:
        """The emitter's shapes and types are those of strict inference and of the run."""
        inferred = onnx.shape_inference.infer_shapes(
            self.model, check_type=True, strict_mode=True, data_prop=True
        ).graph
        types = {v.name: v.type.tensor_type for v in [*inferred.value_info, *inferred.output]}
        for tensor in _produced(self.traced.g.ops):
            if tensor.name in types:
                known = types[tensor.name]
                shape = tuple(dim.dim_value for dim in known.shape.dim)
                dtype = onnx.helper.tensor_dtype_to_np_dtype(known.elem_type)
                assert (tensor.shape, tensor.dtype) == (shape, dtype), f"inferred: {tensor.name}"
        for name, tensor in self.outputs.items():
            assert self.results[name].shape == tensor.shape, f"computed: {name}"

    def checker(self) -> None:
        """ONNX's full checker accepts the model."""
        onnx.checker.check_model(self.model, full_check=True)

    def stable(self) -> None:
        """Building the same program again gives the same bytes."""
        again = Check(self.program)
        assert _bytes(self.model) == _bytes(again.model), "two builds differ"

    def finite_differences(self) -> None:
        """Gradients equal central differences, along a direction and by each element."""
        self._directional(seed=0)
        for name in self.program.wrt:
            if self.program.arrays[name].size <= EXHAUSTIVE:
                self._by_element(name)

    def _directional(self, seed: int) -> None:
        error = self._directional_error(seed)
        if error > self.tol:
            other = self._directional_error(seed + 1)
            raise AssertionError(
                f"directional derivative off by {error:.2e} (another direction: {other:.2e}), "
                f"allowed {self.tol:.0e}"
            )

    def _directional_error(self, seed: int) -> float:
        rng = np.random.default_rng([self.program.seed, 2, seed])
        arrays = self.program.arrays
        steps = {name: rng.standard_normal(arrays[name].shape) for name in self.program.wrt}
        numeric = self._slope(steps)
        analytic = sum(float(np.sum(self.gradient(n) * step)) for n, step in steps.items())
        return abs(analytic - numeric) / max(abs(analytic), abs(numeric), 1.0)

    def _by_element(self, name: str) -> None:
        gradient = self.gradient(name)
        for index in np.ndindex(gradient.shape):
            step = np.zeros(gradient.shape)
            step[index] = 1.0
            numeric, analytic = self._slope({name: step}), float(gradient[index])
            allowed = self.tol * max(abs(numeric), abs(analytic), 1.0)
            assert abs(numeric - analytic) <= allowed, (
                f"d/d{name}{list(index)}: rule {analytic:.9g}, differences {numeric:.9g}"
            )

    @cached_property
    def _value(self) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        traced = Traced(self.program)
        return reference(traced.model(traced.float_outputs()))

    def _slope(self, steps: Mapping[str, Array]) -> float:
        """The derivative of Σ ⟨output, seed⟩ along ``steps`` by a central difference."""
        arrays = self.program.arrays
        ahead = {**arrays, **{n: arrays[n] + EPSILON * step for n, step in steps.items()}}
        behind = {**arrays, **{n: arrays[n] - EPSILON * step for n, step in steps.items()}}
        up, down = self._value(ahead), self._value(behind)
        rise = sum(np.sum((up[name] - down[name]) * self.seeds[SEED + name]) for name in up)
        return float(rise) / (2 * EPSILON)

    def float32(self) -> None:
        """ONNX Runtime in float32 agrees with the reference evaluator in float64."""
        single = Traced(self.program, np.float32)
        found = single.with_gradients(self.program.wrt)
        outputs = single.outputs | {GRADIENT + name: tensor for name, tensor in found.items()}
        model = single.model(outputs)
        arrays = {**self.program.arrays, **self.seeds}
        rounded = {name: _rounded(array) for name, array in arrays.items()}
        expected = reference(self.model)(rounded)
        for name, value in onnxruntime_run(model, rounded).items():
            error = relative_error(value, expected[name])
            assert error <= self.ort_tol, f"{name}: ONNX Runtime is off by {error:.2e}"

    def frozen(self) -> None:
        """Nothing is emitted for nobody, and for one input nothing that its gradient ignores."""
        traced = Traced(self.program)
        traced.with_gradients(())
        assert len(traced.g.ops) == traced.forward_count, "gradient ops that nobody wanted"
        for name in self.program.wrt:
            one = Traced(self.program)
            found = one.with_gradients((name,))
            needed = set(needed_ops(one.g.ops, found.values()))
            unread = [op.name for op in one.g.ops[one.forward_count :] if op not in needed]
            assert not unread, f"for d{name} alone, in vain: {unread}"

    def all(self) -> None:
        """Every check."""
        self.shapes()
        self.checker()
        self.stable()
        self.frozen()
        self.finite_differences()
        self.float32()


def check_all(program: Program, *, tol: float = 1e-6, ort_tol: float = 2e-5) -> Check:
    """Run every check on a program; return it for further questions."""
    check = Check(program, tol, ort_tol)
    check.all()
    return check


def relative_error(found: Array, expected: Array) -> float:
    """The largest difference, relative to the largest expected value or 1."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        raise AssertionError(f"shape {found.shape} instead of {expected.shape}")
    if not found.size:
        return 0.0
    return float(np.max(np.abs(found - expected)) / max(1.0, float(np.max(np.abs(expected)))))


def _produced(ops: list[Op]) -> list[Tensor]:
    return [tensor for op in ops for tensor in op.outputs]


def _rounded(array: Array) -> Array:
    """Numbers that float32 holds exactly, so that both evaluators see the same ones."""
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32).astype(np.float64)
    return array


def _bytes(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)
