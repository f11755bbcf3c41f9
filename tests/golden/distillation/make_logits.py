"""Make logits.npz: what the authors' own code says of their losses between logits.

    python make_logits.py FOLDER

Needs PyTorch. FOLDER holds a checkout of each repository of ``COMMITS``, named after it. Of each
file only the functions and classes at its top level are run, on float64. Losses without a public
implementation of their authors are PyTorch's.

Keys are ``<case>/<name>``: ``prototxt``, the layer's text without name, bottoms and tops;
``source``, where the value is from; ``bottom0``, ... and ``param0``, ... (float32); ``top0``,
``bottomdiff0`` and ``paramdiff0``, the value and its gradients (float64).
"""

from __future__ import annotations

import ast
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

COMMITS = {
    "CTKD": ("zhengli97", "7d5252241259ae70d38a832371fed9697d15fc14"),
    "Multi-Level-Logit-Distillation": ("Jin-Ying", "5ee473fcf193dfb00a0598b64d0acfe6ad58a482"),
    "Teacher-free-Knowledge-Distillation": (
        "yuanli2333",
        "d000ab378a409535a5f5f645b473e05e27529a02",
    ),
    "Weighted-Soft-Label-Distillation": (
        "bellymonster",
        "67820dd7c3c733d5331b78b1e66ef8a990391d5e",
    ),
    "cs-kd": ("alinlab", "b447f250405932501cb28db0dc09eadeab526b80"),
    "image_classification_sota": ("hunto", "6f7a70a1dd57fd88413d83909d3d53243068f701"),
    "logit-standardization-KD": (
        "sunshangquan",
        "f6e5aa5172bad618e801163c3385322eea673754",
    ),
    "mdistiller": ("megvii-research", "a08d46f10d6102bd6e3f258ca5ac880b020ea259"),
}
Value = Callable[..., torch.Tensor]


class Distiller:
    """The base class of mdistiller's methods, with nets that answer from the image."""

    def __init__(self, student: object, teacher: object) -> None:
        self.student, self.teacher = student, teacher


