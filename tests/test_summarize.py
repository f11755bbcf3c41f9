"""kdnet summarize: numbers made by hand, a golden table, and nets without data."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from small_nets import WEIGHTS, ok, run

from kdnet.cli._table import table_text
from kdnet.compile.forward import Forward, trace_forward
from kdnet.compile.liveness import kept_bytes, peak_bytes
from kdnet.compile.receptive import WHOLE, Extent, View, receptive_fields
from kdnet.compile.summary import Summary, outline, summarize
from kdnet.compile.summary_text import cells, number, settings, size
from kdnet.graph import Emitter
from kdnet.net import NetModel, NetState, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

DATA = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 4, 32, 24] } } }'


def resolved(text: str, phase: int = pb.TRAIN) -> NetModel:
    located = read_text(text, "net.prototxt", pb.NetParameter)
    return resolve_net(located.message, located.source, NetState(phase))


def traced(body: str, phase: int = pb.TRAIN) -> Forward:
    return trace_forward(resolved(f"{DATA}\n{body}", phase), Emitter())


def layer(kind: str, bottoms: str, top: str, params: str = "") -> str:
    wired = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{top}" type: "{kind}" {wired} top: "{top}" {params} }}'


def conv(bottom: str, top: str, params: str) -> str:
    given = f'convolution_param {{ num_output: 4 {params} weight_filler {{ type: "xavier" }} }}'
    return layer("Convolution", bottom, top, given)


# Receptive fields ------------------------------------------------------------------------------


def extents(body: str) -> dict[str, tuple[object, ...] | str | None]:
    """(size, stride, start) of each blob's first axis, "all", or None."""
    forward = traced(body)
    found: dict[str, tuple[object, ...] | str | None] = {}
    for model, view in zip(forward.net.layers, receptive_fields(forward), strict=True):
        seen = view.axes[0] if view and view.axes else None
        whole = "all" if view == WHOLE else None
        found[model.tops[0]] = (seen.size, seen.stride, seen.start) if seen else whole
    return found


def test_windows_behind_windows() -> None:
    found = extents(
        conv("x", "a", "kernel_size: 3 stride: 2 pad: 1")
        + layer("ReLU", "a", "b")
        + layer("Pooling", "b", "c", "pooling_param { kernel_size: 2 stride: 2 }")
        + conv("c", "d", "kernel_size: 3 dilation: 2")
    )
    assert found == {
        "x": (1, 1, 0),
        "a": (3, 2, -1),
        "b": (3, 2, -1),
        "c": (5, 4, -1),
        "d": (5 + 4 * 4, 4, -1),
    }


def test_the_longest_path_decides() -> None:
    found = extents(
        conv("x", "one", "kernel_size: 1")
        + conv("x", "five", "kernel_size: 5 pad: 2")
        + conv("x", "three", "kernel_size: 3 pad: 1")
        + layer("Concat", "one five three", "y")
        + layer("Eltwise", "one three", "z")
    )
    assert found["y"] == (5, 1, -2)
    assert found["z"] == (3, 1, -1)


def test_a_transposed_convolution_undoes_a_stride() -> None:
    found = extents(
        conv("x", "a", "kernel_size: 4 stride: 4")
        + layer(
            "Deconvolution",
            "a",
            "b",
            "convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 }",
        )
    )
    # Each place of b meets two of a, which begin 4 places apart; the first of them is padding.
    assert found["b"] == (8, 2, -4)


def brute_force(kernel: int, stride: int, pad: int, unit: int) -> list[int]:
    """The places of a transposed convolution's bottom that reach one of its top."""
    return [p for p in range(-9, 20) if 0 <= unit + pad - stride * p < kernel]


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(4, 2, 1), (3, 2, 0), (5, 3, 2), (2, 2, 0)])
def test_a_spread_reaches_all_that_any_unit_meets(kernel: int, stride: int, pad: int) -> None:
    behind = Extent().spread(kernel, stride, pad)
    met = brute_force(kernel, stride, pad, 0)
    assert behind.start == min(met)
    most = max(len(brute_force(kernel, stride, pad, unit)) for unit in range(stride))
    assert behind.size == most
    assert behind.stride == Fraction(1, stride)


