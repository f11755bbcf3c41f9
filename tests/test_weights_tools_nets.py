"""Weight files beside nets: audits, matching, stripping, and two teachers of one kind."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joining import DATA, LOSS, fc
from small_nets import CLASSES, PIXELS, ok, run, teacher_blobs

import weights_tools
from kdnet.errors import WeightsError
from kdnet.weights import LayerBlobs, Target, read_weights, write_caffemodel, write_weights
from weights_tools import matching
from weights_tools.matching import Name, match_layers
from weights_tools.parameters import LayerInfo


def info(name: str, *shapes: tuple[int, ...]) -> LayerInfo:
    return LayerInfo(name, "", shapes, ("float32",) * len(shapes))


def target(name: str, *shapes: tuple[int, ...], needs_file: bool = False) -> Target:
    return Target(name, shapes, needs_file, needs_file, None)


def matched(layers: list[LayerInfo], targets: list[Target]) -> dict[str, str]:
    return {m.layer.name: m.target.layer for m in match_layers(layers, targets).found}


# --- matching

VGG = [
    f"conv{block}_{n}"
    for block, count in enumerate((2, 2, 3, 3, 3), 1)
    for n in range(1, count + 1)
]
WIDTHS = dict(zip(range(1, 6), (64, 128, 256, 512, 512), strict=True))


def conv(name: str) -> tuple[tuple[int, ...], ...]:
    width = WIDTHS[int(name[4])]
    return ((width, width, 3, 3), (width,))


def test_vgg_under_other_names_is_matched_in_order() -> None:
    layers = [info(name, *conv(name)) for name in VGG]
    renamed = {name: f"features.{3 * index}" for index, name in enumerate(VGG)}
    targets = [target(renamed[name], *conv(name)) for name in VGG]
    assert matched(layers, targets) == renamed
    student = {name: name.replace("conv", "conv_st_") for name in VGG}
    targets = [target(student[name], *conv(name)) for name in VGG]
    found = match_layers(layers, targets)
    assert {m.layer.name: m.target.layer for m in found.found} == student
    assert (found.how, found.unmatched) == ("in order", ())


def test_a_layer_that_the_file_lacks_is_passed_over_by_name() -> None:
    layers = [info(name, (8, 8), (8,)) for name in ("ip1", "ip3", "ip4")]
    targets = [target(f"student/fc{n}", (8, 8), (8,)) for n in (1, 2, 3, 4)]
    assert matched(layers, targets) == {
        "ip1": "student/fc1",
        "ip3": "student/fc3",
        "ip4": "student/fc4",
    }


def test_files_that_are_sorted_by_name_are_matched_by_name() -> None:
    names = [f"conv{n}" for n in range(1, 13)]
    layers = [info(name, (8, 8, 3, 3)) for name in sorted(names)]
    targets = [target(f"t/{name}", (8, 8, 3, 3)) for name in names]
    found = match_layers(layers, targets)
    assert {m.layer.name: m.target.layer for m in found.found} == {n: f"t/{n}" for n in names}
    assert found.how == "by name"


def test_only_layers_of_the_same_shapes_are_matched() -> None:
    layers = [info("a", (2, 3)), info("b", (1, 1, 1, 4)), info("data"), info("c", (4,), (4,))]
    targets = [target("a", (3, 2)), target("x", (4,)), target("c", (4,))]
    assert matched(layers, targets) == {"b": "x"}
    with pytest.raises(WeightsError, match="no-match"):
        match_layers(layers[:1], targets)


def test_frozen_layers_come_first() -> None:
    layers = [info("fc", (2, 2))]
    targets = [target("student/fc", (2, 2)), target("teacher/fc", (2, 2), needs_file=True)]
    assert matched(layers, targets) == {"fc": "teacher/fc"}


def test_too_many_layers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MOST_PAIRS", 3)
    layers, targets = [info(n, (1,)) for n in "ab"], [target(n, (1,)) for n in "cd"]
    with pytest.raises(WeightsError, match="too-many-layers"):
        match_layers(layers, targets)
    assert matching.near_misses(targets, layers) == []


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12))
def test_matches_are_one_to_one_and_as_many_as_can_be_in_order(
    seed: int, many: int, most: int
) -> None:
    rng = random.Random(seed)  # noqa: S311  # the seed makes the test repeatable
    layers = [info(f"a{i}", (rng.randrange(1, 4),)) for i in range(many)]
    targets = [target(f"b{i}", (rng.randrange(1, 4),)) for i in range(most)]
    sizes = [shape for (shape,) in (layer.shapes[0] for layer in layers)]
    wanted = [shape for (shape,) in (one.shapes[0] for one in targets)]
    longest = [[0] * (most + 1) for _ in range(many + 1)]
    for i in range(many):
        for j in range(most):
            longest[i + 1][j + 1] = (
                longest[i][j] + 1
                if sizes[i] == wanted[j]
                else max(longest[i][j + 1], longest[i + 1][j])
            )
    if not longest[many][most]:
        return
    found = matched(layers, targets)
    assert len(found) >= longest[many][most]
    assert len(set(found.values())) == len(found)
    shapes = {one.layer: one.shapes for one in targets}
    assert all(
        shapes[found[layer.name]] == layer.shapes for layer in layers if layer.name in found
    )


def test_likeness_is_between_0_and_1_and_symmetric() -> None:
    names = ["conv1_1", "conv_st_1_1", "Conv1_1", "fc8", "", "1", "ü", "conv1_2"]
    for one in names:
        for other in names:
            likeness = Name(one).likeness(Name(other))
            assert 0 <= likeness <= 1
            assert likeness == Name(other).likeness(Name(one))
    assert Name("conv1_1").likeness(Name("CONV1_1")) == 1
    likest = max(
        names[1:], key=lambda other: Name("conv2_1").likeness(Name(other.replace("1_", "2_")))
    )
    assert likest == "Conv1_1"


# --- rename --auto and --for


@pytest.mark.usefixtures("joined")
def test_auto_shows_what_it_matched_and_asks() -> None:
    weights_tools.rename("teacher.caffemodel", "ipx.caffemodel", {"teacher/ip": "ipx"})
    arguments = ["weights", "rename", "ipx.caffemodel", "-o", "new.caffemodel"]
    shown = (
        "layer  to          shapes  names alike\n"
        "ipx    teacher/ip  3x16 3         63 %\n"
        'matched 1 layers of "ipx.caffemodel" with those of "joined.prototxt", in order\n'
        "not matched in the net: student/ip1, student/ip2\n"
    )
    ended = run(*arguments, "--auto", "joined.prototxt")
    assert (ended.code, ended.out) == (2, shown)
    assert "[not-confirmed]" in ended.err
    assert not Path("new.caffemodel").exists()
    ended = ok(*arguments, "--auto", "joined.prototxt", "--yes")
    assert ended.out == f"{shown}mapped ipx to teacher/ip\n"
    assert Path("new.caffemodel").read_bytes() == Path("teacher.caffemodel").read_bytes()


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 2), ("", 2)])
def test_on_a_terminal_a_person_answers(
    answer: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    asked = Terminal()
    monkeypatch.setattr("weights_tools.fitting.sys.stderr", asked, raising=False)
    from kdnet.cli import main

    arguments = ["rename", "teacher.caffemodel", "-o", "new", "--auto", "joined.prototxt"]
    assert main(["weights", *arguments]) == code
    assert "rename so? [y/N]" in asked.getvalue()
    assert Path("new").exists() == (code == 0)


@pytest.mark.usefixtures("joined")
def test_auto_leaves_alone_what_pairs_settle() -> None:
    weight, bias = teacher_blobs()
    twins = [LayerBlobs(name, "InnerProduct", (weight, bias)) for name in ("a", "b")]
    write_caffemodel("twins.caffemodel", twins)
    arguments = ["weights", "rename", "twins.caffemodel", "-o", "new.caffemodel", "--yes"]
    ended = ok(*arguments, "--auto", "joined.prototxt", "--map", "a=spare")
    assert "mapped a to spare\nmapped b to teacher/ip\n" in ended.out
    ended = run(*arguments, "--auto", "joined.prototxt", "--map", "a=teacher/ip")
    assert "[no-match]" in ended.err


@pytest.mark.usefixtures("joined")
def test_a_change_of_shape_is_an_error() -> None:
    arguments = ["weights", "rename", "teacher.caffemodel", "-o", "new.caffemodel"]
    pair = ["--map", "teacher/ip=student/ip2", "--for", "joined.prototxt"]
    ended = run(*arguments, *pair)
    assert ended.code == 1
    assert (
        'layer "teacher/ip" of shapes (3, 16), (3,) would be "student/ip2", which takes '
        '(3, 8), (3,) in "joined.prototxt" [shape-change]'
    ) in ended.err
    assert not Path("new.caffemodel").exists()
    assert ok(*arguments, *pair, "--allow-shape-change").out.startswith("mapped teacher/ip")
    ok(*arguments, "--map", "teacher/ip=elsewhere", "--for", "joined.prototxt")


# --- audit


@pytest.mark.usefixtures("joined")
def test_an_audit_says_what_loads() -> None:
    ended = ok("weights", "audit", "teacher.caffemodel", "joined.prototxt")
    assert ended.out.splitlines()[1:4] == [
        "teacher/ip   loaded, frozen      2  teacher.caffemodel",
        "student/ip1  filler              2  -",
        "student/ip2  filler              2  -",
    ]


@pytest.mark.usefixtures("joined")
def test_an_audit_names_near_misses_and_what_training_would_stop_at() -> None:
    shapes = {"ip": (CLASSES, PIXELS), "student_ip2": (CLASSES, 9), "student/ip1": (8, PIXELS)}
    layers = [
        LayerBlobs(name, "", (np.ones(shape, "f4"), np.ones(shape[0], "f4")))
        for name, shape in shapes.items()
    ]
    write_weights("other.npz", layers)
    ended = run("weights", "audit", "other.npz", "joined.prototxt")
    assert ended.code == 1
    assert ended.out.splitlines()[-3:] == [
        "near misses:",
        '  teacher/ip: "other.npz" has "ip" of the same shapes',
        '  student/ip2: "other.npz" has "student_ip2" of other shapes, (3, 9), (3,)',
    ]
    assert "[unloaded-teacher]" in ended.err
    allowed = ok("weights", "audit", "other.npz", "joined.prototxt", "--allow-unloaded")
    assert 'frozen layer "teacher/ip" keeps random filler values' in allowed.out


def test_an_audit_needs_no_data_where_its_shape_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = (
        'layer { name: "d" type: "Data" top: "data" top: "label" '
        'data_param { source: "elsewhere" batch_size: 2 } }'
    )
    Path("net.prototxt").write_text(data + fc("fc") + LOSS % "fc")
    layer = LayerBlobs("fc", "", (np.ones((3, 12), "f4"), np.ones(3, "f4")))
    write_weights("w.npz", [layer])
    assert run("weights", "audit", "w.npz", "net.prototxt").code == 1
    ended = ok("weights", "audit", "w.npz", "net.prototxt", "--input-shape", "data=3x2x2")
    assert "1 of 1 layers loaded" in ended.out


@pytest.mark.usefixtures("joined")
def test_a_solver_is_no_net() -> None:
    ended = run("weights", "audit", "teacher.caffemodel", "joined_solver.prototxt")
    assert ended.code == 2
    assert "[not-a-net]" in ended.err


# --- strip-teacher


@pytest.mark.usefixtures("joined")
def test_the_teacher_is_stripped() -> None:
    ok("train", "joined.prototxt", "--weights", "teacher.caffemodel", "--max-iter", 0, "--full")
    ended = ok(
        "weights",
        "strip-teacher",
        "run_iter_0.caffemodel",
        "joined.prototxt",
        "-o",
        "s.caffemodel",
    )
    assert ended.out == "kept student/ip1\nkept student/ip2\ndropped teacher/ip\n"
    whole, student = map(weights_tools.open, ("run_iter_0.caffemodel", "s.caffemodel"))
    assert [layer.name for layer in student.layers] == ["student/ip1", "student/ip2"]
    assert all(student[name].tobytes() == whole[name].tobytes() for name in student)
    ended = ok(
        "weights", "strip-teacher", "run_iter_0.caffemodel", "joined.prototxt",
        "-o", "t.caffemodel", "--head", "teacher/ip",
    )  # fmt: skip
    assert ended.out.startswith("kept teacher/ip\ndropped student/ip1\n")


@pytest.mark.usefixtures("joined")
def test_a_file_without_the_student_is_refused() -> None:
    arguments = ["weights", "strip-teacher", "teacher.caffemodel", "joined.prototxt", "-o", "s"]
    ended = run(*arguments)
    assert ended.code == 1
    assert "[no-student-layers]" in ended.err
    assert not Path("s").exists()


# --- two teachers with the same names


STUDENT = DATA + fc("ip") + LOSS % "ip"


@pytest.fixture
def teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, ...]]:
    """Two trained teachers whose layers have the same names, and the blobs of each."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    found = {}
    for name in ("one", "two"):
        Path(f"{name}.prototxt").write_text(DATA + fc("fc") + LOSS % "fc")
        found[name] = tuple(
            rng.standard_normal(shape).astype(np.float32) for shape in ((3, 192), (3,))
        )
        write_caffemodel(f"{name}.caffemodel", [LayerBlobs("fc", "InnerProduct", found[name])])
    Path("student.prototxt").write_text(STUDENT)
    return found


