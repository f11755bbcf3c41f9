"""Make features_b.npz: what the authors' own code says of the heavier feature losses.

    python make_features_b.py FOLDER

Needs PyTorch. FOLDER holds a checkout of each repository of ``COMMITS``, named after it. Of each
file only the functions, classes and plain numbers at its top level are run, on float64.

Keys are ``<case>/<name>``: ``prototxt``, the layer's text without name, bottoms and tops;
``source``, where the value is from; ``bottom0``, ... and ``param0``, ... (float32); ``top0``, ...,
``bottomdiff<i>`` and ``paramdiff<i>``, the values and the gradients of the first top, missing
where there is none (float64); ``next0``, ..., what the step leaves in the layer's state.
"""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

COMMITS = {
    "AB_distillation": ("bhheo", "a7701d3506e13da87bda75aba1cee6397408144f"),
    "Factor-Transfer-pytorch": ("Jangho-Kim", "19cce265ebe51c751481041e223a13be2e684322"),
    "RepDistiller": ("HobbitLong", "b84f547c5db6a35318d4671d7d5c4de74c822403"),
    "ReviewKD": ("dvlab-research", "cede6ea6387ae9b6127de0e561507177bf19c11e"),
    "TorchDistiller": ("irfanICMLL", "78bac7cbe50634e0b880ef37eb8cd7e2560806e4"),
    "mdistiller": ("megvii-research", "a08d46f10d6102bd6e3f258ca5ac880b020ea259"),
    "overhaul-distillation": ("clovaai", "76344a84a7ce23c894f41a2e05b866c9b73fd85a"),
}
ITEMS = 4
Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Transposed:
    """The weight of a transposed convolution of stride 1: kdnet holds the plain one's."""

    weight: torch.Tensor


class Distiller(nn.Module):
    """The base class of mdistiller's methods, without the nets."""

    def __init__(self, _student: object, _teacher: object) -> None:
        super().__init__()


def normal_cdf(x: float) -> float:
    """As scipy.stats.norm.cdf."""
    return (1 + math.erf(x / math.sqrt(2))) / 2


class Authors:
    """The definitions in the authors' files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, (_owner, commit) in COMMITS.items():
            command = ["git", "-C", str(folder / name), "rev-parse", "HEAD"]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            if found.strip() != commit:
                raise SystemExit(f"{name} is at {found.strip()}, not at {commit}")

    def read(self, repository: str, path: str, **more: object) -> SimpleNamespace:
        """What a file defines; ``source`` names the file."""
        tree = ast.parse((self.folder / repository / path).read_text())
        tree.body = [node for node in tree.body if _is_definition(node)]
        space = {"torch": torch, "nn": nn, "F": functional, "math": math, "Distiller": Distiller}
        space |= {"norm": SimpleNamespace(cdf=normal_cdf), **more}
        exec(compile(tree, path, "exec"), space)  # noqa: S102  # the authors' code is the reference
        owner, commit = COMMITS[repository]
        return SimpleNamespace(**space, source=f"{owner}/{repository} {commit[:7]} {path}")


def _is_definition(node: ast.stmt) -> bool:
    number = isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    return number or isinstance(node, ast.FunctionDef | ast.ClassDef)


class Golden:
    """The arrays of every case."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(11)

    def maps(self, *shapes: tuple[int, ...]) -> Arrays:
        """Standard normal, as float32 holds them."""
        return [self.rng.standard_normal(shape).astype(np.float32) for shape in shapes]

    def scatter(self, module: nn.Module) -> nn.Module:
        """New parameters, so that no scale is 1 and no shift 0."""
        for parameter in module.parameters():
            shape = tuple(parameter.shape)
            spread = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.5
            values = spread * self.rng.standard_normal(shape) + (len(shape) == 1)
            parameter.data = torch.from_numpy(values.astype(np.float32).astype(np.float64))
        return module

    def add(
        self,
        case: str,
        text: str,
        source: str,
        value: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]],
        bottoms: Arrays,
        params: Sequence[torch.Tensor | Transposed] = (),
    ) -> None:
        """Compute a case, with gradients of the first top by all that it depends on."""
        tensors = [torch.from_numpy(array.astype(np.float64)) for array in bottoms]
        blobs = [p.weight if isinstance(p, Transposed) else p for p in params]
        before = [p.detach().clone() for p in blobs]
        for tensor in tensors:
            tensor.requires_grad_()
        tops = value(*tensors)
        tops = tops if isinstance(tops, tuple) else (tops,)
        trained = [p for p in blobs if p.requires_grad]
        slopes = torch.autograd.grad(tops[0].sum(), [*tensors, *trained], allow_unused=True)
        of_blob = dict(zip(map(id, trained), slopes[len(tensors) :], strict=True))
        found = {"prototxt": np.array(text), "source": np.array(source)}
        for i, array in enumerate(bottoms):
            found[f"bottom{i}"] = array
            if slopes[i] is not None:
                found[f"bottomdiff{i}"] = slopes[i].numpy()
        for i, (p, blob) in enumerate(zip(params, blobs, strict=True)):
            found[f"param{i}"] = _held(p, before[i]).astype(np.float32)
            if of_blob.get(id(blob)) is not None:
                found[f"paramdiff{i}"] = _held(p, of_blob[id(blob)])
        found |= {f"top{i}": top.detach().numpy() for i, top in enumerate(tops)}
        self.arrays |= {f"{case}/{name}": array for name, array in found.items()}