@pytest.mark.parametrize(
    "last",
    [
        layer("InnerProduct", "x", "y", "inner_product_param { num_output: 2 }"),
        layer("Pooling", "x", "y", "pooling_param { global_pooling: true pool: AVE }"),
        layer("MVN", "x", "y"),
        layer("Flatten", "x", "y"),
        conv("x", "y", "axis: 2 kernel_size: 3"),
        conv("x", "a", "kernel_size: 3") + layer("Flatten", "a", "b") + layer("ReLU", "b", "y"),
    ],
)
def test_layers_that_see_everything(last: str) -> None:
    assert extents(last)["y"] == "all"


def test_layers_that_see_more_or_less_of_a_plane() -> None:
    found = extents(
        layer("LRN", "x", "across")
        + layer("LRN", "x", "near", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 }")
        + conv("x", "small", "kernel_size: 5")
        + layer("Crop", "x small", "cut", "crop_param { axis: 2 offset: [3, 1] }")
        + layer("Interp", "x", "half", "interp_param { height: 16 width: 12 }")
    )
    assert found["across"] == (1, 1, 0)
    assert found["near"] == (3, 1, -1)
    # Only the extents of the reference are read, but it sees 5 places, and so may the cut.
    assert found["cut"] == (5, 1, 3)
    assert found["half"] == (2, 2, 0)


def test_labels_see_no_data() -> None:
    label = 'layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 2 } } }'
    found = extents(
        label
        + layer("InnerProduct", "x", "y", "inner_product_param { num_output: 2 }")
        + layer("SoftmaxWithLoss", "y l", "loss")
    )
    assert (found["l"], found["y"], found["loss"]) == (None, "all", None)


# Memory ----------------------------------------------------------------------------------------


def test_what_is_alive_at_once() -> None:
    g = Emitter()
    x = g.input("x", (10,))
    with g.scope("n"):
        a = g.exp(x)
        b = g.reshape(a, (2, 5))
        c = g.exp(b)
        d = g.add(c, b)
        e = g.reduce_sum(d, [0])
    # x; x a; a c (b is a); a c d; d e.
    assert peak_bytes(g.ops, [x], [e]) == 4 * 30
    assert peak_bytes(g.ops, [x], [a, e]) == 4 * 30
    assert peak_bytes(g.ops, [x], [a, d, e]) == 4 * 30
    assert peak_bytes(g.ops, [x], [a, c, d, e]) == 4 * 35
    assert peak_bytes(g.ops, [], [e]) == 0


def test_what_a_backward_pass_keeps() -> None:
    g = Emitter()
    x, w = g.input("x", (10,)), g.input("w", (10,))
    with g.scope("n"):
        a = g.mul(x, w)
        b = g.exp(a)
        c = g.exp(g.reshape(b, (2, 5)))
        second = len(g.ops)
        g.mul(g.mul(c, g.reshape(b, (2, 5))), g.reshape(x, (2, 5)))
    # c, b, though under other shapes, and x, but neither a nor the weight.
    assert kept_bytes(g.ops[:second], g.ops[second:], [x]) == 4 * 30


# Summaries -------------------------------------------------------------------------------------

NET = f"""{DATA}
layer {{ name: "l" type: "Input" top: "l" input_param {{ shape {{ dim: 2 }} }} }}
{conv("x", "c", "kernel_size: 3 stride: 2")}
layer {{
  name: "ip" type: "InnerProduct" bottom: "c" top: "ip"
  param {{ lr_mult: 2 name: "w" }} param {{ lr_mult: 0 decay_mult: 0 }}
  inner_product_param {{ num_output: 3 }}
}}
{layer("SoftmaxWithLoss", "ip l", "loss", "loss_weight: 0.5")}
"""
GOLDEN = Path(__file__).parent / "cases" / "summary" / "small.txt"


def summary(text: str, phase: int = pb.TRAIN) -> Summary:
    return summarize(trace_forward(resolved(text, phase), Emitter()))


