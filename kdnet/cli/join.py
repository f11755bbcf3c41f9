"""Join nets that were never made for one another: teachers and students in one prototxt.

Flags name the nets: --teacher and --student begin one, and the flags after it are its own. A
description file names the same things, and kdnet train takes it as it is:

    teacher { net: "teacher.prototxt" weights: "teacher.caffemodel" rename: "teacher/{name}" }
    student { net: "student.prototxt" }
    loss { type: "TeacherStudentCrossEntropy" }

Teachers are frozen and in TEST phase. All nets read one data layer. Weight files are copied under
the joined names, and the first student's solver is written anew, beside the output.
"""

from __future__ import annotations

import argparse

from kdnet.cli._joined_files import write_join
from kdnet.cli._joining import Said, description_of

NAME = "join"
HELP = "join teachers and students into one net"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--description", action=Said, metavar="FILE", help="instead of the flags")
    for role in ("teacher", "student"):
        _add_net(parser.add_argument_group(f"each {role}"), role)
    losses = parser.add_argument_group("what students learn")

    def add(flag: str, metavar: str, text: str) -> None:
        losses.add_argument(flag, action=Said, metavar=metavar, help=text)

    add("--loss", "TYPE", "a loss between logits (TeacherStudentCrossEntropy); none for no loss")
    add("--match", "S=T:TYPE[:W]", "a loss of weight W between blobs of student and teacher")
    add("--loss-param", "TEXT", 'parameters of the loss before it, such as "temperature: 4"')
    add("--lambda", "L", "weight of losses between logits; labels get 1 - L (0.9)")
    add("--temperature", "T", "of losses between logits (4)")
    add("--combine", "HOW", "teachers speak EACH for itself, by mean PROBABILITIES or LOGITS")
    add("--data", "NAME", "the net whose data layers all read: teacher, student, ...")
    add("--name", "NAME", "the joined net's name")
    parser.add_argument("-o", "--output", metavar="F", required=True, help="the prototxt to write")
    parser.add_argument("--no-solver", action="store_true", help="write no solver")


def _add_net(group: argparse._ArgumentGroup, role: str) -> None:
    def add(option: str, metavar: str, text: str) -> None:
        group.add_argument(f"--{role}{option}", action=Said, metavar=metavar, help=text)

    add("", "NET", "its prototxt")
    add("-weights", "F", "its weight file")
    add("-rename", "RULE", 'such as "teacher/{name}", "s/conv/conv_t/" or old=new')
    add("-logits", "BLOB", "its class scores, where no loss shows them")
    add("-name", "NAME", "what losses and files call it")
    add("-transform", "TEXT", 'how it sees the records, such as "mean_value: 117"')
    if role == "teacher":
        add("-weight", "W", "its share among several teachers")
    group.add_argument(
        f"--{role}-accuracy",
        action=Said,
        nargs=0,
        help="show its accuracy (a student's always is)",
    )


def run(options: argparse.Namespace) -> int:
    """Join; what was written and what to do next goes to stdout."""
    said = getattr(options, "said", [])
    description, file = description_of(said)
    for line in write_join(description, file, said, options.output, solver=not options.no_solver):
        print(line)
    return 0
