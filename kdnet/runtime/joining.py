"""Joins nets with what kdnet knows of layers, and checks what came out."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kdnet.compile import trace_forward
from kdnet.data.items import ImageSource
from kdnet.data.source import source_class
from kdnet.errors import DataError, Diagnostic, Faults, LayerError, NetError, Note, SchemaError
from kdnet.graph import Emitter
from kdnet.layers import DataLayer, Trace, layer_class
from kdnet.layers.base import ANY
from kdnet.layers.data_layers import Input
from kdnet.layers.onnx_model import ONNX
from kdnet.layers.softmax import Softmax
from kdnet.net import (
    LayerModel,
    NetModel,
    NetState,
    SolverModel,
    find_path,
    load_solver,
    resolve_net,
    solver_beside,
)
from kdnet.net.flow import last_makers
from kdnet.net.join import STUDENT, Joined, Kinds, LayerKind, Member, join, model_of
from kdnet.net.solver import NET_FIELDS
from kdnet.runtime.onnx_net import read_net_or_model
from kdnet.schema import Located, read_net, read_prototxt
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import WeightFile, read_weights

Shape = tuple[int, ...]
# Extents that divide by most groups and hold most windows: only the number of weights is read.
_ANY_SHAPES: tuple[Shape, ...] = ((2, 840, 96, 96), (2, 840), (2, 840, 96), (2, 840, 9, 9, 9))


def _kind(model: LayerModel) -> LayerKind:
    found = layer_class(model)
    tops = found.tops if isinstance(found.tops, tuple) else (found.tops, found.tops)
    bottoms = found.bottoms if isinstance(found.bottoms, tuple) else (found.bottoms,) * 2
    source = source_class(model.type)
    images = source is not None and issubclass(source, ImageSource)
    return LayerKind(
        data=issubclass(found, DataLayer),
        fed=issubclass(found, Input),
        transforms=images and tops[0] == 1,
        loss=found.is_loss,
        metric=found.is_metric,
        softmax=issubclass(found, Softmax),
        roles=found.roles,
        least=bottoms[0],
        levels=bottoms[1] == ANY and found.roles == ("student", "teacher"),
        whole=issubclass(found, ONNX),
        params=found.params_field,
    )


def _weights(model: LayerModel) -> int:
    """How many weights of a layer would be trained, whatever the shapes of its bottoms."""
    layer = layer_class(model)(model, Trace())
    for shape in _ANY_SHAPES:
        g = Emitter()
        bottoms = [g.input(f"bottom{index}", shape) for index in range(len(model.bottoms))]
        try:
            count = len(layer.weights(*bottoms))
        except (LayerError, IndexError):
            continue
        params = [layer.param(index) for index in range(count)]
        moving = [bool(param.lr_mult or param.decay_mult) for param in params]
        return max((index for index, moves in enumerate(moving, start=1) if moves), default=0)
    return 0


KINDS = Kinds(_kind, _weights, read_net_or_model)


def read_description(path: str) -> Located[pb.JoinParameter]:
    """Read the description of a join.

    Raises:
        SchemaError: it is none, or cannot be read.
    """
    return read_prototxt(path, pb.JoinParameter)


def is_join(path: str) -> bool:
    """Whether a prototxt describes a join: by what parses, and what it names."""
    with suppress(SchemaError):
        message = read_description(path).message
        return bool(message.teacher or message.student)
    return False


def read_join(path: str) -> Joined:
    """Join the nets of a description file.

    Raises:
        KdnetError: as :func:`join_checked`; SchemaError for the description.
    """
    return join_checked(read_description(path), path)[0]


def about(joined: Joined) -> list[str]:
    """A line for each net of a join that is made in memory."""
    found = []
    for member in joined.members:
        how = "frozen" if member.frozen else "trained"
        rules = ", ".join(member.rules)
        found.append(f"joined: {member.name} {member.path}, {how}, renamed by {rules}")
    return found


def join_checked(description: Located[pb.JoinParameter], file: str) -> tuple[Joined, str]:
    """A joined net whose wiring and class counts are right, and why shapes are unknown, if so.

    Class scores of one count and several shapes, such as (N, 10) and (N, 10, 1, 1), are flattened.

    Raises:
        NetError: class-count; the faults of :func:`join`; those of the wiring of both phases.
        LayerError: a layer refuses its bottoms.
    """
    joined = join(description, file, KINDS)
    _check_wiring(joined)
    try:
        shapes = _shapes(joined, joined.added)
    except DataError as error:
        return joined, error.diagnostics[0].message
    faults = Faults(NetError)
    uneven = set()
    for student, teacher in joined.compared:
        ours, theirs = shapes[student.scores], shapes[teacher.scores]
        if _classes(ours) != _classes(theirs):
            faults.add(_class_count(joined, student, teacher, shapes))
        elif ours != theirs:
            uneven |= {member.name for member in (student, teacher)}
    faults.raise_if_any()
    flat = [m.name for m in joined.members if m.name in uneven and len(shapes[m.scores]) > 2]
    if flat:
        joined = join(description, file, KINDS, flat)
    _shapes(joined, frozenset())
    return joined, ""


def _classes(shape: Shape) -> Shape:
    """What must be equal: the extents that are not 1, but for the batch."""
    return tuple(extent for extent in shape[1:] if extent != 1)


def _resolved(joined: Joined, phase: int) -> NetModel:
    net = joined.net
    return resolve_net(net.message, net.source, NetState(phase))


def _check_wiring(joined: Joined) -> None:
    """Both phases must hold together; a net without data for its tests is only trained."""
    _resolved(joined, pb.TRAIN)
    data = [one for one in joined.layers if KINDS.of(model_of(one.message, one.source)).data]
    if any(_in_test(one.message) for one in data):
        _resolved(joined, pb.TEST)


def _in_test(message: pb.LayerParameter) -> bool:
    state = NetState(pb.TEST)
    if message.include:
        return any(map(state.meets, message.include))
    return not any(map(state.meets, message.exclude))


def _shapes(joined: Joined, without: Collection[str]) -> dict[str, Shape]:
    """The shape of every blob of the TRAIN net, but for those of the layers ``without``."""
    net = _resolved(joined, pb.TRAIN)
    layers = tuple(layer for layer in net.layers if layer.name not in without)
    forward = trace_forward(replace(net, layers=layers), Emitter())
    return {name: tuple(tensor.shape) for name, tensor in forward.blobs.items()}


def _class_count(
    joined: Joined, student: Member, teacher: Member, shapes: dict[str, Shape]
) -> Diagnostic:
    net = _resolved(joined, pb.TRAIN)
    makers = last_makers(net)
    ours, theirs = (net.layers[makers[member.scores]] for member in (student, teacher))
    return Diagnostic(
        "class-count",
        f'{student.name} gives scores "{student.scores}" of shape {shapes[student.scores]}, '
        f'{teacher.name} "{teacher.scores}" of {shapes[teacher.scores]}: the class counts differ',
        ours.position,
        (Note(f"{teacher.name}'s are made here", theirs.position),),
        ("name other blobs with logits, or let losses compare features instead",),
    )


def solver_of_join(path: str) -> tuple[SolverModel | None, str]:
    """The solver of a description, and a sentence on the choice.

    The description's own field wins; then the solver beside it; then the first student's.
    """
    message = read_description(path).message
    if message.solver:
        return load_solver(find_path(message.solver, path)), ""
    beside = solver_beside(path)
    if beside:
        return load_solver(beside), f'using the solver beside the description: "{beside}"'
    student = find_path(message.student[0].net, path) if message.student else ""
    theirs = solver_beside(student) if student and Path(student).is_file() else None
    if theirs is None:
        return None, ""
    return for_joined(load_solver(theirs), Path(path).stem), f'using the student\'s: "{theirs}"'


def solver_of_student(joined: Joined) -> str | None:
    """The solver of the first student, if one lies beside its net."""
    first = next(member for member in joined.members if member.role == STUDENT)
    return solver_beside(first.path)


def for_joined(solver: SolverModel, stem: str) -> SolverModel:
    """A student's solver for the net it became part of: other nets, weights and snapshots."""
    message = pb.SolverParameter()
    message.CopyFrom(solver.message)
    for name in (*NET_FIELDS, "test_net", "test_net_param", "weights"):
        message.ClearField(name)
    if message.snapshot_prefix:
        message.snapshot_prefix = str(Path(message.snapshot_prefix).parent / stem)
    return replace(solver, message=message)