def test_the_costs_of_a_net() -> None:
    found = summary(NET)
    rows = {row.layer.name: row for row in found.rows}
    assert found.batch == 2
    assert rows["c"].macs == 2 * 4 * 15 * 11 * 4 * 9
    assert rows["c"].parameters == 4 * 4 * 9 + 4
    assert rows["ip"].parameters == 3 * 660 + 3
    assert [blob.role for blob in rows["ip"].weights] == ["trained", "frozen"]
    assert rows["c"].shapes == ((2, 4, 15, 11),)
    assert rows["c"].view == View((Extent(Fraction(3), Fraction(2)),) * 2)
    assert rows["loss"].part == "trained"
    (total,) = found.totals
    assert (total.name, total.layers, total.parameters) == ("trained", 3, 148 + 1983)
    assert found.memory is not None
    assert found.memory.weights == 4 * (148 + 1983)
    assert found.memory.gradients == 4 * (148 + 1980)
    # The data, and while it is read, what the convolution makes of it.
    assert found.memory.peak == 4 * (2 * 4 * 32 * 24 + 2 + 2 * 4 * 15 * 11)
    assert found.memory.kept is not None
    assert found.memory.kept >= 4 * (2 * 4 * 32 * 24 + 2 * 4 * 15 * 11)
    assert found.memory.step_peak is not None
    assert found.memory.step_peak >= found.memory.kept


def test_a_net_in_test_phase_has_no_training_step() -> None:
    memory = summary(NET, pb.TEST).memory
    assert memory is not None
    assert (memory.kept, memory.step_peak, memory.gradients) == (None, None, None)


def test_shared_weights_are_counted_once() -> None:
    params = 'param { name: "w" } inner_product_param { num_output: 4 bias_term: false }'
    text = f"""
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: [2, 4] }} }} }}
    {layer("InnerProduct", "x", "a", params)} {layer("InnerProduct", "a", "b", params)}"""
    found = summary(text)
    first, second = found.rows[1:]
    assert (first.parameters, second.parameters) == (16, 0)
    assert [blob.owner for blob in second.weights] == ["a"]
    assert cells(found)[2][8] == "(+16 shared)"
    assert cells(found)[2][2] == "(a)"


def test_teacher_and_student_are_told_apart(joined: Path) -> None:
    out = ok("summarize", joined / "joined.prototxt", *WEIGHTS).out
    assert "\nteacher (frozen): 1 layers, 51 parameters, 48 MACs" in out
    assert "\nstudent (trained): 6 layers, 163 parameters" in out
    assert "\nparameters: 163 trained, 51 frozen (856 B)\n" in out
    assert "teacher/ip   loaded, frozen" in out


