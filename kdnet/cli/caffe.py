"""Run a command line that was written for Caffe: `kdnet caffe train --solver=...`.

Flags and actions are Caffe's, in either spelling and in any order. Without -gpu a net runs on the
CPU, unless the solver states its solver_mode. The exit status of a run that succeeds, or that
Ctrl-C stops early, is 0, as Caffe's is; where Caffe aborts, it is 1, 2 or 3 as elsewhere in kdnet.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from kdnet.cli._caffe_flags import GLOG_SWITCHES, GLOG_VALUES
from kdnet.errors import (
    Diagnostic,
    KdnetError,
    RunInterruptedError,
    UsageError,
    did_you_mean,
    fail,
    render_all,
)
from kdnet.version import __version__

HELP = "run a command line that was written for Caffe"
CAFFE_VERSION = "1.0.0"
COMMON = ("gpu", "level", "stage", "sigint_effect", "sighup_effect")
# The flags that each action reads, those that it cannot do without first.
ACTIONS: dict[str, tuple[str, ...]] = {
    "device_query": ("gpu",),
    "test": ("model", "weights", "iterations", *COMMON),
    "time": ("model", "phase", "iterations", "gpu", "level", "stage"),
    "train": ("solver", "snapshot", "weights", *COMMON),
}
NEEDED: dict[str, tuple[str, ...]] = {
    "test": ("model", "weights"),
    "time": ("model",),
    "train": ("solver",),
}
HELP_FLAGS = ("help", "helpfull", "helpshort", "h")
FLAGS = tuple(dict.fromkeys(flag for flags in ACTIONS.values() for flag in flags))
USAGE = """usage: {program} ACTION FLAGS
actions:
  train         train or finetune a net: -solver F [-weights F,F | -snapshot F]
  test          score a net: -model F -weights F,F [-iterations N]
  time          time a net's layers: -model F [-phase TRAIN|TEST] [-iterations N]
  device_query  describe the devices: [-gpu N|all]
flags of most: -gpu N, -level N, -stage S,S, -sigint_effect and -sighup_effect stop|snapshot|none
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare everything as words: Caffe allows flags before the action, argparse does not."""
    parser.prefix_chars = "\0"
    parser.add_argument("words", nargs=argparse.REMAINDER, help="as behind Caffe's own name")


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the program ``caffe``."""
    from kdnet import cli

    return cli.main(["caffe", *(sys.argv[1:] if arguments is None else arguments)])


def run(options: argparse.Namespace) -> int:
    """Do what Caffe would do."""
    actions, flags = parse(options.words)
    if any(name in flags for name in HELP_FLAGS) or not (actions or flags):
        print(USAGE.format(program="kdnet caffe"), end="")
        return 0
    if "version" in flags:
        print(f"caffe version {CAFFE_VERSION} (kdnet {__version__})")
        return 0
    action = _action(actions)
    words = [action.replace("_", "-"), *_translated(action, flags)]
    return _run(words)


def _run(words: Sequence[str]) -> int:
    from kdnet.cli import build_parser

    try:
        asked = build_parser().parse_args(words)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    try:
        return int(asked.run(asked))
    except RunInterruptedError as error:
        if words[0] != "train" or error.signal == signal.SIGTERM:
            raise
        print(render_all(error.diagnostics), file=sys.stderr)
        return 0


def parse(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Words apart from flags, as gflags reads them: the last value of a flag counts.

    Raises:
        UsageError: unknown-flag, flag-without-value.
    """
    rest = list(words)
    actions: list[str] = []
    flags: dict[str, str] = {}
    while rest:
        word = rest.pop(0)
        if word == "--":
            return actions + rest, flags
        if not word.startswith("-") or word == "-":
            actions.append(word)
            continue
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        name = name.replace("-", "_")
        if not _is_switch(name) and not equals:
            if not rest:
                fail(UsageError, "flag-without-value", f"-{name} is given no value")
            value = rest.pop(0)
        flags[name] = value
    return actions, flags


def _is_switch(name: str) -> bool:
    """Whether a flag needs no value.

    Raises:
        UsageError: unknown-flag.
    """
    switches = (*HELP_FLAGS, "version", *GLOG_SWITCHES)
    if name in switches or name.removeprefix("no") in GLOG_SWITCHES:
        return True
    known = (*FLAGS, *GLOG_VALUES)
    if name not in known:
        hint = did_you_mean(name, (*FLAGS, *switches))
        fail(UsageError, "unknown-flag", f'Caffe has no flag "{name}"', help=hint)
    return False


def _action(actions: Sequence[str]) -> str:
    """The one action.

    Raises:
        UsageError: unknown-action, one-action.
    """
    known = ", ".join(ACTIONS)
    if len(actions) != 1:
        text = f"one action is wanted, not {' '.join(actions) or 'none'}"
        how = "a file is named by a flag: -solver F or -model F"
        fail(UsageError, "one-action", text, help=(f"actions are {known}", how))
    if actions[0] not in ACTIONS:
        text = f'there is no action "{actions[0]}"'
        hints = (*did_you_mean(actions[0], ACTIONS), f"actions are {known}")
        fail(UsageError, "unknown-action", text, help=hints)
    return actions[0]


def _translated(action: str, flags: Mapping[str, str]) -> list[str]:
    """The words of kdnet's own command.

    Raises:
        UsageError: missing-flag, snapshot-and-weights.
    """
    given = {name: value for name, value in flags.items() if value and name in FLAGS}
    for name in NEEDED.get(action, ()):
        if name not in given:
            hint = (f"kdnet caffe {action} -{name} F",)
            fail(UsageError, "missing-flag", f"caffe {action} needs -{name}", help=hint)
    if action == "train" and "snapshot" in given and "weights" in given:
        text = "-snapshot goes on with a run, -weights begins one: they exclude each other"
        fail(UsageError, "snapshot-and-weights", text, help=("leave one of them out",))
    _tell_unread(action, given)
    words = [f"--{n.replace('_', '-')}={v}" for n, v in given.items() if n in ACTIONS[action]]
    words += [
        f"-{name}" if _is_switch(name) else f"-{name}={value}" for name, value in _glog(flags)
    ]
    return words + (_OWN[action](given) if action in _OWN else [])


def _glog(flags: Mapping[str, str]) -> list[tuple[str, str]]:
    names = (*GLOG_VALUES, *GLOG_SWITCHES, *(f"no{name}" for name in GLOG_SWITCHES))
    return [(name, value) for name, value in flags.items() if name in names]


def _tell_unread(action: str, given: Mapping[str, str]) -> None:
    from kdnet.runtime import CaffeLog

    unread = [f"-{name}" for name in given if name not in ACTIONS[action]]
    if unread:
        text = f"{', '.join(unread)}: ignored, since caffe {action} does not read it"
        fault = Diagnostic("ignored-flag", text, severity="warning")
        CaffeLog(sys.stderr).diagnostic(fault)


def _of_train(given: Mapping[str, str]) -> list[str]:
    # Caffe's snapshots hold frozen layers too, and its -snapshot takes no weights beside.
    return ["--full", *([] if _states_mode(given["solver"]) else _of_net(given))]


def _of_net(given: Mapping[str, str]) -> list[str]:
    return [] if "gpu" in given else ["--device=cpu"]


def _states_mode(solver: str) -> bool:
    from kdnet.net import load_solver

    try:
        return load_solver(solver).message.HasField("solver_mode")
    except KdnetError:
        return False  # training tells what is wrong with it


_OWN: dict[str, Callable[[Mapping[str, str]], list[str]]] = {
    "test": _of_net,
    "time": _of_net,
    "train": _of_train,
}
