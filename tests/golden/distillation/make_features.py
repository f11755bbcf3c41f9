"""Make the golden numbers of the feature losses with their authors' public code, in PyTorch.

    python make_features.py --repdistiller PATH --mdistiller PATH --rkd PATH --torchdistill PATH

Each path is a checkout of the repository and commit below. PyTorch runs on the CPU in float64, on
inputs that float32 holds exactly. Keys are ``<case>/<name>``: ``prototxt`` (the layer without
name, bottoms and tops), ``from`` (who computed it), ``bottom0``, ... and ``param0``, ... (inputs),
``loss``, ``bottomdiff0``, ... and ``paramdiff0``, ... (its gradients; none for the teacher).
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

HERE = Path(__file__).resolve().parent
COMMITS = {
    "HobbitLong/RepDistiller": "b84f547c5db6a35318d4671d7d5c4de74c822403",
    "megvii-research/mdistiller": "a08d46f10d6102bd6e3f258ca5ac880b020ea259",
    "lenscloth/RKD": "0a6c3c0c190722d428322bf71703c0ae86c25242",
    "yoshitomo-matsubara/torchdistill": "3e4373c45214c5c56eebac481d5bfe8b8735aa05",
}
# The student's bottoms come first; of FlowMatrix there are two.
Loss = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Case:
    """``loss(*bottoms, *params)`` in torch, and the layer that must agree with it."""

    id: str
    origin: str
    prototxt: str
    bottoms: tuple[tuple[int, ...], ...]
    loss: Loss
    params: tuple[tuple[int, ...], ...] = ()
    students: int = 1


def numbers(case: Case) -> dict[str, np.ndarray]:
    """The case's inputs, its loss and the gradients."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(case.id.encode())))

    def drawn(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape).astype(np.float32), dtype=torch.float64)

    bottoms, params = [drawn(s) for s in case.bottoms], [drawn(s) for s in case.params]
    learners = {f"bottomdiff{i}": x for i, x in enumerate(bottoms[: case.students])}
    learners |= {f"paramdiff{i}": x for i, x in enumerate(params)}
    for x in learners.values():
        x.requires_grad_()
    loss = case.loss(*bottoms, *params).reshape(())
    loss.backward()
    found = {"prototxt": np.array(case.prototxt), "from": np.array(case.origin)}
    found |= {f"bottom{i}": x.detach().numpy().astype(np.float32) for i, x in enumerate(bottoms)}
    found |= {f"param{i}": x.detach().numpy().astype(np.float32) for i, x in enumerate(params)}
    found["loss"] = loss.detach().numpy()
    return found | {name: x.grad.numpy().astype(np.float32) for name, x in learners.items()}


def module(folder: Path, package: str, name: str) -> Any:
    """A module of a checkout, without running its packages' own imports."""
    shell = ModuleType(package)
    shell.__path__ = [str(folder)]
    sys.modules[package] = shell
    return importlib.import_module(f"{package}.{name}")


def with_values(made: torch.nn.Module, names: Sequence[str], values: Any) -> torch.nn.Module:
    """The module in float64 with tensors in place of its parameters; "__" is a level down."""
    made = made.double()
    for name, value in zip(names, values, strict=True):
        owner, _, leaf = name.replace("__", ".").rpartition(".")
        holder = made.get_submodule(owner)
        del holder._parameters[leaf]
        setattr(holder, leaf, value)
    return made


PAIR = ((6, 8, 5, 5), (6, 8, 5, 5))
SMALLER_TEACHER = ((4, 6, 8, 8), (4, 9, 3, 3))
SMALLER_STUDENT = ((4, 6, 4, 4), (4, 5, 7, 7))
VECTORS = ((8, 16), (8, 16))
OTHER_LENGTH = ((8, 16), (8, 24))


SPACES = {"pair": PAIR, "smaller_teacher": SMALLER_TEACHER, "smaller_student": SMALLER_STUDENT}


def staged(loss: Any) -> Loss:
    """The authors' losses of several stages, of one."""
    return lambda s, t: loss([s], [t])[0]