def test_the_table_and_the_notes(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    out = ok("summarize", path).out
    kept = json.loads(ok("summarize", path, "--json").out)
    assert kept["layers"][2]["receptive_field"][0] == {"size": 3, "stride": 2, "start": 0}
    assert kept["layers"][3]["receptive_field"] == "all"
    assert kept["layers"][1]["receptive_field"] is None
    assert kept["layers"][2]["macs"] == 2 * 4 * 15 * 11 * 4 * 9
    assert kept["outputs"] == ["loss"]
    assert out == GOLDEN.read_text()


def test_phase_level_and_stage(joined: Path) -> None:
    path = joined / "joined.prototxt"
    assert "ts_loss" in ok("summarize", path).out
    out = ok("summarize", path, "--phase", "test").out
    assert "ts_loss" not in out
    assert "accuracy" in out
    assert "training step" not in out


MISSING = """layer { name: "d" type: "Data" top: "data" top: "label"
  data_param { source: "nowhere_lmdb" backend: LMDB batch_size: 4 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" param { lr_mult: 3 }
  inner_product_param { num_output: 2 } }"""


def test_without_the_data_the_prototxt_is_shown_and_the_fault(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(MISSING)
    ended = run("summarize", path)
    assert ended.code == 1
    assert ended.out.splitlines()[2].split() == [
        "ip",
        "InnerProduct",
        "(x3)",
        "data",
        "->",
        "ip",
        "2",
    ]
    assert "nowhere_lmdb" in ended.err
    ended = ok("summarize", path, "--input-shape", "data=1x2x2")
    assert "4x1x2x2" in ended.out
    as_json = json.loads(run("summarize", path, "--json").out)
    assert as_json["memory_bytes"] is None
    assert "shapes" not in as_json["layers"][0]


def test_a_crop_says_what_missing_data_need_not(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    crop = 'transform_param { crop_size: 7 mean_file: "nowhere.binaryproto" }'
    path.write_text(MISSING.replace('type: "Data"', f'type: "Data" {crop}', 1))
    assert "4x3x7x7" in ok("summarize", path).out


def test_several_tops_of_missing_data(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "h" type: "HDF5Data" top: "x" top: "y" '
        'hdf5_data_param { source: "none.txt" batch_size: 2 } }'
    )
    out = ok("summarize", path, "--input-shape", "x=3x4", "--input-shape", "y=5").out
    assert "2x3x4, 2x5" in out


def test_python_layers_need_leave(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    python = 'layer { name: "p" type: "Python" bottom: "x" top: "p" python_param { '
    path.write_text(f'{DATA}\n{python} module: "twice_of_summary" layer: "Twice" }} }}')
    (tmp_path / "twice_of_summary.py").write_text(
        "import kdnet\nclass Twice(kdnet.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(2, 8)\n"
    )
    ended = run("summarize", path)
    assert ended.code == 1
    assert "twice_of_summary.Twice" in ended.out
    assert "2x8" in ok("summarize", path, "--allow-python").out


def test_a_solver_is_no_net(joined: Path) -> None:
    ended = run("summarize", joined / "joined_solver.prototxt")
    assert (ended.code, "[not-a-net]" in ended.err) == (2, True)


def shown(text: str) -> str:
    return settings(resolved(text).layers[0])


@pytest.mark.parametrize(
    ("kind", "params", "text"),
    [
        ("Convolution", "kernel_size: 3 stride: 2 pad: 1 num_output: 8 group: 2", "3/2+1 8/2"),
        ("Convolution", "kernel_h: 3 kernel_w: 5 num_output: 8", "3x5 8"),
        ("Convolution", "kernel_size: [3, 3] pad: [1, 2] num_output: 8", "3+1x2 8"),
        ("Convolution", "kernel_size: 3 dilation: 2 num_output: 8", "3 d2 8"),
        ("Deconvolution", "kernel_size: 4 stride: 2 num_output: 1", "4/2 1"),
    ],
)
def test_settings_of_convolutions(kind: str, params: str, text: str) -> None:
    found = shown(f'layer {{ name: "a" type: "{kind}" convolution_param {{ {params} }} }}')
    assert found == text


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ("kernel_size: 3 stride: 2", "MAX 3/2"),
        ("pool: AVE global_pooling: true", "AVE global"),
        ("kernel_h: 2 kernel_w: 3 pad: 1", "MAX 2x3+1"),
        ("kernel_shape: [2, 3, 4]", "MAX 2x3x4"),
    ],
)
def test_settings_of_pooling(params: str, text: str) -> None:
    assert shown(f'layer {{ name: "a" type: "Pooling" pooling_param {{ {params} }} }}') == text


def test_a_python_layer_is_shown_by_what_it_names() -> None:
    text = 'layer { name: "p" type: "Python" python_param { module: "m" layer: "L" } }'
    assert cells(outline(resolved(text)))[0][1] == "m.L"


def test_numbers() -> None:
    assert [number(value) for value in (7, 1500, 2_000_000, 3 * 10**9)] == [
        *("7", "1.5 k", "2 M", "3 G")
    ]
    assert [size(value) for value in (7, 1536, 2**21, 2**30)] == [
        *("7 B", "1.5 KiB", "2 MiB", "1 GiB")
    ]


def test_long_cells_push_the_rest_aside() -> None:
    lines = [("a", "1", "z"), ("a long name", "2", "y"), ("b", "3", "x")]
    assert table_text(("name", "n", "end"), lines, right=("n",), widest=6) == (
        "name    n  end\na       1  z\na long name  2  y\nb       3  x"
    )
