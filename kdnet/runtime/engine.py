"""One program in one ONNX Runtime session, run by IO binding."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Program
from kdnet.compile.program import LOSS, RATE
from kdnet.runtime.device import CUDA_PROVIDER, Device, onnxruntime
from kdnet.runtime.failures import session_failure, step_failure
from kdnet.runtime.optimizers import left_out, model_bytes, optimizes
from kdnet.runtime.state import StateBuffers

Array = NDArray[Any]
# The runtime's highest severity of log messages.
FATAL = 4
GRAPH = "optimized.onnx"
# Weights are written with the graph, and a protobuf message may not exceed 2 GiB.
GRAPH_BYTES = 1 << 30


def thread_count() -> int:
    """The processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Engine:
    """A session of one program.

    Attributes:
        program: the program.
        feeding: what a batch must feed: more than the program's own where others run with it.

    Args:
        program: the model and the meaning of its inputs.
        device: where it runs.
        frozen: arrays of the weights that are constants of the session; extra names are allowed.
        threads: intra-op threads; 0 for all processors that the process may use.
        profile_in: a folder; every run is profiled until :meth:`end_profile`, and the graph as
            the runtime optimized it is written there as ``GRAPH``, unless it is huge.
    """

    def __init__(
        self,
        program: Program,
        device: Device,
        frozen: Mapping[str, Array],
        threads: int = 0,
        *,
        profile_in: str = "",
    ) -> None:
        self.program = program
        self.feeding = program
        self.device = device
        self._profile_in = profile_in
        self._ort = onnxruntime()
        self._held = {name: self._on_cpu(frozen[name]) for name in program.frozen}
        self._session = self._start(threads)
        self._bindings: dict[tuple[int, ...], tuple[Any, Any, list[Any]]] = {}
        self._outputs = [report.output for report in program.reports]
        if program.has_loss:
            self._outputs.append(LOSS)
        self._outputs += program.watched
        self._scalars = [slot.name for slot in program.scalars]
        self._scalars += [RATE] if program.has_rate else []
        # On CUDA inputs and outputs keep their addresses, as CUDA graphs need.
        self._on_device = self._fixed_inputs() if device.kind == "cuda" else {}

    def _fixed_inputs(self) -> dict[str, Any]:
        program = self.program
        shapes: dict[str, tuple[int, ...]] = program.data | program.hosted
        shapes |= {slot.name: slot.shape for slot in program.noise}
        shapes |= dict.fromkeys(self._scalars, ())
        return {name: self._empty(shape) for name, shape in shapes.items()}

    def _empty(self, shape: tuple[int, ...]) -> Any:
        zeros = np.zeros(shape, np.float32)
        return self._ort.OrtValue.ortvalue_from_numpy(zeros, self.device.kind, self.device.index)

    def _start(self, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads or thread_count()
        # Errors are raised, and told with their place: the runtime need not print them too.
        options.log_severity_level = FATAL
        if self._held:
            # The arrays must outlive the session: it reads them without a copy.
            options.add_external_initializers(list(self._held), list(self._held.values()))
        if self.device.kind == "cuda":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if self._profile_in:
            self._profile(options)
        nodes = self.program.model.graph.node
        if not optimizes(nodes, constants=bool(self._held)):
            levels = self._ort.GraphOptimizationLevel
            options.graph_optimization_level = levels.ORT_DISABLE_ALL
        try:
            session = self._ort.InferenceSession(
                model_bytes(self.program.model),
                options,
                providers=self.device.providers,
                disabled_optimizers=left_out(nodes, constants=bool(self._held)),
            )
        except Exception as error:
            raise session_failure(error, self.program.model, str(self.device)) from error
        session.disable_fallback()
        if self.device.kind == "cuda" and session.get_providers()[0] != CUDA_PROVIDER:
            raise session_failure(
                RuntimeError("the session runs on the CPU"), self.program.model, str(self.device)
            )
        return session

    def _profile(self, options: Any) -> None:
        folder = Path(self._profile_in)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        held = (value.numpy().nbytes for value in self._held.values())
        if self.program.model.ByteSize() + sum(held) < GRAPH_BYTES:
            options.optimized_model_filepath = str(folder / GRAPH)

    def end_profile(self) -> Path:
        """Stop profiling; the file with what was seen."""
        return Path(self._session.end_profiling())

    def _on_cpu(self, array: Array) -> Any:
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, np.float32))

    def run(
        self,
        buffers: StateBuffers,
        feeds: Mapping[str, Array],
        scalars: Mapping[str, float] | None = None,
        *,
        keep: bool = True,
    ) -> dict[str, Array]:
        """One run: state from ``buffers`` and back, everything else from ``feeds``.

        Args:
            buffers: holds every input in ``program.reads`` and ``program.state``.
            feeds: data and noise by input name.
            scalars: the learning rate under ``RATE`` and scheduled numbers, by input name.
            keep: whether the new state becomes the current one.

        Returns:
            Each report's and watched tensor's array by output name, and the total loss under
            ``LOSS``.

        Raises:
            RunError: what the runtime said, at the prototxt position of the failing node.
        """
        binding, options, outputs = self._binding(buffers)
        # Held until the run is over: on the CPU a binding points into these arrays.
        values = self._feed(binding, feeds, scalars or {})
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:
            raise step_failure(error, self.program.model) from error
        del values
        if keep:
            buffers.flip(slot.name for slot in self.program.state)
        found = outputs or binding.get_outputs()[len(self.program.state) :]
        return {name: value.numpy() for name, value in zip(self._outputs, found, strict=True)}

    def _feed(
        self, binding: Any, feeds: Mapping[str, Array], scalars: Mapping[str, float]
    ) -> list[Any]:
        """Hand over data, noise and scalars; what must stay alive while the run lasts."""
        fed = [
            *self.program.data,
            *self.program.hosted,
            *(slot.name for slot in self.program.noise),
        ]
        arrays = {name: np.ascontiguousarray(feeds[name], np.float32) for name in fed}
        for name in self._scalars:
            arrays[name] = np.array(scalars.get(name, 0.0), np.float32)
        if self._on_device:
            for name, array in arrays.items():
                self._on_device[name].update_inplace(array)
            return []
        values = []
        for name, array in arrays.items():
            values.append(self._ort.OrtValue.ortvalue_from_numpy(array))
            binding.bind_ortvalue_input(name, values[-1])
        return values

    def _binding(self, buffers: StateBuffers) -> tuple[Any, Any, list[Any]]:
        """A binding of the state as it lies now, its run options and its output buffers.

        There are two for each program, since the two sides of the state swap; a captured CUDA
        graph belongs to one of them.
        """
        program = self.program
        names = [*program.reads, *(slot.name for slot in program.state)]
        sides = buffers.sides(names)
        if sides not in self._bindings:
            binding = self._session.io_binding()
            for name in names:
                binding.bind_ortvalue_input(name, buffers.current(name))
            for name, value in self._on_device.items():
                binding.bind_ortvalue_input(name, value)
            for slot in program.state:
                binding.bind_ortvalue_output(slot.following, buffers.other(slot.name))
            options = self._ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(len(self._bindings) + 1))
            self._bindings[sides] = (binding, options, self._bind_outputs(binding))
        return self._bindings[sides]

    def _bind_outputs(self, binding: Any) -> list[Any]:
        """Fixed buffers on CUDA; on the CPU the session makes them anew, and the list is empty."""
        shapes = {report.output: report.shape for report in self.program.reports}
        shapes |= self.program.watched
        found = []
        for name in self._outputs:
            if self.device.kind == "cpu":
                binding.bind_output(name, "cpu")
            else:
                found.append(self._empty(shapes.get(name, ())))
                binding.bind_ortvalue_output(name, found[-1])
        return found
