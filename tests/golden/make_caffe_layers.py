"""Make the golden numbers of every layer with Caffe on a CPU (see README.md beside this file).

Each case runs in a process of its own, because a failed CHECK in Caffe ends the process.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_minloglevel", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import caffe
import numpy as np

HERE = Path(__file__).resolve().parent

Work = Callable[[Any], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Bottom:
    shape: tuple[int, ...]
    kind: str
    argument: str
    fixed: bool


@dataclass(frozen=True)
class Case:
    type: str
    id: str
    bottoms: tuple[Bottom, ...]
    parameters: str
    tops: int
    difftops: int
    phase: str
    params: tuple[str, ...]
    forward: bool
    frozen: bool

    @property
    def has_loss(self) -> bool:
        """True where the layer weighs its tops itself, so no gradient has to be put on them."""
        return self.type.endswith("Loss") or "loss_weight" in self.parameters


def read_bottom(text: str) -> Bottom:
    shape, *words = text.split()
    fixed = "fixed" in words or "label" in words
    words = [word for word in words if word != "fixed"] or ["distinct"]
    argument = words[1] if len(words) > 1 else ""
    axes = () if shape == "scalar" else tuple(int(size) for size in shape.split("x"))
    return Bottom(axes, words[0], argument, fixed)


def read_case(line: str) -> Case:
    title, bottoms, options, parameters = (part.strip() for part in line.split("|"))
    type_, id_ = title.split("/")
    words = dict((word + "=").split("=")[:2] for word in options.split())
    tops = int(words.get("tops", 1))
    return Case(
        type=type_,
        id=id_,
        bottoms=tuple(read_bottom(text) for text in bottoms.split(",") if text.strip()),
        parameters=parameters,
        tops=tops,
        difftops=int(words.get("difftops", tops)),
        phase=words.get("phase", "TRAIN"),
        params=tuple(words["params"].split(",")) if "params" in words else (),
        forward="forward" in words,
        frozen="frozen" in words,
    )


def read_cases(path: Path) -> list[Case]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [read_case(line) for line in lines if line and not line.startswith("#")]


def generator(*key: str) -> np.random.Generator:
    digest = hashlib.blake2b("/".join(key).encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def grid(rng: np.random.Generator, shape: tuple[int, ...], *, shift: int = 0) -> np.ndarray:
    """Shuffled, evenly spaced, exact in float32; two shifts below 8 never give a common value."""
    count = int(np.prod(shape))
    step = 4.0 / 2.0 ** np.ceil(np.log2(max(count, 2)))
    values = (np.arange(count) - count // 2 + 0.5 + shift / 16) * step
    return rng.permutation(values).reshape(shape)


def fill(
    kind: str, argument: str, shape: tuple[int, ...], rng: np.random.Generator, shift: int = 0
) -> np.ndarray:
    values = grid(rng, shape, shift=shift)
    made = {
        "distinct": lambda: values,
        "wide": lambda: values * 64,
        "positive": lambda: values - values.min() + 0.25,
        "unit": lambda: (values - values.min() + 0.0625) / (np.ptp(values) + 0.125),
        "softmax": lambda: np.exp(values) / np.exp(values).sum(axis=1, keepdims=True),
        "label": lambda: rng.integers(int(argument), size=shape),
        "list": lambda: np.array([float(item) for item in argument.split(";")]).reshape(shape),
    }
    array = made[kind]() if kind in made else np.full(shape, float(kind))
    return array.astype(np.float32)


def layer_text(case: Case, extra: str = "") -> str:
    lines = ['name: "layer"', f'type: "{case.type}"']
    lines += [f'bottom: "bottom{i}"' for i in range(len(case.bottoms))]
    lines += [f'top: "top{i}"' for i in range(case.tops)]
    lines += [text for text in (case.parameters, extra) if text]
    return "layer {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def net_text(case: Case) -> str:
    """Bottoms that get a gradient are parameters, so Caffe itself decides what to propagate."""
    text = ""
    for i, bottom in enumerate(case.bottoms):
        fixed = bottom.fixed or case.forward
        type_, field = ("Input", "input_param") if fixed else ("Parameter", "parameter_param")
        dims = " ".join(f"dim: {size}" for size in bottom.shape)
        head = f'name: "bottom{i}" type: "{type_}" top: "bottom{i}"'
        text += f"layer {{ {head} {field} {{ shape {{ {dims} }} }} }}\n"
    weighed = case.forward or case.has_loss
    weights = [1] * case.difftops + [0] * (case.tops - case.difftops)
    extra = "" if weighed else " ".join(f"loss_weight: {weight}" for weight in weights)
    return text + layer_text(case, extra)


def open_net(case: Case) -> caffe.Net:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.prototxt")
        path.write_text(net_text(case))
        return caffe.Net(str(path), getattr(caffe, case.phase))


def set_up(net: caffe.Net, case: Case) -> dict[str, np.ndarray]:
    record = {"prototxt": np.array(layer_text(case)), "phase": np.array(case.phase)}
    for i, bottom in enumerate(case.bottoms):
        rng = generator(case.type, case.id, f"bottom{i}")
        values = fill(bottom.kind, bottom.argument, bottom.shape, rng, shift=i)
        source = (
            net.params[f"bottom{i}"][0] if f"bottom{i}" in net.params else net.blobs[f"bottom{i}"]
        )
        source.data[...] = values
        record[f"bottom{i}"] = values
    for i, blob in enumerate(net.params.get("layer", ())):
        kind = case.params[i] if case.params else "distinct"
        rng = generator(case.type, case.id, f"param{i}")
        blob.data[...] = fill(kind, "", tuple(blob.shape), rng)
        record[f"param{i}"] = blob.data.copy()
    return record


def propagate(net: caffe.Net, case: Case, record: dict[str, np.ndarray]) -> None:
    for i in range(case.tops):
        diff = net.blobs[f"top{i}"].diff
        if not case.has_loss:
            rng = generator(case.type, case.id, f"topdiff{i}")
            values = fill("distinct", "", diff.shape, rng, shift=3)
            diff[...] = values if i < case.difftops else 0
        record[f"topdiff{i}"] = diff.copy()
    net.backward()
    for i, bottom in enumerate(case.bottoms):
        if not bottom.fixed:
            record[f"bottomdiff{i}"] = net.blobs[f"bottom{i}"].diff.copy()
    for i, blob in enumerate(() if case.frozen else net.params.get("layer", ())):
        record[f"paramdiff{i}"] = blob.diff.copy()


def run(case: Case) -> dict[str, np.ndarray]:
    net = open_net(case)
    record = set_up(net, case)
    loss = net._forward(0, len(net.layers) - 1)
    for i in range(case.tops):
        record[f"top{i}"] = net.blobs[f"top{i}"].data.copy()
    if case.has_loss:
        record["loss"] = np.float32(loss)
    if not case.forward:
        propagate(net, case, record)
    return record


def apart(work: Work, case: Any) -> dict[str, np.ndarray] | None:
    """Run in a process of its own; None when that process died."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(work(case)))
    process.start()
    sender.close()
    try:
        record = receiver.recv()
    except EOFError:
        record = None
    process.join()
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", help="layer types to make; all by default")
    parser.add_argument("--cases", type=Path, default=HERE / "caffe/layer_cases.txt")
    parser.add_argument("--out", type=Path, default=HERE / "caffe/layers")
    arguments = parser.parse_args()
    files: dict[str, dict[str, np.ndarray]] = {}
    failed = []
    for case in read_cases(arguments.cases):
        if arguments.types and case.type not in arguments.types:
            continue
        record = apart(run, case)
        if record is None:
            failed.append(f"{case.type}/{case.id}")
            continue
        entries = files.setdefault(case.type, {})
        entries.update({f"{case.id}/{key}": value for key, value in record.items()})
    for type_, entries in files.items():
        np.savez_compressed(arguments.out / f"{type_}.npz", **entries)
    print(f"{len(files)} files; failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
