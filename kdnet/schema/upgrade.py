"""Old nets and solvers in today's format, and where their fields were written.

Caffe's own upgrades, in Caffe's order: the first format of layers, the transformation fields of
data layers, the second format of layers, the inputs of a net, BatchNorm's parameters.
"""

from __future__ import annotations

from kdnet.errors import Diagnostic, Faults, Note, SchemaError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.fields import enum_name
from kdnet.schema.source import Path, SourceMap
from kdnet.schema.upgrade_v0 import upgrade_v0
from kdnet.schema.upgrade_v1 import DATA_HOLDERS, TRANSFORM_FIELDS, move_transforms, upgrade_v1

_SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def upgrade_net(message: pb.NetParameter, source: SourceMap) -> tuple[pb.NetParameter, SourceMap]:
    """The net in today's format, and the map that goes with it.

    ``message`` itself stays as it is, and is returned where there is nothing to upgrade. Weight
    files are upgraded as well: give them ``SourceMap.empty()``. What is ignored is a fault only
    in a text, which has a place to show.

    Raises:
        SchemaError: formats are mixed, an input has no shape, or a field has no effect.
    """
    faults = Faults(SchemaError)
    _check_formats(message, source, faults)
    faults.raise_if_any()
    if message.layers or message.input or any(_fixed_batch_norm(x) for x in message.layer):
        net = pb.NetParameter()
        net.CopyFrom(message)
        source = upgrade_v0(net, source, faults)
        faults.raise_if_any()
        source = upgrade_v1(net, move_transforms(net, source))
        source = _upgrade_inputs(net, source, faults)
        for layer in net.layer:
            _freeze_batch_norm(layer)
        message = net
    _check_ignored(message, source, faults)
    faults.raise_if_any()
    return message, source


def upgrade_solver(
    message: pb.SolverParameter, source: SourceMap
) -> tuple[pb.SolverParameter, SourceMap]:
    """The solver in today's format, the nets inside it included, and the map that goes with it.

    Raises:
        SchemaError: both `type` and `solver_type` are given, or a net inside cannot be upgraded.
    """
    faults = Faults(SchemaError)
    solver = pb.SolverParameter()
    solver.CopyFrom(message)
    if solver.HasField("solver_type"):
        source = _upgrade_solver_type(solver, source, faults)
    for path, net in _inline_nets(solver):
        try:
            upgraded, places = upgrade_net(net, source.at(path))
        except SchemaError as error:
            faults.extend(error)
            continue
        net.CopyFrom(upgraded)
        source = source.with_child(path, places)
    faults.raise_if_any()
    return solver, source


def _check_formats(net: pb.NetParameter, source: SourceMap, faults: Faults) -> None:
    oldest = [layer.HasField("layer") for layer in net.layers]
    first: Path
    if net.layer and net.layers:
        first, other = ("layer", 0), ("layers", 0)
        what = '"layer" and "layers"'
    elif any(oldest) and not all(oldest):
        first, other = ("layers", oldest.index(True), "layer"), ("layers", oldest.index(False))
        what = '"layers { layer { } }" and "layers { }"'
    else:
        return
    faults.add(
        Diagnostic(
            "mixed-layer-formats",
            f"one net has both {what}, which are different formats",
            source.span(other),
            notes=(Note("the other format is used here", source.span(first)),),
            help=('write every layer as layer { type: "..." }',),
        )
    )


def _check_ignored(net: pb.NetParameter, source: SourceMap, faults: Faults) -> None:
    for index in range(len(net.layer)):
        for holder in DATA_HOLDERS:
            for name in TRANSFORM_FIELDS:
                written = source.child("layer", index, holder, name)
                # The one such field that Caffe reads where it is.
                if written is not None and (holder, name) != ("window_data_param", "scale"):
                    faults.add(
                        Diagnostic(
                            "ignored-field",
                            f'"{name}" has no effect in {holder}: Caffe reads it only in the old '
                            '"layers" format',
                            written.span(),
                            help=(f"move it to transform_param {{ {name}: ... }}",),
                        )
                    )


