"""Old formats in today's: as Caffe upgrades them, and the places follow."""

import os
from pathlib import Path

import pytest

from kdnet.errors import SchemaError
from kdnet.schema import (
    SourceMap,
    read_net,
    read_solver,
    read_text,
    upgrade_net,
    upgrade_solver,
)
from kdnet.schema import kdnet_pb2 as pb

GOLDEN = Path(__file__).parent / "golden"
CASES = Path(__file__).parent / "cases" / "reader"


def upgraded(text):
    located = read_text(text, "net.prototxt", pb.NetParameter)
    return upgrade_net(located.message, located.source)


def as_caffe_saves(net):
    """A net as Caffe keeps it in memory: without the layers of the other phase, phases set."""
    kept = pb.NetParameter(name=net.name)
    for layer in net.layer:
        if pb.TEST not in [rule.phase for rule in layer.include]:
            kept.layer.add().CopyFrom(layer)
            kept.layer[-1].phase = pb.TRAIN
    return kept


def as_people_write(net):
    """A net as Caffe saved it, without weights and without the splits that it put in."""
    source = {}
    kept = pb.NetParameter(name=net.name)
    for layer in net.layer:
        del layer.blobs[:]
        if layer.type == "Split":
            source.update(dict.fromkeys(layer.top, layer.bottom[0]))
            continue
        layer.bottom[:] = [source.get(name, name) for name in layer.bottom]
        kept.layer.add().CopyFrom(layer)
    return kept


@pytest.mark.parametrize("name", ["v0", "v1", "v2"])
def test_the_upgrade_is_caffes(name):
    ours = read_net(GOLDEN / f"schema_{name}.prototxt").message
    caffes = pb.NetParameter.FromString((GOLDEN / f"schema_{name}.caffemodel").read_bytes())
    assert as_caffe_saves(ours) == as_people_write(caffes)


@pytest.mark.parametrize("name", ["v0", "v1", "v2"])
def test_a_binary_net_is_upgraded_like_its_text(name):
    path = GOLDEN / f"schema_{name}.prototxt"
    binary = read_text(path.read_text(), "net", pb.NetParameter).message.SerializeToString()
    net, source = upgrade_net(pb.NetParameter.FromString(binary), SourceMap.empty())
    assert net == read_net(path).message
    assert source.span(("layer", 0, "name")) is None


def test_a_net_of_today_is_returned_as_it_is():
    net = pb.NetParameter(layer=[{"name": "a", "type": "ReLU"}])
    source = SourceMap.empty()
    assert upgrade_net(net, source) == (net, source)
    assert upgrade_net(net, source)[0] is net


def test_the_old_message_stays_as_it_is():
    net = pb.NetParameter(input=["a"], input_dim=[1, 2, 3, 4], layers=[{"name": "b"}])
    before = pb.NetParameter.FromString(net.SerializeToString())
    upgrade_net(net, SourceMap.empty())
    assert net == before


# Places ----------------------------------------------------------------------------------------


def value_at(message, path):
    for key in path:
        message = message[key] if isinstance(key, int) else getattr(message, key)
    return message


def leaves(node, path=()):
    for key, child in node.children.items():
        yield from leaves(child, (*path, key))
    if not node.children:
        yield path


@pytest.mark.parametrize("name", ["v0", "v1", "v2"])
def test_every_value_has_the_place_where_it_was_written(name):
    located = read_net(GOLDEN / f"schema_{name}.prototxt")
    paths = list(leaves(located.source))
    assert len(paths) > 50
    for path in paths:
        value = value_at(located.message, path)
        span = located.source.span(path)
        written = span.text[span.column - 1 :][: span.length]
        if path[-1] in ("lr_mult", "decay_mult") and located.message.layer[path[1]].type == (
            "BatchNorm"
        ):
            assert value == 0
        elif isinstance(value, str):
            assert written == f'"{value}"' or path[-1] == "type"
        elif isinstance(value, float):
            assert float(written) == pytest.approx(value)
        elif isinstance(value, bool | int):
            assert written.isupper() or written in (str(value), str(value).lower())


def test_every_layer_is_where_it_was_written():
    for name in ("v0", "v1", "v2"):
        located = read_net(GOLDEN / f"schema_{name}.prototxt")
        for index, layer in enumerate(located.message.layer):
            text = located.source.span(("layer", index)).text
            assert text.split()[0] in ("layer", "layers", "input:")
            expected = "data" if layer.type == "Input" else layer.name
            place = ("layer", index, "top" if layer.type == "Input" else "name")
            assert f'"{expected}"' in located.source.span(place).text