class Authors:
    """The definitions in the authors' files, and the arrays of every case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays: dict[str, np.ndarray] = {}
        for name, (_owner, commit) in COMMITS.items():
            command = ["git", "-C", str(folder / name), "rev-parse", "HEAD"]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            if found.strip() != commit:
                raise SystemExit(f"{name} is at {found.strip()}, not at {commit}")

    def read(self, repository: str, path: str, **more: object) -> SimpleNamespace:
        """Functions and classes at the top level of a file; ``source`` names the file."""
        tree = ast.parse((self.folder / repository / path).read_text())
        tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        space = {"torch": torch, "nn": nn, "F": functional, "np": np, "math": math}
        space |= {"Distiller": Distiller, "Function": torch.autograd.Function, **more}
        exec(compile(tree, path, "exec"), space)  # noqa: S102  # the authors' code is the reference
        owner, commit = COMMITS[repository]
        return SimpleNamespace(**space, source=f"{owner}/{repository} {commit[:7]} {path}")

    def add(
        self,
        case: str,
        text: str,
        value: Value,
        bottoms: list[np.ndarray],
        params: list[np.ndarray] | None = None,
        source: str = f"torch {torch.__version__}",
    ) -> None:
        """Compute a case: the value, and its gradients by bottom 0 and by every parameter."""
        inputs = [np.asarray(array, np.float32) for array in [*bottoms, *(params or [])]]
        tensors = [torch.from_numpy(array.astype(np.float64)) for array in inputs]
        wanted = [tensors[0], *tensors[len(bottoms) :]]
        for tensor in wanted:
            tensor.requires_grad_()
        top = value(*tensors)
        slopes = torch.autograd.grad(top, wanted)
        names = [f"bottom{i}" for i in range(len(bottoms))]
        names += [f"param{i}" for i in range(len(params or []))]
        found = dict(zip(names, inputs, strict=True))
        diffs = ["bottomdiff0", *(f"paramdiff{i}" for i in range(len(params or [])))]
        found |= {n: d.numpy() for n, d in zip(diffs, slopes, strict=True)}
        found |= {"top0": top.detach().numpy(), "prototxt": np.array(text)}
        found["source"] = np.array(source)
        self.arrays |= {f"{case}/{name}": array for name, array in found.items()}


def logits(rng: np.random.Generator, count: int = 2, shape: tuple[int, ...] = (6, 10)) -> list:
    return [3 * rng.standard_normal(shape) for _ in range(count)]


def labels(rng: np.random.Generator, classes: int = 10, count: int = 6) -> np.ndarray:
    return rng.integers(0, classes, count)


def soft_targets(authors: Authors, rng: np.random.Generator) -> None:
    name, field = "TeacherStudentCrossEntropy", "teacher_student_cross_entropy_param"
    plain = authors.read("mdistiller", "mdistiller/distillers/KD.py")
    scaled = authors.read("logit-standardization-KD", "mdistiller/distillers/KD.py")
    selves = authors.read("cs-kd", "train.py")

    def text(more: str) -> str:
        return f'type: "{name}" {field} {{ {more} }}'

    for t in (1, 4):
        kl = text(f"divergence: KL temperature: {t}")
        authors.add(
            f"{name}/kl_{t}",
            kl,
            lambda s, z, t=t: plain.kd_loss(s, z, t),
            logits(rng),
            source=plain.source,
        )
        authors.add(
            f"{name}/standardize_{t}",
            text(f"divergence: KL standardize: true temperature: {t}"),
            lambda s, z, t=t: scaled.kd_loss(s, z, t, True),
            logits(rng),
            source=scaled.source,
        )
    authors.add(
        f"{name}/classwise",
        text("divergence: KL temperature: 4"),
        selves.KDLoss(4),
        logits(rng),
        source=selves.source,
    )
    divergences(authors, rng, text)


def softened(z: torch.Tensor, t: float) -> torch.Tensor:
    return torch.softmax(z / t, dim=1)


def mean_kl(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return functional.kl_div(q.log(), p, reduction="batchmean")


def jensen_shannon(s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    q, p = softened(s, 2), softened(z, 2)
    return 4 * (mean_kl((p + q) / 2, p) + mean_kl((p + q) / 2, q)) / 2


def black_box(s: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return 9 * functional.cross_entropy(s / 3, torch.softmax(r.log() / 3, dim=1))


def of_logits(s: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return 16 * functional.cross_entropy(s / 4, softened(0.75 * a + 0.25 * b, 4))


def of_probabilities(s: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return 16 * functional.cross_entropy(s / 4, (softened(a, 4) + softened(b, 4)) / 2)


def divergences(authors: Authors, rng: np.random.Generator, text: Callable[[str], str]) -> None:
    name = "TeacherStudentCrossEntropy"
    authors.add(
        f"{name}/cross_entropy",
        text("temperature: 4"),
        lambda s, z: 16 * functional.cross_entropy(s / 4, softened(z, 4)),
        logits(rng),
    )
    authors.add(f"{name}/js", text("divergence: JS temperature: 2"), jensen_shannon, logits(rng))
    authors.add(
        f"{name}/reverse_kl",
        text("divergence: REVERSE_KL temperature: 2"),
        lambda s, z: 4 * mean_kl(softened(z, 2), softened(s, 2)),
        logits(rng),
    )
    answers = rng.dirichlet(np.full(10, 0.5), 6)
    answers[:, 3] = 0
    authors.add(
        f"{name}/black_box",
        text("teacher: PROBABILITIES temperature: 3"),
        black_box,
        [*logits(rng, 1), answers],
    )
    ensemble = text("ensemble: LOGITS temperature: 4 teacher_weight: 3 teacher_weight: 1")
    authors.add(f"{name}/ensemble_logits", ensemble, of_logits, logits(rng, 3))
    authors.add(f"{name}/ensemble", text("temperature: 4"), of_probabilities, logits(rng, 3))
    authors.add("LogitsMSE/default", 'type: "LogitsMSE"', nn.MSELoss(), logits(rng))


def decoupled(authors: Authors, rng: np.random.Generator) -> None:
    name, field = "DecoupledKnowledgeDistillation", "decoupled_knowledge_distillation_param"
    plain = authors.read("mdistiller", "mdistiller/distillers/DKD.py")
    scaled = authors.read("logit-standardization-KD", "mdistiller/distillers/DKD.py")
    for alpha, beta, t in ((1, 8, 4), (0.5, 2, 1)):
        numbers = f"alpha: {alpha} beta: {beta} temperature: {t}"
        authors.add(
            f"{name}/plain_{t}",
            f'type: "{name}" {field} {{ {numbers} }}',
            lambda s, z, y, a=alpha, b=beta, t=t: plain.dkd_loss(s, z, y.long(), a, b, t),
            [*logits(rng), labels(rng)],
            source=plain.source,
        )
        authors.add(
            f"{name}/standardize_{t}",
            f'type: "{name}" {field} {{ {numbers} standardize: true }}',
            lambda s, z, y, a=alpha, b=beta, t=t: scaled.dkd_loss(s, z, y.long(), a, b, t, True),
            [*logits(rng), labels(rng)],
            source=scaled.source,
        )


def relations(authors: Authors, rng: np.random.Generator) -> None:
    found = authors.read("image_classification_sota", "lib/models/losses/dist_kd.py")
    for beta, gamma, tau in ((1, 1, 1), (2, 0.5, 4)):
        authors.add(
            f"DIST/tau_{tau}",
            f'type: "DIST" dist_param {{ beta: {beta} gamma: {gamma} temperature: {tau} }}',
            found.DIST(beta, gamma, tau),
            logits(rng),
            source=found.source,
        )


def masked(method: type, rest: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Value:
    """The weak view of the whole method: its strong view is of two equal nets, and ``rest``."""
    settings = SimpleNamespace(
        KD=SimpleNamespace(TEMPERATURE=4.0, LOSS=SimpleNamespace(CE_WEIGHT=0.0, KD_WEIGHT=1.0)),
        EXPERIMENT=SimpleNamespace(LOGIT_STAND=True),
    )

    def value(s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        nets = (lambda image: (image[0], None), lambda image: (image[1], None))
        target = torch.zeros(len(s), dtype=torch.long)
        run = method(*nets, settings)
        _, losses = run.forward_train((s, z), (z, z), target)
        return losses["loss_kd"] - rest(s, z) + losses["loss_cc"] + losses["loss_bc"]

    return value


def levels(authors: Authors, rng: np.random.Generator) -> None:
    name, field = "MultiLevelLogitDistillation", "multi_level_logit_distillation_param"
    path = "mdistiller/distillers"
    plain = authors.read("Multi-Level-Logit-Distillation", f"{path}/KD_ours.py")
    scaled = authors.read("logit-standardization-KD", f"{path}/MLKD.py")

    def unmasked(s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        each = (plain.kd_loss, plain.cc_loss, plain.bc_loss)
        return sum(level(s, z, t) for level in each for t in (4.0, 3.0, 5.0, 2.0, 6.0))

    def two(s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """The strong view's terms that read the weak view's logits."""
        return plain.kd_loss(s, z, 2.0) + plain.kd_loss(s, z, 6.0)

    def two_scaled(s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return sum(scaled.kd_loss(s, z, t, logit_stand=True) for t in (2.0, 6.0))

    authors.add(f"{name}/plain", f'type: "{name}"', unmasked, logits(rng), source=plain.source)
    for count in (6, 7):
        authors.add(
            f"{name}/masks_{count}",
            f'type: "{name}" {field} {{ confidence_mask: true }}',
            masked(plain.KD_ours, two),
            logits(rng, shape=(count, 9)),
            source=plain.source,
        )
    authors.add(
        f"{name}/masks_standardize",
        f'type: "{name}" {field} {{ confidence_mask: true standardize: true }}',
        masked(scaled.MLKD, two_scaled),
        logits(rng),
        source=scaled.source,
    )


def teacher_free(authors: Authors, rng: np.random.Generator) -> None:
    found = authors.read("Teacher-free-Knowledge-Distillation", "my_loss_function.py")
    name = "TeacherFreeKnowledgeDistillation"
    for t in (20, 40):
        settings = SimpleNamespace(reg_alpha=1.0, reg_temperature=float(t), multiplier=1.0)
        authors.add(
            f"{name}/temperature_{t}",
            f'type: "{name}" teacher_free_knowledge_distillation_param {{ temperature: {t} }}',
            lambda x, y, s=settings: found.loss_kd_regularization(x, y.long(), s),
            [*logits(rng, 1), labels(rng)],
            source=found.source,
        )
    authors.add(
        "LabelSmoothingCrossEntropy/default",
        'type: "LabelSmoothingCrossEntropy"',
        lambda x, y: found.loss_label_smoothing(x, y.long()),
        [*logits(rng, 1), labels(rng)],
        source=found.source,
    )


def weighted(authors: Authors, rng: np.random.Generator) -> None:
    found = authors.read(
        "Weighted-Soft-Label-Distillation",
        "knowledge_distiller.py",
        config=SimpleNamespace(optim=SimpleNamespace(label_smooth=False)),
    )

    def value(s: torch.Tensor, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        run = found.WSLDistiller(lambda x: x[1], lambda x: x[0])
        _, loss = run((s, z), y.long())
        return (loss - functional.cross_entropy(s, y.long())) / run.alpha

    authors.add(
        "WeightedSoftLabelDistillation/default",
        'type: "WeightedSoftLabelDistillation"',
        value,
        [*logits(rng, shape=(3, 1000)), labels(rng, 1000, 3)],
        source=found.source,
    )


def curriculum(authors: Authors, rng: np.random.Generator) -> None:
    net = authors.read("CTKD", "models/temp_global.py")
    loss = authors.read("CTKD", "distiller_zoo/KD.py")
    name = "CurriculumTemperatureDistillation"
    for reversal in (0.25, 1):

        def value(
            s: torch.Tensor, z: torch.Tensor, theta: torch.Tensor, reversal: float = reversal
        ) -> torch.Tensor:
            adversary = net.GradientReversal()(theta, -reversal)
            return loss.DistillKL()(s, z, 1 + 20 * torch.sigmoid(adversary)).sum()

        authors.add(
            f"{name}/reversal_{reversal}",
            f'type: "{name}" curriculum_temperature_distillation_param {{ reversal: {reversal} }}',
            value,
            logits(rng),
            [rng.standard_normal(1)],
            source=net.source,
        )


def binary(authors: Authors, rng: np.random.Generator) -> None:
    name, field = "SoftLabelSigmoidCrossEntropy", "soft_label_sigmoid_cross_entropy_param"

    def value(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        known = target >= 0
        weight = torch.where(known, 4 * (target - 0.5) ** 2, 0.0)
        soft = torch.sigmoid(torch.logit(torch.where(known, target, 0.5)) / 2)
        summed = functional.binary_cross_entropy_with_logits(
            x / 2, soft, weight=weight, reduction="sum"
        )
        return 4 * summed / known.sum()

    target = rng.uniform(0, 1, (6, 10))
    target[rng.uniform(0, 1, target.shape) < 0.4] = -1
    authors.add(
        f"{name}/weighted",
        f'type: "{name}" {field} {{ temperature: 2 weight_by_confidence: true }}',
        value,
        [*logits(rng, 1), target],
    )


def main() -> None:
    # Their code asks for a GPU, and for what newer releases of PyTorch call by other names.
    torch.Tensor.cuda = nn.Module.cuda = lambda self: self
    warnings.simplefilter("ignore")
    authors = Authors(Path(sys.argv[1]))
    families = (soft_targets, decoupled, relations, levels, teacher_free, weighted, curriculum)
    for seed, make in enumerate((*families, binary)):
        make(authors, np.random.default_rng(seed))
    np.savez_compressed(Path(__file__).with_name("logits.npz"), **authors.arrays)


if __name__ == "__main__":
    main()