def _upgrade_inputs(net: pb.NetParameter, source: SourceMap, faults: Faults) -> SourceMap:
    """Put an Input layer that makes all inputs at the front of the net, in place."""
    if not net.input:
        return source
    written = source.child("input")
    if net.input_shape or net.input_dim:
        layer, node = _input_layer(net, source, faults)
        net.layer.insert(0, layer)
        nodes = [source.at(("layer", i)) for i in range(len(net.layer) - 1)]
        source = source.with_child(("layer",), SourceMap.sequence([node, *nodes]))
    elif written is not None:
        _check_made(net, source, faults)
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)
        source = source.with_child((name,), None)
    return source


def _check_made(net: pb.NetParameter, source: SourceMap, faults: Faults) -> None:
    """Inputs without shapes are left out, as in Caffe; then layers must make them."""
    made = {top for layer in net.layer for top in layer.top}
    for index, name in enumerate(net.input):
        if name not in made:
            faults.add(
                Diagnostic(
                    "input-without-shape",
                    f'input "{name}" has no shape',
                    source.span(("input", index)),
                    help=("give input_shape { dim: ... } for each input",),
                )
            )
            return


def _input_layer(
    net: pb.NetParameter, source: SourceMap, faults: Faults
) -> tuple[pb.LayerParameter, SourceMap]:
    layer = pb.LayerParameter(name="input", type="Input", top=net.input)
    if net.input_shape:
        given, wanted, what = len(net.input_shape), len(net.input), "input_shape"
        layer.input_param.shape.extend(net.input_shape)
        shapes = source.child("input_shape") or SourceMap()
    else:
        given, wanted, what = len(net.input_dim), 4 * len(net.input), "input_dim"
        dims = [net.input_dim[i : i + 4] for i in range(0, given, 4)]
        layer.input_param.shape.extend(pb.BlobShape(dim=dim) for dim in dims)
        places = [source.at(("input_dim", i)) for i in range(given)]
        shapes = SourceMap.sequence(
            [
                SourceMap(places[i].place, {"dim": SourceMap.sequence(places[i : i + 4])})
                for i in range(0, given, 4)
            ]
        )
    if given != wanted:
        faults.add(
            Diagnostic(
                "input-shape-count",
                f"{len(net.input)} input(s) need {wanted} {what}, but there are {given}",
                source.span((what, min(wanted, given - 1))),
            )
        )
    node = SourceMap(source.span(("input", 0)))
    node = node.with_child(("top",), source.child("input"))
    return layer, node.with_child(("input_param", "shape"), shapes)


def _fixed_batch_norm(layer: pb.LayerParameter) -> bool:
    return layer.type == "BatchNorm" and len(layer.param) == 3


def _freeze_batch_norm(layer: pb.LayerParameter) -> None:
    """BatchNorm's three blobs are statistics: no gradient and no decay may touch them."""
    if _fixed_batch_norm(layer):
        for spec in layer.param:
            spec.lr_mult = 0
            spec.decay_mult = 0


def _upgrade_solver_type(
    solver: pb.SolverParameter, source: SourceMap, faults: Faults
) -> SourceMap:
    old = source.child("solver_type")
    if solver.HasField("type"):
        faults.add(
            Diagnostic(
                "solver-type-twice",
                '"solver_type" is the old name of "type"; only one of them can be given',
                source.span(("solver_type",)),
                notes=(Note("type is given here", source.span(("type",))),),
            )
        )
        return source
    solver.type = _SOLVER_TYPES[enum_name(pb.SolverParameter.SolverType, solver.solver_type)]
    solver.ClearField("solver_type")
    return source.with_child(("type",), old).with_child(("solver_type",), None)


def _inline_nets(solver: pb.SolverParameter) -> list[tuple[Path, pb.NetParameter]]:
    nets: list[tuple[Path, pb.NetParameter]] = [
        ((name,), getattr(solver, name))
        for name in ("net_param", "train_net_param")
        if solver.HasField(name)
    ]
    nets += [(("test_net_param", i), net) for i, net in enumerate(solver.test_net_param)]
    return nets