# The second format -----------------------------------------------------------------------------


def test_every_type_of_the_second_format_is_a_layer_type_of_today():
    numbers = pb.V1LayerParameter.LayerType.values()
    net = pb.NetParameter(layers=[{"type": number} for number in numbers])
    types = [layer.type for layer in upgrade_net(net, SourceMap.empty())[0].layer]
    names = pb.V1LayerParameter.LayerType.keys()
    assert len(set(types)) == len(numbers) == 40
    irregular = {"NONE": "", "EUCLIDEAN_LOSS": "EuclideanLoss", "SOFTMAX_LOSS": "SoftmaxWithLoss"}
    for name, found in zip(names, types, strict=True):
        wanted = irregular.get(name, name.replace("_", ""))
        assert found.upper() == wanted.upper()


def test_every_field_of_the_second_format_arrives():
    old = pb.V1LayerParameter()
    for field in old.DESCRIPTOR.fields:
        if field.message_type is not None and field.name.endswith("_param"):
            getattr(old, field.name).SetInParent()
    new = upgrade_net(pb.NetParameter(layers=[old]), SourceMap.empty())[0].layer[0]
    assert {f.name for f, _ in new.ListFields()} == {f.name for f, _ in old.ListFields()}


def test_param_specs():
    net, source = upgraded(
        """layers {
        param: "w"
        blobs_lr: 1
        blobs_lr: 2
        weight_decay: [0, 3, 4]
        blob_share_mode: STRICT
        blob_share_mode: PERMISSIVE
        }"""
    )
    assert list(net.layer[0].param) == [
        pb.ParamSpec(name="w", lr_mult=1, decay_mult=0, share_mode=pb.ParamSpec.STRICT),
        pb.ParamSpec(lr_mult=2, decay_mult=3, share_mode=pb.ParamSpec.PERMISSIVE),
        pb.ParamSpec(decay_mult=4),
    ]
    assert source.span(("layer", 0, "param", 1, "lr_mult")).line == 4
    assert source.span(("layer", 0, "param", 2, "decay_mult")).column == 30
    assert source.span(("layer", 0, "param", 2)).line == 5
    assert source.span(("layer", 0, "param", 2, "name")).line == 5


@pytest.mark.parametrize(
    ("layer_type", "holder"),
    [
        ("DATA", "data_param"),
        ("IMAGE_DATA", "image_data_param"),
        ("WINDOW_DATA", "window_data_param"),
    ],
)
def test_transformations_of_data_layers_move(layer_type, holder):
    net, source = upgraded(
        f"""layers {{
        type: {layer_type}
        {holder} {{
          source: "s"
          scale: 0.5
          mean_file: "m"
          crop_size: 3
          mirror: true
        }}
        transform_param {{ scale: 2 mean_value: 1 }}
        }}"""
    )
    moved = pb.TransformationParameter(
        scale=0.5, mean_file="m", crop_size=3, mirror=True, mean_value=[1]
    )
    layer = net.layer[0]
    assert layer.transform_param == moved
    assert [field.name for field, _ in getattr(layer, holder).ListFields()] == ["source"]
    assert source.span(("layer", 0, "transform_param", "scale")).line == 5
    assert source.span(("layer", 0, "transform_param", "mean_value", 0)).line == 10
    assert source.span(("layer", 0, holder, "scale")).line == 3


# Inputs and BatchNorm --------------------------------------------------------------------------


def test_inputs_become_one_layer_at_the_front():
    net, source = upgraded(
        """input: "a"
        input: "b"
        input_dim: [1, 2, 3, 4]
        input_dim: [5, 6, 7, 8]
        layer { name: "s" type: "Silence" }"""
    )
    assert [layer.name for layer in net.layer] == ["input", "s"]
    first = net.layer[0]
    assert (first.type, list(first.top)) == ("Input", ["a", "b"])
    assert [list(shape.dim) for shape in first.input_param.shape] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert not net.input
    assert not net.input_dim
    assert source.span(("layer", 0, "top", 1)).line == 2
    assert source.span(("layer", 0, "input_param", "shape", 1, "dim", 3)).column == 30
    assert source.span(("layer", 1, "name")).line == 5
    assert source.span(("input", 0)).line == 1