def repdistiller(root: Path) -> list[Case]:
    """HobbitLong/RepDistiller: distiller_zoo, and the regressor of FitNets."""
    names = ("AT", "CC", "FSP", "FitNet", "NST", "PKT", "RKD", "SP", "VID")
    zoo = SimpleNamespace(**{n: module(root / "distiller_zoo", "zoo", n) for n in names})
    hint = zoo.FitNet.HintLoss()
    power = "attention_transfer_param { p: 4 }"
    rows: list[tuple[str, str, Any, Any]] = [
        ("AttentionTransfer/p_4", power, PAIR, staged(zoo.AT.Attention(4))),
        ("CorrelationCongruence/vectors", "", VECTORS, zoo.CC.Correlation()),
        ("Hint/pair", "", PAIR, hint),
        ("Hint/vectors", "", VECTORS, hint),
        ("ProbabilisticKnowledgeTransfer/vectors", "", OTHER_LENGTH, zoo.PKT.PKT()),
        ("RelationalAngle/joint", "", OTHER_LENGTH, zoo.RKD.RKDLoss(0, 1)),
        ("RelationalDistance/joint", "", OTHER_LENGTH, zoo.RKD.RKDLoss(1, 0)),
        ("SimilarityPreserving/maps", "", SMALLER_TEACHER, staged(zoo.SP.Similarity())),
    ]
    for name, shapes in SPACES.items():
        rows.append((f"AttentionTransfer/{name}", "", shapes, staged(zoo.AT.Attention())))
        rows.append((f"NeuronSelectivity/{name}", "", shapes, staged(zoo.NST.NSTLoss())))
    cases = [Case(id_, "HobbitLong/RepDistiller", *rest) for id_, *rest in rows]
    return [*cases, *with_parameters(root, zoo), *flows(zoo)]


def with_parameters(root: Path, zoo: Any) -> list[Case]:
    """Those of RepDistiller that train something of their own."""
    models = module(root / "models", "repdistiller_models", "util")
    origin = "HobbitLong/RepDistiller"

    def regressed(s: torch.Tensor, t: torch.Tensor, *w: torch.Tensor) -> torch.Tensor:
        names = ("conv__weight", "conv__bias", "bn__weight", "bn__bias")
        regressor = with_values(models.ConvReg(s.shape, t.shape), names, w)
        return zoo.FitNet.HintLoss()(regressor(s), t)

    def embedded(s: torch.Tensor, t: torch.Tensor, *w: torch.Tensor) -> torch.Tensor:
        embed = models.LinearEmbed(s.shape[1], t.shape[1])
        mapped = with_values(embed, ("linear__weight", "linear__bias"), w)(s)
        return zoo.CC.Correlation()(mapped, t)

    def variational(s: torch.Tensor, t: torch.Tensor, *w: torch.Tensor) -> torch.Tensor:
        loss = zoo.VID.VIDLoss(s.shape[1], t.shape[1], t.shape[1])
        names = [f"regressor__{i}__weight" for i in (0, 2, 4)]
        return with_values(loss, (*names, "log_scale"), w)(s, t)

    text = "hint_param { projector { batch_norm: true relu: true } }"
    shapes = ((6, 5, 4, 4), (6, 7, 4, 4))
    blobs: Any = ((7, 5, 1, 1), (7,), (7,), (7,))
    cases = [Case("Hint/regressor", origin, text, shapes, regressed, blobs)]
    id_, blobs = "CorrelationCongruence/embedded", ((24, 16), (24,))
    cases.append(Case(id_, origin, "", OTHER_LENGTH, embedded, blobs))
    for name in ("smaller_teacher", "smaller_student"):
        s, t = (shape[1] for shape in SPACES[name])
        id_, blobs = f"VariationalInformation/{name}", ((t, s, 1, 1), *[(t, t, 1, 1)] * 2, (t,))
        cases.append(Case(id_, origin, "", SPACES[name], variational, blobs))
    return cases


def flows(zoo: Any) -> list[Case]:
    """RepDistiller's FSP between two layers of each net."""

    def flow(s1: torch.Tensor, s2: torch.Tensor, t1: torch.Tensor, t2: torch.Tensor) -> Any:
        shapes = [s1.shape, s2.shape], [t1.shape, t2.shape]
        return zoo.FSP.FSP(*shapes)([s1, s2], [t1, t2])[0]

    spaces = {
        "other_space": ((4, 5, 6, 6), (4, 3, 4, 4), (4, 5, 3, 3), (4, 3, 5, 5)),
        "same_space": ((4, 5, 4, 4), (4, 3, 4, 4)) * 2,
    }
    return [
        Case(f"FlowMatrix/{name}", "HobbitLong/RepDistiller", "", shapes, flow, students=2)
        for name, shapes in spaces.items()
    ]