def weight_sources(joined: Joined, file: str) -> list[tuple[str, Member]]:
    """Every weight file that the description names, and whose it is.

    Raises:
        NetError: missing-net-weights.
    """
    faults, found = Faults(NetError), []
    for member in joined.members:
        for index, named in enumerate(member.entry.weights):
            path = find_path(named, file)
            found.append((path, member))
            if not Path(path).is_file():
                text = f'{member.name}: there is no weight file "{named}"'
                span = member.at.span(("weights", index))
                faults.add(Diagnostic("missing-net-weights", text, span))
    faults.raise_if_any()
    return found


def read_renamed(path: str, member: Member) -> WeightFile:
    """A net's weight file under the names of the joined net.

    Raises:
        WeightsError: the file's faults; rename-collision.
    """
    found = read_weights(path)
    names = member.mapping.resolve(list(dict.fromkeys(layer.name for layer in found.layers)))
    layers = tuple(replace(layer, name=names[layer.name]) for layer in found.layers)
    return replace(found, layers=layers)


@dataclass(frozen=True)
class NamedNet:
    """A net by its path, and the weights that come with it: those that a join's description names.

    ``files`` carry the joined net's names.
    """

    located: Located[pb.NetParameter]
    files: tuple[WeightFile, ...] = ()


def read_named(path: str) -> NamedNet:
    """A net's own file, or the net that a join's description makes.

    Raises:
        SchemaError: neither can be read from it.
        NetError: the faults of the join; missing-net-weights.
        WeightsError: the faults of the files that a description names.
    """
    if not is_join(path):
        return NamedNet(read_net(path))
    joined = read_join(path)
    files = (read_renamed(file, member) for file, member in weight_sources(joined, path))
    return NamedNet(joined.net, tuple(files))
