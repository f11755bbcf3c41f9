"""Write the student alone: deploy prototxt, caffemodel and ONNX model, and compare it.

The student is what the logits of a loss or a metric need, in TEST phase; losses, projectors,
teachers and data layers are left out. The ONNX model takes any batch size, has BatchNorm and
Scale folded into the layer before them and no Dropout, and is checked against the trained net.
With several students in the net -o names a folder, unless --head chooses one.
"""

from __future__ import annotations

import argparse
import json
import sys

from kdnet.cli._arguments import (
    add_device,
    add_state,
    add_weights,
    count,
    input_shapes,
    positive,
    split,
)

NAME = "export"
HELP = "write the student alone, as deploy net and ONNX model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="NET", help="the net that was trained")
    add_weights(parser)
    parser.add_argument(
        "-o", "--output", metavar="DIR|STEM", required=True, help="a folder, or a path to add to"
    )
    parser.add_argument(
        "--head",
        metavar="BLOB[,BLOB]",
        action="append",
        default=[],
        help="the blobs to export (the logits of every student)",
    )
    parser.add_argument(
        "--softmax", action="store_true", help="end with probabilities, in a blob prob"
    )
    parser.add_argument(
        "--rename",
        metavar="RULE",
        action="append",
        default=[],
        help="rename layers and blobs: s/^student.//, a template like {name}_x, or old=new",
    )
    parser.add_argument(
        "--preprocess",
        action="store_true",
        help="let the ONNX model subtract the mean and scale, as transform_param says",
    )
    parser.add_argument("--classes", metavar="FILE", help="class names, one a line, for the model")
    parser.add_argument(
        "--teacher-weights",
        metavar="F[,F]",
        action="append",
        default=[],
        help="files for the teachers of the table, beside --weights",
    )
    _add_measures(parser)
    add_device(parser)
    add_state(parser)


def _add_measures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch", type=positive, default=1, metavar="N", help="for the latency (1)"
    )
    parser.add_argument(
        "--runs", type=positive, default=30, metavar="N", help="for the latency (30)"
    )
    parser.add_argument(
        "--iterations",
        type=count,
        metavar="N",
        help="TEST batches for the accuracy (one pass, at most 50, if the data is there; 0 none)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Export; the table and the paths go to stdout."""
    from kdnet.runtime.export import export_net
    from kdnet.runtime.export.plan import ExportOptions
    from kdnet.runtime.log import CaffeLog

    found = export_net(
        ExportOptions(
            path=options.path,
            output=options.output,
            weights=split(options.weights),
            teacher_weights=split(options.teacher_weights),
            heads=split(options.head),
            rename=tuple(options.rename),
            classes=options.classes,
            softmax=options.softmax,
            preprocess=options.preprocess,
            batch=options.batch,
            runs=options.runs,
            iterations=options.iterations,
            device=options.device or "auto",
            level=options.level,
            stages=split(options.stage),
            allow_unloaded=options.allow_unloaded,
            input_shapes=input_shapes(options.input_shape),
        ),
        CaffeLog(sys.stderr),
    )
    if options.json:
        told = {
            **found.table.as_json(),
            "differences": found.differences,
            "files": list(found.paths),
        }
        print(json.dumps(told, indent=1))
        return 0
    print(found.table.text())
    for path in found.paths:
        print(path)
    return 0