def loaded(net: str, *files: str) -> dict[str, tuple[np.ndarray, ...]]:
    """What training starts from, read back from a snapshot that holds every layer."""
    ok("train", net, "--weights", ",".join(files), "--max-iter", 0, "--full", "--device", "cpu")
    (snapshot,) = Path().glob("*_iter_0.caffemodel")
    return {layer.name: layer.blobs for layer in read_weights(snapshot).layers}


def join() -> str:
    """Join two teachers and a student; what was printed."""
    return ok(
        "join", "--teacher", "one.prototxt", "--teacher-weights", "one.caffemodel",
        "--teacher-name", "one", "--teacher-rename", "one/{name}",
        "--teacher", "two.prototxt", "--teacher-weights", "two.caffemodel",
        "--teacher-name", "two", "--teacher-rename", "two/{name}",
        "--student", "student.prototxt", "-o", "joined.prototxt",
    ).out  # fmt: skip


def same(found: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...]) -> bool:
    return [blob.tobytes() for blob in found] == [blob.tobytes() for blob in wanted]


def test_two_teachers_of_one_kind_are_joined(
    teachers: dict[str, tuple[np.ndarray, ...]],
) -> None:
    join()
    layers = loaded("joined.prototxt", "joined.one.caffemodel", "joined.two.caffemodel")
    assert same(layers["one/fc"], teachers["one"])
    assert same(layers["two/fc"], teachers["two"])


def test_two_teachers_of_one_kind_are_renamed_and_merged(
    teachers: dict[str, tuple[np.ndarray, ...]],
) -> None:
    join()
    assert (
        "[merge-conflict]"
        in run("weights", "merge", "one.caffemodel", "two.caffemodel", "-o", "both.caffemodel").err
    )
    ended = ok(
        "weights", "merge", "one.caffemodel", "two.caffemodel", "-o", "both.caffemodel",
        "--prefix", "one=one/", "--prefix", "two=two/",
    )  # fmt: skip
    assert ended.out == "mapped fc to one/fc\nmapped fc to two/fc\n"
    layers = loaded("joined.prototxt", "both.caffemodel")
    assert same(layers["one/fc"], teachers["one"])
    assert same(layers["two/fc"], teachers["two"])
    # The numbers in the file are the teachers' own bytes.
    content = Path("both.caffemodel").read_bytes()
    assert all(blob.tobytes() in content for blobs in teachers.values() for blob in blobs)
