"""Flags as Caffe spells them, beside kdnet's own spelling.

Caffe reads flags with one dash or two, with ``=`` or a space, and glog's among them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdnet.errors import Diagnostic, UsageError, fail

if TYPE_CHECKING:
    from kdnet.runtime import CaffeLog, StopRequest

EFFECTS = ("stop", "snapshot", "none")
GLOG_SWITCHES = (
    "alsologtostderr",
    "colorlogtostderr",
    "log_prefix",
    "logtostderr",
    "stop_logging_if_full_disk",
)
GLOG_VALUES = (
    "log_backtrace_at",
    "log_dir",
    "log_link",
    "logbuflevel",
    "logbufsecs",
    "logemaillevel",
    "max_log_size",
    "minloglevel",
    "stderrthreshold",
    "v",
    "vmodule",
)
TRUTHS = ("0", "1", "true", "false")


class _Same(argparse.Action):
    """Does what another action does."""

    def __init__(self, *, target: argparse.Action, **more: Any) -> None:
        super().__init__(**more)
        self._target = target

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        self._target(parser, namespace, values, option_string)


def as_in_caffe(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
    """Accept a flag with one dash and with underscores too; the help stays as it is."""
    name = action.option_strings[-1].removeprefix("--")
    spellings = {f"-{name}", f"-{name.replace('-', '_')}", f"--{name.replace('-', '_')}"}
    parser.add_argument(
        *sorted(spellings - set(action.option_strings)),
        action=_Same,
        target=action,
        dest=action.dest,
        nargs=action.nargs,
        type=action.type or str,
        choices=action.choices,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def add_gpu(parser: argparse.ArgumentParser) -> None:
    """``--gpu``, Caffe's way to say ``--device``."""
    text = "Caffe's way to say --device cuda:ID"
    as_in_caffe(parser, parser.add_argument("--gpu", metavar="ID|all", default="", help=text))


def device_of(options: argparse.Namespace) -> str | None:
    """What ``--device`` or ``--gpu`` says.

    Raises:
        UsageError: two-devices, and what :func:`kdnet.runtime.device.device_of_gpu` finds.
    """
    from kdnet.runtime.device import device_of_gpu

    device: str | None = options.device
    if not options.gpu:
        return device
    if device:
        text = f"--device {device} and --gpu {options.gpu} both say where to run"
        fail(UsageError, "two-devices", text, help=("leave one of them out",))
    return device_of_gpu(options.gpu)


def add_signals(parser: argparse.ArgumentParser) -> None:
    """``--sigint-effect`` and ``--sighup-effect``."""
    for name, default, what in (
        ("sigint", "stop", "Ctrl-C"),
        ("sighup", "snapshot", "a hangup"),
    ):
        flag = parser.add_argument(
            f"--{name}-effect",
            choices=EFFECTS,
            default=default,
            help=f"what {what} does: stop, snapshot or none ({default})",
        )
        as_in_caffe(parser, flag)


def stop_request(options: argparse.Namespace) -> StopRequest:
    """What signals are to do."""
    from kdnet.runtime import Effect, StopRequest

    return StopRequest(Effect(options.sigint_effect), Effect(options.sighup_effect))


def add_glog(parser: argparse.ArgumentParser) -> None:
    """Accept glog's flags, and Caffe's ``-help``."""
    for name in GLOG_SWITCHES:
        forms = [name, f"no{name}", *(f"{name}={truth}" for truth in TRUTHS)]
        spellings = [f"{dashes}{form}" for form in forms for dashes in ("-", "--")]
        parser.add_argument(
            *spellings, dest="glog", action="append_const", const=name, help=argparse.SUPPRESS
        )
    for name in GLOG_VALUES:
        parser.add_argument(
            f"-{name}", f"--{name}", dest="glog", action=_Named, help=argparse.SUPPRESS
        )
    parser.add_argument("-help", action="help", help=argparse.SUPPRESS)


class _Named(argparse.Action):
    """Remembers that a flag was given, not its value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        del parser, values
        given = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*given, (option_string or "").lstrip("-")])


def tell_ignored(options: argparse.Namespace, log: CaffeLog) -> None:
    """Name glog's flags as ignored, once."""
    if options.glog:
        names = ", ".join(f"-{name}" for name in dict.fromkeys(options.glog))
        text = f"{names}: ignored, since every line goes to stderr"
        log.diagnostic(Diagnostic("ignored-flag", text, severity="warning"))
