"""Make forks.npz: what layers of Caffe's forks compute, and their gradients.

    python make_forks.py

Needs PyTorch. None of the forks can be installed, so each layer is computed anew in float64, from
the formula in the file of its repository that ``source`` names, with PyTorch's functions where it
has the layer; gradients are PyTorch's, except those of KnowledgeDistillation and SmoothL1Loss,
which are the backward formulas of the forks' code.

Keys are ``<type>/<case>/<name>``: ``prototxt``, the layer's text without name, bottoms and tops;
``phase``; ``source``; ``bottom0``, ... and ``param0``, ...; ``top0``, ...; ``topdiff0``, ..., the
gradients that arrive; ``bottomdiff0``, ... and ``paramdiff0``, ..., those that leave; ``next2``,
..., blobs that the layer changes itself, after a step; ``printed``, what the fork's loss prints
where that is not what it trains by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

SSD = "weiliu89/caffe ssd 4817bf8 src/caffe/layers/"
PSPNET = "hszhao/PSPNet 798bdc9 src/caffe/"
SEGNET = "alexgkendall/caffe-segnet 344c113 src/caffe/layers/"
XIONG = "yjxiong/caffe kd 5e701c1 src/caffe/layers/"
FAST_RCNN = "rbgirshick/caffe-fast-rcnn fast-rcnn bcd9b4e src/caffe/layers/"
FASTER_RCNN = "rbgirshick/caffe-fast-rcnn faster-rcnn 4115385 src/caffe/layers/"
NVIDIA = "NVIDIA/caffe caffe-0.17 87a2554 src/caffe/layers/"
KD = "wentianli/knowledge_distillation_caffe 25b7694 knowledge_distillation_layer.cpp"
SHUFFLE = "farmingyard/ShuffleNet b962444 shuffle_channel_layer.cpp"
SENET = "hujie-frank/SENet 0262d43 src/caffe/layers/axpy_layer.cpp"
YOLO = "eric612/MobileNet-YOLO 56b6332 src/caffe/layers/"
DEPTHWISE = "yonghenglh6/DepthwiseConvolution 2b9cf52 caffe/src/caffe/layers/"
PULL_5665 = "BVLC/caffe pull request 5665 conv_dw_layer.cpp"

Tensors = list[torch.Tensor]
Forward = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]
ARRAYS: dict[str, np.ndarray] = {}
RNG = np.random.default_rng(20)


def normal(*shape: int) -> torch.Tensor:
    """Numbers that float32 holds exactly."""
    return torch.tensor(RNG.standard_normal(shape).astype(np.float32), dtype=torch.float64)


def positive(*shape: int) -> torch.Tensor:
    return normal(*shape).abs() + 0.5


def keep(case: str, prototxt: str, source: str, phase: str, found: Mapping[str, object]) -> None:
    kind = prototxt.split('"')[1]
    texts = {"prototxt": prototxt, "source": source, "phase": phase}
    for name, value in (texts | dict(found)).items():
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.array(value)
        ARRAYS[f"{kind}/{case}/{name}"] = array


def make(
    case: str,
    prototxt: str,
    source: str,
    forward: Forward,
    bottoms: Tensors,
    params: Tensors = (),
    *,
    fixed: tuple[str, ...] = (),
    phase: str = "TRAIN",
    later: Tensors = (),
) -> None:
    """Run forward and backward; ``fixed`` inputs have no gradient."""
    given = {f"bottom{i}": x for i, x in enumerate(bottoms)}
    given |= {f"param{i}": x for i, x in enumerate(params)}
    for name, x in given.items():
        x.requires_grad_(name not in fixed)
    tops = forward(*bottoms, *params)
    tops = tops if isinstance(tops, tuple) else (tops,)
    seeds = [torch.ones_like(top) if top.ndim == 0 else normal(*top.shape) for top in tops]
    torch.autograd.backward(tops, seeds)
    found: dict[str, object] = dict(given)
    found |= {f"top{i}": top for i, top in enumerate(tops)}
    found |= {f"topdiff{i}": seed for i, seed in enumerate(seeds)}
    for name, x in given.items():
        if x.grad is not None:
            found[name.replace("bottom", "bottomdiff").replace("param", "paramdiff")] = x.grad
    found |= {f"next{2 + i}": blob for i, blob in enumerate(later)}
    keep(case, prototxt, source, phase, found)


def channels(blob: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return blob.reshape(-1, *[1] * (x.ndim - 2))


# --- maps ------------------------------------------------------------------------------------


def make_maps() -> None:
    make(
        "block",
        'type: "Axpy"',
        SENET,
        lambda a, x, y: a[:, :, None, None] * x + y,
        [normal(2, 3), normal(2, 3, 4, 5), normal(2, 3, 4, 5)],
    )
    make(
        "three_groups",
        'type: "ShuffleChannel" shuffle_channel_param { group: 3 }',
        SHUFFLE,
        lambda x: functional.channel_shuffle(x, 3),
        [normal(2, 12, 3, 3)],
    )
    make(
        "wide", 'type: "ReLU6"', YOLO + "relu6_layer.cpp", functional.relu6, [4 * normal(3, 4, 5)]
    )
    text = "num_output: 4 kernel_size: 3 stride: 2 pad: 1"
    for name, source in (
        ("DepthwiseConvolution", DEPTHWISE + "depthwise_conv_layer.cpp"),
        ("ConvolutionDepthwise", PULL_5665),
    ):
        make(
            "stride_2",
            f'type: "{name}" convolution_param {{ {text} }}',
            source,
            lambda x, w, b: functional.conv2d(x, w, b, stride=2, padding=1, groups=4),
            [normal(2, 4, 7, 6)],
            [normal(4, 1, 3, 3), normal(4)],
        )


def make_sizes() -> None:
    def resized(cut: slice, size: tuple[int, int]) -> Forward:
        return lambda x, *_: functional.interpolate(
            x[:, :, cut, cut], size, mode="bilinear", align_corners=True
        )

    whole, source = slice(None), PSPNET + "layers/interp_layer.cpp, util/interp.cpp"
    cases = (
        ("pspnet_zoom", "zoom_factor: 8", whole, (33, 25)),
        ("pspnet_pool", "height: 12 width: 12", whole, (12, 12)),
        ("deeplab_shrink", "shrink_factor: 2 pad_beg: 0 pad_end: -1", slice(0, -1), (2, 2)),
        ("crop", "zoom_factor: 2 shrink_factor: 2 pad_beg: -1", slice(1, None), (3, 3)),
    )
    for case, text, cut, size in cases:
        bottom = normal(2, 3, 5, 4) if "shrink" not in text else normal(1, 2, 5, 5)
        prototxt = f'type: "Interp" interp_param {{ {text} }}'
        make(case, prototxt, source, resized(cut, size), [bottom])
    x = normal(2, 3, 6, 7)
    y, mask = functional.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
    make(
        "unpool",
        'type: "Upsample" upsample_param { scale: 2 upsample_h: 6 upsample_w: 7 }',
        SEGNET + "upsample_layer.cpp",
        lambda y, m: functional.max_unpool2d(y, m.long(), 2, 2, output_size=(6, 7)),
        [y.detach(), mask.double()],
        fixed=("bottom1",),
    )
    make(
        "repeated",
        'type: "Upsample" upsample_param { scale: 2 }',
        YOLO + "upsample_layer.cpp",
        lambda x: functional.interpolate(x, scale_factor=2, mode="nearest"),
        [normal(2, 3, 3, 4)],
    )


# --- normalisation ---------------------------------------------------------------------------


def make_normalised() -> None:
    eps = float(np.float32(1e-10))

    def ssd(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x / (x.square().sum(1, keepdim=True) + eps).sqrt() * channels(scale, x)

    make(
        "conv4_3",
        'type: "Normalize" norm_param { across_spatial: false channel_shared: false '
        'scale_filler { type: "constant" value: 20 } }',
        SSD + "normalize_layer.cpp",
        ssd,
        [normal(2, 5, 3, 3)],
        [positive(5)],
    )
    make(
        "default",
        'type: "Normalize"',
        SSD + "normalize_layer.cpp",
        lambda x, s: x / (x.square().sum((1, 2, 3), keepdim=True) + eps).sqrt() * s,
        [normal(2, 5, 3, 3)],
        [torch.tensor(1.5, dtype=torch.float64)],
    )
    make_stored()
    make_student()
    make_segnet()


EPS, KEPT = float(np.float32(1e-5)), float(np.float32(0.9))
FILLERS = 'slope_filler { value: 1 } bias_filler { type: "constant" value: 0 }'
STORED = ("param2", "param3")


def normalised(x, s, b, mean, variance, eps=EPS):
    y = (x - channels(mean, x)) / (channels(variance, x) + eps).sqrt()
    return y * channels(s, x) + channels(b, x)


def moments(x):
    mean = x.mean((0, 2, 3))
    return mean, (x - channels(mean, x)).square().mean((0, 2, 3))


def blobs() -> Tensors:
    return [*(normal(1, 4, 1, 1) for _ in range(3)), positive(1, 4, 1, 1)]


def make_stored() -> None:
    for case, text, source, phase, eps in (
        ("teacher", f"frozen: true {FILLERS}", XIONG, "TRAIN", EPS),
        ("pspnet_test", "eps: 0.001", PSPNET + "layers/", "TEST", float(np.float32(0.001))),
    ):
        make(
            case,
            f'type: "BN" bn_param {{ {text} }}',
            source + "bn_layer.cpp",
            lambda *given, eps=eps: normalised(*given, eps=eps),
            [normal(3, 4, 2, 3)],
            blobs(),
            fixed=STORED,
            phase=phase,
        )


def make_student() -> None:
    x, params = normal(3, 4, 2, 3), blobs()
    later = [
        KEPT * old + (1 - KEPT) * new.reshape(old.shape)
        for old, new in zip(params[2:], moments(x), strict=True)
    ]
    make(
        "student",
        f'type: "BN" bn_param {{ {FILLERS} }}',
        XIONG + "bn_layer.cpp",
        lambda x, s, b, *_: normalised(x, s, b, *moments(x)),
        [x],
        params,
        fixed=STORED,
        later=later,
    )


def make_segnet() -> None:
    fillers = 'scale_filler { type: "constant" value: 1 } shift_filler { value: 0.001 }'
    for case, mode, forward in (
        ("segnet_learn", "", lambda x, s, b: normalised(x, s, b, *moments(x), eps=1e-9)),
        ("segnet_inference", "bn_mode: INFERENCE", lambda x, s, b: x * s + b),
    ):
        make(
            case,
            f'type: "BN" bn_param {{ {fillers} {mode} }}',
            SEGNET + "bn_layer.cpp",
            forward,
            [normal(3, 4, 2, 3)],
            blobs()[:2],
            phase="TEST",
        )


# --- losses ----------------------------------------------------------------------------------


def make_distances() -> None:
    make(
        "boxes",
        'type: "L1Loss"',
        NVIDIA + "l1_loss_layer.cpp",
        lambda a, b: (a - b).abs().sum() / 3,
        [normal(3, 4, 2, 2), normal(3, 4, 2, 2)],
    )
    for case, text, count, source in (
        ("fast_rcnn", "", 3, FAST_RCNN),
        ("faster_rcnn", "smooth_l1_loss_param { sigma: 3.0 }", 4, FASTER_RCNN),
        ("ssd", "", 2, SSD),
    ):
        given = [normal(4, 8) for _ in range(count)]
        a, b, inside, outside = (*given, *[torch.ones(4, 8)] * 2)[:4]
        square = 9.0 if text else 1.0
        d = inside * (a - b)
        near = d.abs() < 1 / square
        errors = torch.where(near, 0.5 * d * d * square, d.abs() - 0.5 / square)
        slope = torch.where(near, square * d, d.sign()) * inside * outside / 4
        found = {f"bottom{i}": x for i, x in enumerate(given)}
        found |= {"top0": (errors * outside).sum() / 4, "topdiff0": np.array(1.0)}
        found |= {"bottomdiff0": slope, "bottomdiff1": -slope}
        keep(case, f'type: "SmoothL1Loss" {text}', source + "smooth_L1_loss_layer", "TRAIN", found)


KD_TEXT = "knowledge_distillation_param { temperature: 4 }"


def make_distillation() -> None:
    for case, text, ignore in (
        ("t4", "", None),
        ("t4_ignored", "loss_param { ignore_label: 2 }", 2),
        ("t4_per_item", "loss_param { normalization: BATCH_SIZE }", None),
    ):
        shape = (4, 3, 2, 2)
        student, teacher = 3 * normal(*shape), 3 * normal(*shape)
        labels = torch.tensor(RNG.integers(0, 3, (4, 1, 2, 2)), dtype=torch.float64)
        q, p = (functional.softmax(z / 4, 1) for z in (student, teacher))
        counts = torch.ones(4, 1, 2, 2) if ignore is None else (labels != ignore).double()
        divisor = 4 if "BATCH_SIZE" in text else counts.sum()
        given = [student, teacher] + ([labels] if ignore is not None else [])
        found: dict[str, object] = {f"bottom{i}": x for i, x in enumerate(given)}
        found["printed"] = (counts * p * (p.log() - q.log())).sum() / divisor
        found |= {"top0": 16 * found["printed"], "topdiff0": np.array(1.0)}
        found["bottomdiff0"] = 4 * (q - p) * counts / divisor
        prototxt = f'type: "KnowledgeDistillation" {KD_TEXT} {text}'
        keep(case, prototxt, KD, "TRAIN", found)
    make(
        "scene",
        'type: "SoftmaxWithCrossEntropyLoss"',
        XIONG + "softmax_cross_entropy_loss_layer.cpp",
        lambda z, t: functional.kl_div(
            functional.log_softmax(z, 1), functional.softmax(t, 1), reduction="batchmean"
        ),
        [normal(5, 7), normal(5, 7)],
        fixed=("bottom1",),
    )


def main() -> None:
    make_maps()
    make_sizes()
    make_normalised()
    make_distances()
    make_distillation()
    np.savez_compressed(Path(__file__).with_name("forks.npz"), **ARRAYS)


if __name__ == "__main__":
    main()
