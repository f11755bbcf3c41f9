"""The whole job on the digits that the repository ships: teacher, student alone, distilled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdnet.data.convert import convert
from kdnet.data.importers.images import Options
from kdnet.errors import UsageError, fail
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import TrainOptions
from kdnet.runtime.setup import prepare
from kdnet.runtime.trainer import Trainer
from kdnet.weights import LayerBlobs, read_weights, write_caffemodel

Tell = Callable[[str], None]
NETS = Path("nets/mnist")
DATA = Path("runs/mnist")
TEACHER_PREFIX = "teacher/"
STUDENT_PREFIX = "student/"


@dataclass(frozen=True)
class Result:
    """One trained net of the demo: its scores on the test digits, its size, its file."""

    name: str
    accuracy: float
    loss: float
    parameters: int
    size_bytes: int
    path: str


def make_databases() -> None:
    """LMDBs of the shipped digits, unless they are there.

    Raises:
        UsageError: not-in-repository, when the working directory has no nets/mnist/data.
    """
    if not (NETS / "data").is_dir():
        text = "the demo needs nets/mnist/data, which comes with the repository"
        fail(UsageError, "not-in-repository", text, help=("run it from the repository's root",))
    for part in ("train", "test"):
        target = DATA / f"{part}_lmdb"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            convert([NETS / "data"], target, Options(part=part))


def train(
    net: str, out: Path, *, device: str, seed: int, weights: tuple[str, ...] = ()
) -> tuple[Trainer, str]:
    """Train one net of ``nets/mnist`` with its solver; the trainer and the snapshot's path."""
    out.mkdir(parents=True, exist_ok=True)
    log = CaffeLog(path=str(out / f"{net}.log"), print_line=lambda _line: None)
    options = TrainOptions(
        path=str(NETS / f"{net}.prototxt"),
        weights=weights,
        device=device,
        out=str(out),
        seed=seed,
    )
    trainer = Trainer(prepare(options, log))
    trainer.solve()
    log.close()
    return trainer, trainer.saved


def renamed(path: str, target: str, rename: Callable[[str], str]) -> str:
    """A copy of a weight file with other layer names."""
    file = read_weights(path)
    layers = [LayerBlobs(rename(x.name), x.type, x.blobs) for x in file.layers]
    write_caffemodel(target, layers, net_name=file.net_name)
    return target


def result(name: str, trainer: Trainer, path: str, prefix: str = "") -> Result:
    """The scores of a trained net, and the size of its layers below ``prefix``."""
    layers = [x for x in read_weights(path).layers if x.name.startswith(prefix)]
    scores = trainer.blob_scores(0)
    return Result(
        name,
        scores["accuracy"],
        scores["loss"],
        sum(blob.size for layer in layers for blob in layer.blobs),
        Path(path).stat().st_size,
        path,
    )


def run_demo(
    out: Path, *, device: str = "auto", seed: int = 0, tell: Tell = print
) -> list[Result]:
    """Train a LeNet teacher, a small student alone, and the same student from the teacher."""
    tell("making LMDBs of the shipped digits")
    make_databases()
    tell("training the teacher (lenet_teacher)")
    teacher, teacher_path = train("lenet_teacher", out, device=device, seed=seed)
    prefixed = renamed(
        teacher_path, str(out / "teacher.caffemodel"), lambda name: TEACHER_PREFIX + name
    )
    tell("training the student alone (lenet_student)")
    alone, alone_path = train("lenet_student", out, device=device, seed=seed)
    tell("distilling the teacher into the student (lenet_joined)")
    joined, joined_path = train("lenet_joined", out, device=device, seed=seed, weights=(prefixed,))
    return [
        result("teacher", teacher, teacher_path),
        result("student alone", alone, alone_path),
        result("distilled student", joined, joined_path, STUDENT_PREFIX),
    ]
