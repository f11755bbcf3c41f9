"""Write what a net says of every record of its data layer.

The net runs in TEST phase, on the records of its TRAIN data layer unless --data says test. OUT
holds one row a record in their order: array "logits" (or "probabilities"), and with --top-k
"logits_classes" and "logits_rest" as well, just as a SoftLabels layer reads them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdnet.cli._arguments import (
    add_device,
    add_state,
    add_weights,
    input_shapes,
    positive,
    split,
)
from kdnet.cli.data._bar import bar

NAME = "soft-labels"
HELP = "a net's answers to every record, for SoftLabels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("net", metavar="NET", help="a net prototxt")
    parser.add_argument("--blob", required=True, metavar="B", help="the blob with the scores")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT", help="the .npz or .h5 file"
    )
    parser.add_argument(
        "--data", choices=("train", "test"), default="train", help="whose data layer (train)"
    )
    parser.add_argument(
        "--form", choices=("logits", "probabilities"), default="logits", help="(logits)"
    )
    parser.add_argument(
        "--top-k", type=positive, default=0, metavar="K", help="keep the K largest of each record"
    )
    parser.add_argument("--fp16", action="store_true", help="keep them as float16")
    add_weights(parser)
    add_device(parser)
    add_state(parser)


def run(options: argparse.Namespace) -> None:
    """Write the answers."""
    from kdnet.runtime import CaffeLog
    from kdnet.runtime.soft_labels import AnswerOptions, write_answers

    wanted = AnswerOptions(
        path=options.net,
        blob=options.blob,
        out=options.output,
        weights=split(options.weights),
        train=options.data == "train",
        form=options.form,
        top_k=options.top_k,
        fp16=options.fp16,
        device=options.device or "auto",
        level=options.level,
        stages=split(options.stage),
        allow_unloaded=options.allow_unloaded,
        input_shapes=input_shapes(options.input_shape),
    )
    with bar("records") as start:
        written = write_answers(wanted, CaffeLog(sys.stderr), start)
    (classes,), stored = written.stored.shape, written.stored.stored
    print(f"{options.output}: {written.count} answers of {classes} {options.form}, {stored}")