def _held(param: torch.Tensor | Transposed, values: torch.Tensor) -> np.ndarray:
    """Values of a parameter as kdnet's blob holds them."""
    if isinstance(param, Transposed):
        values = values.flip(2, 3).transpose(0, 1)
    return np.ascontiguousarray(values.numpy())


def channel_wise(authors: Authors, golden: Golden) -> None:
    file = authors.read("TorchDistiller", "SemSeg-distill/utils/criterion.py")
    name, field = "ChannelWiseDistillation", "channel_wise_distillation_param"
    for temperature in (1, 4):
        loss = file.CriterionCWD("channel", "kl", temperature)
        text = f'type: "{name}" {field} {{ temperature: {temperature} }}'
        features = golden.maps((ITEMS, 3, 4, 5), (ITEMS, 3, 4, 5))
        golden.add(f"{name}/{temperature}", text, file.source, loss, features)


def boundary(authors: Authors, golden: Golden) -> None:
    file = authors.read("AB_distillation", "cifar10_AB_distillation.py")
    connectors = authors.read("overhaul-distillation", "CIFAR-100/distiller.py")
    name, field = "ActivationBoundary", "activation_boundary_param"

    def loss(margin: float, connector: nn.Module) -> Callable[..., torch.Tensor]:
        def value(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return file.criterion_alternative_L2(connector(s), t.detach(), margin) / len(s)

        return value

    features = golden.maps((ITEMS, 3, 3, 3), (ITEMS, 3, 3, 3))
    text = f'type: "{name}" {field} {{ margin: 0.5 }}'
    golden.add(f"{name}/margin", text, file.source, loss(0.5, nn.Identity()), features)
    connector = golden.scatter(connectors.build_feature_connector(5, 3))
    features = golden.maps((ITEMS, 3, 3, 3), (ITEMS, 5, 3, 3))
    params = list(connector.parameters())
    text = f'type: "{name}"'
    golden.add(f"{name}/projector", text, file.source, loss(1, connector), features, params)


def overhaul(authors: Authors, golden: Golden) -> None:
    file = authors.read("overhaul-distillation", "CIFAR-100/distiller.py")
    again = authors.read("mdistiller", "mdistiller/distillers/OFD.py")
    name, field = "FeatureOverhaul", "feature_overhaul_param"
    teacher = golden.scatter(nn.BatchNorm2d(5))
    teacher.weight.data[0], teacher.bias.data[0] = -0.5, 4
    teacher.bias.data[1:3] *= -1
    margin = file.get_margin_from_BN(teacher).double().reshape(1, -1, 1, 1)
    connector = golden.scatter(file.build_feature_connector(5, 3))
    statistics = [p.detach() for p in teacher.parameters()]
    shared = 'param { name: "scale" } param { name: "shift" }'
    text = f'type: "{name}" param {{}} param {{}} param {{}} {shared} {field} {{ '

    def value(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return file.distillation_loss(connector(s), t.detach(), margin) / len(s)

    def pooled(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        small = functional.adaptive_avg_pool2d(t, s.shape[-2:]).detach()
        return again.feat_loss(connector(s), small, margin)

    params = [*connector.parameters(), *statistics]
    text += "batch_norm_margin: true }"
    features = golden.maps((ITEMS, 3, 4, 4), (ITEMS, 5, 4, 4))
    golden.add(f"{name}/batch_norm", text, file.source, value, features, params)
    features = golden.maps((ITEMS, 3, 3, 3), (ITEMS, 5, 7, 7))
    golden.add(f"{name}/pooled", text, again.source, pooled, features, params)


def factor(authors: Authors, golden: Golden) -> None:
    file = authors.read("Factor-Transfer-pytorch", "Models/FeatureProjection.py")
    unit = authors.read("Factor-Transfer-pytorch", "utils.py")
    name, field = "FactorTransfer", "factor_transfer_param"
    translator = golden.scatter(file.Translator(3, 2))

    def value(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return nn.L1Loss()(unit.FT(translator(s)), unit.FT(t.detach()))

    features = golden.maps((ITEMS, 3, 4, 4), (ITEMS, 2, 4, 4))
    params = list(translator.parameters())
    golden.add(f"{name}/plain", f'type: "{name}"', file.source, value, features, params)

    modules = authors.read("RepDistiller", "models/util.py")
    other = authors.read("RepDistiller", "distiller_zoo/FT.py")
    normed = golden.scatter(modules.Translator((ITEMS, 3, 6, 6), (ITEMS, 4, 3, 3)))

    def means(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return other.FactorTransfer()(normed(s), t.detach())

    features = golden.maps((ITEMS, 3, 6, 6), (ITEMS, 2, 3, 3))
    text = f'type: "{name}" {field} {{ translator: BATCH_NORM channel_power: 2 }}'
    params = list(normed.parameters())
    golden.add(f"{name}/batch_norm", text, other.source, means, features, params)
    paraphraser(file, golden)


def paraphraser(file: SimpleNamespace, golden: Golden) -> None:
    module = golden.scatter(file.Paraphraser(4, 2))
    params = [*module.parameters()]
    params[6::2] = [Transposed(weight) for weight in params[6::2]]
    features, text = golden.maps((ITEMS, 4, 4, 5)), 'type: "Paraphraser"'

    def value(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return module(x, 1), module(x, 0)

    golden.add("Paraphraser/factor", text, file.source, value, features, params)
    golden.add(
        "Paraphraser/rebuilt", text, file.source, lambda x: value(x)[::-1], features, params
    )


def review(authors: Authors, golden: Golden) -> None:
    file = authors.read("ReviewKD", "CIFAR-100/model/reviewkd.py")
    again = authors.read("mdistiller", "mdistiller/distillers/ReviewKD.py")
    sizes, outer_sizes = (6, 3, 1), (6, 5, 1)
    channels, outer = (2, 3, 4), (3, 5, 2)
    student = [(ITEMS, c, n, n) for c, n in zip(channels, sizes, strict=True)]
    teacher = [(ITEMS, c, n, n) for c, n in zip(outer, outer_sizes, strict=True)]

    def run(hcl: Callable[..., torch.Tensor], *maps: torch.Tensor) -> torch.Tensor:
        results, _ = net(list(maps[:3]))
        return hcl(results, [t.detach() for t in maps[3:]])

    net = file.ReviewKD(
        lambda features, is_feat: (features, None),  # noqa: ARG005  # called by that name
        channels,
        outer,
        sizes[::-1],
        outer_sizes[::-1],
    )
    golden.scatter(net)
    modules = [net.abfs[2 - level] for level in range(3)]
    params = []
    for module in modules:
        params += [*module.conv1.parameters(), *module.conv2.parameters()]
        params += list(module.att_conv.parameters()) if module.att_conv else []
    text, features = 'type: "KnowledgeReview"', golden.maps(*student, *teacher)
    for name, code in (("hcl", file.hcl), ("hcl_loss", again.hcl_loss)):
        source = (file if name == "hcl" else again).source

        def value(*maps: torch.Tensor, code: Callable[..., torch.Tensor] = code) -> torch.Tensor:
            return run(code, *maps)

        golden.add(f"KnowledgeReview/{name}", text, source, value, features, params)


def contrast(authors: Authors, golden: Golden) -> None:
    memory = authors.read("RepDistiller", "crd/memory.py")
    more = {"ContrastMemory": memory.ContrastMemory}
    file = authors.read("RepDistiller", "crd/criterion.py", **more)
    records, negatives = 13, 6
    options = {"s_dim": 5, "t_dim": 3, "feat_dim": 4, "nce_k": negatives, "n_data": records}
    torch.manual_seed(5)
    loss = file.CRDLoss(SimpleNamespace(**options, nce_t=0.07, nce_m=0.5))
    golden.scatter(loss)
    bank = loss.contrast
    for name in ("memory_v1", "memory_v2"):
        rounded = getattr(bank, name).float().double()
        setattr(bank, name, rounded)
    embeddings = [*loss.embed_s.parameters(), *loss.embed_t.parameters()]
    text = (
        'type: "ContrastiveRepresentation" contrastive_representation_param '
        f"{{ num_records: {records} nce_k: {negatives} dim: 4 }}"
    )
    for step in ("first", "second"):
        features = golden.maps((ITEMS, 5), (ITEMS, 3))
        own = golden.rng.permutation(records)[:ITEMS]
        others = golden.rng.integers(0, records, (ITEMS, negatives))
        state = [bank.memory_v1.clone(), bank.memory_v2.clone(), bank.params[2:4].clone()]

        def value(
            s: torch.Tensor, t: torch.Tensor, own: torch.Tensor, others: torch.Tensor
        ) -> torch.Tensor:
            index = torch.cat([own[:, None], others], 1).detach().long()
            return loss(s, t.detach(), index[:, 0].contiguous(), index)

        numbers = [array.astype(np.float32) for array in (own, others)]
        bottoms = [*features, *numbers]
        case = f"ContrastiveRepresentation/{step}"
        golden.add(case, text, file.source, value, bottoms, [*embeddings, *state])
        after = (bank.memory_v1, bank.memory_v2, bank.params[2:4])
        nexts = {f"{case}/next{i}": x.detach().clone().numpy() for i, x in enumerate(after)}
        golden.arrays |= nexts


def main() -> None:
    """Write the file beside this script."""
    torch.set_default_dtype(torch.float64)
    # The authors' modules go to a GPU by themselves.
    torch.Tensor.cuda = lambda self, *_: self
    nn.Module.to = lambda self, *_: self
    authors, golden = Authors(Path(sys.argv[1])), Golden()
    for make in (boundary, channel_wise, contrast, factor, overhaul, review):
        make(authors, golden)
    np.savez_compressed(Path(__file__).with_name("features_b.npz"), **golden.arrays)


if __name__ == "__main__":
    main()
