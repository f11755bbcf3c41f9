"""What ONNX Runtime says, turned back into prototxt positions."""

from __future__ import annotations

import re
from pathlib import Path

import onnx

from kdnet.errors import Diagnostic, RunError, Span
from kdnet.graph import SOURCE_KEY

NODE_NAME = re.compile(r"[Nn]ame:\s*'([^']+)'|node_name:\s*(\S+)|Node \(([^)]+)\)")
OUT_OF_MEMORY = ("bad_alloc", "out of memory", "Failed to allocate memory", "CUDA_ERROR_OUT_OF")


def node_span(model: onnx.ModelProto, text: str) -> Span | None:
    """The prototxt position of the node that a message names."""
    match = NODE_NAME.search(text)
    if not match:
        return None
    name = next(group for group in match.groups() if group)
    for node in model.graph.node:
        if node.name == name:
            sources = [entry.value for entry in node.metadata_props if entry.key == SOURCE_KEY]
            return span_of(sources[0]) if sources else None
    return None


def span_of(source: str) -> Span | None:
    """A ``file:line:column`` text as a Span, with the line itself where the file is there."""
    file, _, rest = source.rpartition(":")
    file, _, line = file.rpartition(":")
    if not (file and line.isdigit() and rest.isdigit()):
        return None
    try:
        text = Path(file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    except (OSError, UnicodeDecodeError, IndexError):
        text = ""
    return Span(file, int(line), int(rest), 1, text)


def _message(error: Exception) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    return text.splitlines()[0] if text else type(error).__name__


def _code(error: Exception, otherwise: str) -> str:
    memory = any(word in str(error) for word in OUT_OF_MEMORY)
    return "out-of-memory" if memory else otherwise


def session_failure(error: Exception, model: onnx.ModelProto, device: str) -> RunError:
    """A session could not be made: session-failed, or out-of-memory."""
    text = f"the graph does not start on {device}: {_message(error)}"
    return RunError(Diagnostic(_code(error, "session-failed"), text, node_span(model, str(error))))


def step_failure(error: Exception, model: onnx.ModelProto) -> RunError:
    """A run failed: step-failed, or out-of-memory."""
    text = f"the step failed: {_message(error)}"
    return RunError(Diagnostic(_code(error, "step-failed"), text, node_span(model, str(error))))