def test_input_shapes_come_before_input_dims():
    net, source = upgraded('input: "a"\ninput_shape { dim: 7 }\ninput_dim: [1, 2, 3, 4]')
    assert list(net.layer[0].input_param.shape[0].dim) == [7]
    assert source.span(("layer", 0, "input_param", "shape", 0, "dim", 0)).line == 2


def test_inputs_of_weight_files_need_no_shape():
    net = pb.NetParameter(input=["data"], layer=[{"name": "a"}])
    assert upgrade_net(net, SourceMap.empty())[0] == pb.NetParameter(layer=[{"name": "a"}])


def test_three_params_of_batch_norm_are_frozen():
    net = pb.NetParameter(
        layer=[
            {"type": "BatchNorm", "param": [{"lr_mult": 1, "name": "m"}, {}, {"decay_mult": 2}]},
            {"type": "BatchNorm", "param": [{"lr_mult": 1}]},
            {"type": "Scale", "param": [{"lr_mult": 1}] * 3},
        ]
    )
    frozen, one, scale = upgrade_net(net, SourceMap.empty())[0].layer
    zeros = {"lr_mult": 0, "decay_mult": 0}
    assert list(frozen.param) == [
        pb.ParamSpec(name="m", **zeros),
        pb.ParamSpec(**zeros),
        pb.ParamSpec(**zeros),
    ]
    assert one == net.layer[1]
    assert scale == net.layer[2]


# Solvers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SGD", "SGD"),
        ("NESTEROV", "Nesterov"),
        ("ADAGRAD", "AdaGrad"),
        ("RMSPROP", "RMSProp"),
        ("ADADELTA", "AdaDelta"),
        ("ADAM", "Adam"),
    ],
)
def test_solver_types(tmp_path, old, new):
    path = tmp_path / "solver.prototxt"
    path.write_text(f"base_lr: 1\nsolver_type: {old}\n")
    located = read_solver(path)
    assert located.message == pb.SolverParameter(base_lr=1, type=new)
    assert located.source.span(("type",)).line == 2


def test_nets_inside_a_solver_are_upgraded():
    solver = pb.SolverParameter()
    for net in (solver.net_param, solver.train_net_param, solver.test_net_param.add()):
        net.layers.add(type=pb.V1LayerParameter.RELU)
    new, _ = upgrade_solver(solver, SourceMap.empty())
    for net in (new.net_param, new.train_net_param, new.test_net_param[0]):
        assert [layer.type for layer in net.layer] == ["ReLU"]


def test_places_follow_into_nets_inside_a_solver():
    located = read_text(
        'test_net_param { name: "n"\nlayers { name: "a" } }', "s", pb.SolverParameter
    )
    _, source = upgrade_solver(located.message, located.source)
    assert source.span(("test_net_param", 0, "layer", 0, "name")).line == 2


@pytest.mark.parametrize("prefix", ["snapshots/", "folder"])
def test_a_snapshot_folder_gets_the_solvers_name(tmp_path, monkeypatch, prefix):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("my_solver.prototxt").write_text(f'snapshot_prefix: "{prefix}"')
    located = read_solver("my_solver.prototxt")
    assert located.message.snapshot_prefix == os.path.join(prefix, "my_solver")
    assert located.source.span(("snapshot_prefix",)).column == 18


def test_other_snapshot_prefixes_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("solver.prototxt").write_text('snapshot_prefix: "snapshots/lenet"')
    assert read_solver("solver.prototxt").message.snapshot_prefix == "snapshots/lenet"
    Path("solver.prototxt").write_text("base_lr: 1")
    assert not read_solver("solver.prototxt").message.HasField("snapshot_prefix")


# Faults ----------------------------------------------------------------------------------------


def test_mixed_formats_are_refused_in_weight_files_too():
    net = pb.NetParameter(layer=[{"name": "a"}], layers=[{"name": "b"}])
    with pytest.raises(SchemaError) as caught:
        upgrade_net(net, SourceMap.empty())
    assert [fault.code for fault in caught.value.diagnostics] == ["mixed-layer-formats"]


def test_ignored_fields_of_weight_files_are_no_fault():
    net = pb.NetParameter(layer=[{"type": "Data", "data_param": {"scale": 2}}])
    assert upgrade_net(net, SourceMap.empty())[0] is net
