"""From the flags of ``kdnet join`` to a description, and from a joined net to files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from kdnet.errors import UsageError, did_you_mean, fail

if TYPE_CHECKING:
    from kdnet.schema import Located
    from kdnet.schema import kdnet_pb2 as pb

Words = Sequence[tuple[str, str]]
_REPEATED = ("weights", "rename")
_NUMBERS = {"--lambda": "distillation_weight", "--temperature": "temperature"}
_DEFAULT_LOSS = "TeacherStudentCrossEntropy"


class Said(argparse.Action):
    """Keeps every flag of a join in the order it was given: a net's flags follow the net."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Note one flag and its value; "" for none."""
        del parser, option_string
        value = values if isinstance(values, str) else ""
        flag = self.option_strings[0]
        namespace.said = [*getattr(namespace, "said", []), (flag, value)]


def description_of(said: Words) -> tuple[Located[pb.JoinParameter], str]:
    """The description that flags or a file give, and the file, "" for none.

    Raises:
        UsageError: bad-join-option; SchemaError for the file.
    """
    from kdnet.schema import Located, SourceMap, read_prototxt
    from kdnet.schema import kdnet_pb2 as pb

    files = [value for flag, value in said if flag == "--description"]
    if files and len(said) > 1:
        _bad("--description stands alone: put what the other flags say into the file")
    if files:
        return read_prototxt(files[0], pb.JoinParameter), files[0]
    message = pb.JoinParameter()
    for flag, value in said:
        role, _, option = flag.removeprefix("--").partition("-")
        if role in ("teacher", "student"):
            _set_net(getattr(message, role), flag, option, value)
        else:
            _set_join(message, flag, value)
    _settle_losses(message)
    return Located(message, SourceMap.empty()), ""


def _set_net(nets: Any, flag: str, option: str, value: str) -> None:
    """One flag of the last net of its role."""
    if not option:
        nets.add(net=value)
        return
    if not nets:
        role = flag.removeprefix("--").partition("-")[0]
        _bad(f"{flag} must follow the --{role} that it belongs to")
    net = nets[-1]
    if option in _REPEATED:
        getattr(net, option).append(value)
    elif option == "accuracy":
        net.keep_metrics = True
    elif option == "transform":
        net.transform_param.CopyFrom(_parsed(flag, value, type(net.transform_param)))
    elif option == "weight":
        net.weight = _number(flag, value)
    else:
        setattr(net, option, value)


def _set_join(message: pb.JoinParameter, flag: str, value: str) -> None:
    if flag == "--loss":
        message.loss.add(type=value)
    elif flag == "--match":
        _match(message, value)
    elif flag == "--loss-param":
        if not message.loss:
            message.loss.add(type=_DEFAULT_LOSS)
        _loss_param(message.loss[-1], flag, value)
    elif flag in _NUMBERS:
        setattr(message, _NUMBERS[flag], _number(flag, value))
    elif flag == "--combine":
        _combine(message, value)
    else:
        setattr(message, flag.removeprefix("--"), value)


def _combine(message: pb.JoinParameter, value: str) -> None:
    names = [name.lower() for name, _ in message.Combine.items()]
    if value.lower() not in names:
        _bad(f'--combine "{value}" is none of {", ".join(names)}', did_you_mean(value, names))
    message.combine = message.Combine.Value(value.upper())  # type: ignore[assignment]  # its enum


def _settle_losses(message: pb.JoinParameter) -> None:
    """Losses between blobs come beside the one between logits, unless it is ``none``."""
    between_logits = [not loss.student for loss in message.loss]
    if message.loss and message.teacher and not any(between_logits):
        message.loss.insert(0, type(message.loss[0])(type=_DEFAULT_LOSS))
    kept = [loss for loss in message.loss if loss.type != "none"]
    if message.loss and not kept:
        _bad("--loss none leaves nothing to learn from a teacher: add --match")
    del message.loss[:]
    message.loss.extend(kept)


def _match(message: pb.JoinParameter, value: str) -> None:
    """``student=teacher:Type:weight``, with commas between several blobs."""
    blobs, _, rest = value.partition(":")
    kind, _, weight = rest.partition(":")
    ours, _, theirs = blobs.partition("=")
    if not (ours and theirs and kind):
        _bad(f'--match "{value}" is not STUDENT=TEACHER:TYPE or STUDENT=TEACHER:TYPE:WEIGHT')
    loss = message.loss.add(type=kind, student=ours.split(","), teacher=theirs.split(","))
    if weight:
        loss.weight = _number("--match", weight)


def _loss_param(loss: pb.JoinLossParameter, flag: str, value: str) -> None:
    from kdnet.layers import layer_class
    from kdnet.net.join import model_of
    from kdnet.schema import SourceMap
    from kdnet.schema import kdnet_pb2 as pb

    model = model_of(pb.LayerParameter(name="loss", type=loss.type), SourceMap.empty())
    field = layer_class(model).params_field
    if not field:
        _bad(f'{flag}: a "{loss.type}" has no parameters')
    params = getattr(loss.params, field)
    params.MergeFrom(_parsed(flag, value, type(params)))


def _parsed(flag: str, value: str, kind: Any) -> Any:
    from kdnet.schema import read_text

    return read_text(value, flag, kind).message


def _number(flag: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        _bad(f'{flag}: "{value}" is no number')


def _bad(text: str, hint: tuple[str, ...] = ()) -> NoReturn:
    fail(UsageError, "bad-join-option", text, help=hint)
