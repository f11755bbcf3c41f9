"""Score images with a net, as Caffe's classify.py does.

INPUT is an image, a folder of images, or an .npy of images (N, H, W, K), red first, in [0, 1] or
bytes. Each image is resized to --images-dim; ten crops of the size of the net's input, or the
middle one, are scored, and the scores averaged. A crop is multiplied by --raw-scale, the mean is
taken off, and the rest multiplied by --input-scale. OUT is an .npy of scores, a row an image; the
largest of each are printed.

Flags may be written with underscores, as Caffe's are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdnet.cli._arguments import positive, split
from kdnet.cli.data._bar import bar

NAME = "classify"
HELP = "score images with a net"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="INPUT", type=Path, help="an image, a folder, an .npy")
    parser.add_argument("out", metavar="OUT", type=Path, help="the .npy of scores")
    parser.add_argument(
        "--model-def", "--model_def", required=True, metavar="NET", help="a deploy prototxt"
    )
    parser.add_argument(
        "--pretrained-model",
        "--pretrained_model",
        required=True,
        metavar="F[,F]",
        help="its weight files",
    )
    parser.add_argument("--labels", metavar="FILE", help="class names, one a line")
    parser.add_argument(
        "--top", type=positive, default=5, metavar="K", help="classes to print of each image (5)"
    )
    parser.add_argument(
        "--allow-unloaded", action="store_true", help="run layers that no file fills"
    )
    parser.add_argument("--device", metavar="auto|cpu|cuda[:N]", help="where to run")
    parser.add_argument("--gpu", action="store_true", help="as --device cuda")
    _add_preprocessing(parser)


def _add_preprocessing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--center-only", "--center_only", action="store_true", help="score the middle crop alone"
    )
    parser.add_argument(
        "--images-dim",
        "--images_dim",
        type=_dims,
        default=(256, 256),
        metavar="H,W",
        help="size before the crop (256,256)",
    )
    parser.add_argument(
        "--ext",
        action="append",
        metavar="E[,E]",
        help="what images in a folder end with (jpg)",
    )
    _add_arithmetic(parser)


def _add_arithmetic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mean-file",
        "--mean_file",
        default="",
        metavar="F",
        help="a mean image, .npy or .binaryproto (none)",
    )
    parser.add_argument(
        "--mean-value",
        "--mean_value",
        type=_numbers,
        metavar="X,Y,Z",
        help="a mean for each channel, in the net's order",
    )
    parser.add_argument(
        "--input-scale", "--input_scale", type=float, metavar="X", help="the last factor (1)"
    )
    parser.add_argument(
        "--raw-scale",
        "--raw_scale",
        type=float,
        default=255.0,
        metavar="X",
        help="the first factor (255)",
    )
    parser.add_argument(
        "--channel-swap",
        "--channel_swap",
        type=_order,
        metavar="I,J,K",
        help="order of the channels (2,1,0 for three); '' for as they are",
    )


def run(options: argparse.Namespace) -> int:
    """Classify; the largest scores go to stdout."""
    from kdnet.api.classifying import ClassifyOptions, classify
    from kdnet.runtime.export.input import read_classes

    labels = read_classes(options.labels) if options.labels else ()
    mean = Path(options.mean_file) if options.mean_file else options.mean_value
    device = options.device or ("cuda" if options.gpu else "auto")
    wanted = ClassifyOptions(
        source=options.source.expanduser(),
        out=options.out,
        model=options.model_def,
        weights=split([options.pretrained_model]),
        oversample=not options.center_only,
        image_dims=options.images_dim,
        mean=mean,
        input_scale=options.input_scale,
        raw_scale=options.raw_scale,
        channel_swap=options.channel_swap,
        extensions=split(options.ext or ["jpg"]),
        allow_unloaded=options.allow_unloaded,
        device=device,
    )
    with bar("images") as start:
        found = classify(wanted, start)
    print(found.loaded, file=sys.stderr)
    for name, scores in zip(found.names, found.scores, strict=True):
        print(f"{name}:")
        row = scores.reshape(-1)
        for index in (-row).argsort(kind="stable")[: options.top]:
            label = labels[index] if index < len(labels) else f"class {index}"
            print(f'  {row[index]:.4f} - "{label}"')
    print(f"{found.out}: {len(found.names)} rows of {found.scores[0].size} scores")
    return 0


def _dims(text: str) -> tuple[int, int]:
    height, width = (int(part) for part in text.split(","))
    if not (0 < height < 2**16 and 0 < width < 2**16):
        raise ValueError
    return height, width


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _order(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)
