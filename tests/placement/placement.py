"""Where ONNX Runtime's CUDA provider puts a step graph's nodes; fails unless it takes all.

    python placement.py [--failed-only] STEP.onnx ...

Run it where onnxruntime-gpu is, on a GPU or under the libraries of tests/cuda_stubs. A node left
to the CPU or a copy between the two costs a synchronisation every step and rules out CUDA graphs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

CUDA = "CUDAExecutionProvider"
COPIES = ("MemcpyToHost", "MemcpyFromHost")
SOURCE = "kdnet.source"
FAILED_ONLY = "--failed-only"


@dataclass(frozen=True)
class Placement:
    """What became of one file's nodes: ``strays`` are the nodes not on CUDA, as (op, name)."""

    net: str
    on_cuda: int
    strays: tuple[tuple[str, str], ...]
    copies: int
    refusal: str = ""

    @property
    def clean(self) -> bool:
        """Whether every node is on CUDA, with nothing copied to or from the host."""
        return not (self.strays or self.copies or self.refusal)


def place(path: Path, net: str) -> Placement:
    """Create a CUDA session for a file and read where its nodes went.

    The session that forbids the CPU is the verdict, as on a real GPU. Where it is refused, one
    that allows it tells which nodes were the reason.
    """
    try:
        return _place(path, net, strict=True)
    except Exception as refused:  # the runtime has an exception class per status
        try:
            found = _place(path, net, strict=False)
        except Exception as broken:  # as above: the file cannot be run at all
            return Placement(net, 0, (), 0, str(broken))
        # Without a culprit the refusal itself is all there is to say.
        return found if found.strays else Placement(net, found.on_cuda, (), 0, str(refused))


def _place(path: Path, net: str, *, strict: bool) -> Placement:
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    settings = {
        "session.record_ep_graph_assignment_info": "1",
        "session.disable_cpu_ep_fallback": "1" if strict else "0",
        # Keeps the optimised file below protobuf's 2 GB.
        "session.optimized_model_external_initializers_file_name": "weights.bin",
    }
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder, "optimised.onnx")
        options.optimized_model_filepath = str(optimised)
        session = ort.InferenceSession(path, options, providers=[CUDA])
        if CUDA not in session.get_providers():
            raise RuntimeError("no CUDA device, and no libraries of tests/cuda_stubs in its place")
        graph = onnx.load(optimised, load_external_data=False).graph
    copies = sum(node.op_type in COPIES for node in graph.node)
    taken = [
        (part.ep_name, node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]
    strays = tuple((op, name) for provider, op, name in taken if provider != CUDA)
    return Placement(net, len(taken) - len(strays), strays, copies)


def positions(path: Path) -> dict[str, str]:
    """The prototxt position of each named node, from the metadata that kdnet writes."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return {
        node.name: entry.value
        for node in nodes
        for entry in node.metadata_props
        if entry.key == SOURCE
    }


def table(rows: Sequence[Placement]) -> str:
    """One line a net: its nodes, how many are on CUDA and on the CPU, how many copies."""
    width = max(len("net"), *(len(row.net) for row in rows))
    lines = [f"{'net':{width}}  nodes  on CUDA  on CPU  Memcpy"]
    for row in rows:
        nodes = row.on_cuda + len(row.strays)
        counts = f"{nodes:5}  {row.on_cuda:7}  {len(row.strays):6}  {row.copies:6}"
        lines.append(f"{row.net:{width}}  {counts}{'' if row.clean else '  FAILED'}")
    return "\n".join(lines)


def complaints(row: Placement, at: dict[str, str]) -> list[str]:
    """Why a net failed: each stray node at its prototxt position, then what the runtime said."""
    lines = [
        f'{at.get(name, row.net)}: error: {op} node "{name}" is not on CUDA'
        for op, name in row.strays
    ]
    return [*lines, *([f"{row.net}: error: {row.refusal}"] if row.refusal else [])]


def main(words: Sequence[str]) -> int:
    """Place every file, print the table and the complaints; 1 if anything is not on CUDA."""
    paths = [Path(word) for word in words if word != FAILED_ONLY]
    rows = [place(path, f"{path.parent.name}/{path.stem}") for path in paths]
    shown = [row for row in rows if FAILED_ONLY not in words or not row.clean]
    if shown:
        print(table(shown))
    print(f"{sum(row.clean for row in rows)} of {len(rows)} are on CUDA whole")
    for row, path in zip(rows, paths, strict=True):
        for line in [] if row.clean else complaints(row, positions(path)):
            print(line, file=sys.stderr)
    return 0 if all(row.clean for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