def mdistiller(root: Path) -> list[Case]:
    """megvii-research/mdistiller: the functions of its distillers."""
    names = ("AT", "NST", "PKT", "RKD", "SP")
    folder = root / "mdistiller" / "distillers"
    at, nst, pkt, rkd, sp = (module(folder, "mdistiller_losses", name) for name in names)

    def related(distance: float, angle: float) -> Loss:
        weights = {"distance_weight": distance, "angle_weight": angle}
        return lambda s, t: rkd.rkd_loss(s, t, **weights)

    rows: list[tuple[str, Any, Any]] = [
        ("AttentionTransfer", SMALLER_TEACHER, lambda s, t: at.at_loss([s], [t], 2)),
        ("NeuronSelectivity", SMALLER_TEACHER, lambda s, t: nst.nst_loss([s], [t])),
        ("ProbabilisticKnowledgeTransfer", VECTORS, pkt.pkt_loss),
        ("RelationalAngle", VECTORS, related(0, 1)),
        ("RelationalDistance", VECTORS, related(1, 0)),
        ("SimilarityPreserving", SMALLER_STUDENT, lambda s, t: sp.sp_loss([s], [t])),
    ]
    origin = "megvii-research/mdistiller"
    return [Case(f"{name}/mdistiller", origin, "", *rest) for name, *rest in rows]


def rkd(root: Path) -> list[Case]:
    """lenscloth/RKD: the losses of the paper's authors."""
    # Its modules import each other as "metric.*".
    sys.path.insert(0, str(root))
    losses = importlib.import_module("metric.loss")
    sys.path.pop(0)
    return [
        Case("RelationalAngle/authors", "lenscloth/RKD", "", OTHER_LENGTH, losses.RKdAngle()),
        Case(
            "RelationalDistance/authors", "lenscloth/RKD", "", OTHER_LENGTH, losses.RkdDistance()
        ),
    ]


def torchdistill(root: Path) -> list[Case]:
    """yoshitomo-matsubara/torchdistill: the Gaussian kernel, of unit vectors."""
    sys.path.insert(0, str(root))
    losses = importlib.import_module("torchdistill.losses.mid_level")
    sys.path.pop(0)
    # The float32 that the layer's default stands for.
    kernel = SimpleNamespace(gamma=float(np.float32(0.4)), max_p=2)

    def gaussian(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        relate = losses.CCKDLoss.compute_cc_mat_by_gaussian_rbf
        k_s, k_t = (relate(kernel, functional.normalize(x)) for x in (s, t))
        return torch.dist(k_s, k_t, 2) ** 2 / len(s) ** 2

    text = "correlation_congruence_param { kernel: GAUSSIAN }"
    origin = "yoshitomo-matsubara/torchdistill"
    return [Case("CorrelationCongruence/gaussian", origin, text, VECTORS, gaussian)]


def pytorch() -> list[Case]:
    """PyTorch itself: pooling in every direction, and distances."""

    def pooled(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        size = [min(pair) for pair in zip(s.shape[2:], t.shape[2:], strict=True)]
        return functional.mse_loss(
            functional.adaptive_avg_pool2d(s, size), functional.adaptive_avg_pool2d(t, size)
        )

    sizes = ((9, 9, 4, 4), (4, 4, 9, 9), (7, 5, 3, 5), (5, 11, 8, 6), (6, 6, 1, 1))
    cases = [
        Case(f"Hint/pooled_{a}x{b}_{c}x{d}", "torch", "", ((3, 2, a, b), (3, 2, c, d)), pooled)
        for a, b, c, d in sizes
    ]

    def distance(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        difference = functional.normalize(s.flatten(1)) - functional.normalize(t.flatten(1))
        return torch.linalg.vector_norm(difference, dim=1).mean()

    text = "l2_distance_param { normalize: true squared: false }"
    return [
        *cases,
        Case(
            "CosineDistance/maps",
            "torch",
            "",
            PAIR,
            lambda s, t: (1 - functional.cosine_similarity(s, t, dim=1)).mean(),
        ),
        Case("L2Distance/unit_vectors", "torch", text, PAIR, distance),
    ]


def checkout(path: Path, repository: str) -> Path:
    """The path, if that commit is checked out there."""
    command = ["git", "-C", str(path), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if head != COMMITS[repository]:
        raise SystemExit(f"{path} is at {head}, not at {repository} {COMMITS[repository]}")
    return path


def main() -> None:
    """Write features.npz beside this file."""
    makers = (repdistiller, mdistiller, rkd, torchdistill)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for maker, repository in zip(makers, COMMITS, strict=True):
        parser.add_argument(f"--{maker.__name__}", type=Path, required=True, help=repository)
    given = parser.parse_args()
    cases = pytorch()
    for maker, repository in zip(makers, COMMITS, strict=True):
        cases += maker(checkout(getattr(given, maker.__name__), repository))
    arrays = {f"{case.id}/{k}": v for case in cases for k, v in numbers(case).items()}
    np.savez_compressed(HERE / "features.npz", **dict(sorted(arrays.items())))


if __name__ == "__main__":
    main()
