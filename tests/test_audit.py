"""Loading by name: what is loaded, what is refused, and what the account says of the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from kdnet.errors import Diagnostic, Span, WeightsError
from kdnet.weights import LayerBlobs, Target, WeightFile, assign, audit_weights

SPAN = Span("kd.prototxt", 7, 1)


def blobs(*shapes: tuple[int, ...], start: float = 0, dtype: str = "f4") -> tuple[np.ndarray, ...]:
    return tuple(
        (np.arange(np.prod(shape, dtype=int)) + start).reshape(shape).astype(dtype)
        for shape in shapes
    )


def layer(name: str, *shapes: tuple[int, ...], start: float = 0) -> LayerBlobs:
    return LayerBlobs(name, "Convolution", blobs(*shapes, start=start))


def file(path: str, *layers: LayerBlobs) -> WeightFile:
    return WeightFile(path, "caffemodel", "net", layers)


def target(name: str, *shapes: tuple[int, ...], frozen: bool = False) -> Target:
    return Target(name, shapes, frozen, frozen, SPAN)


def faults(
    targets: Sequence[Target], files: Sequence[WeightFile], *, allow_unloaded: bool = False
) -> tuple[Diagnostic, ...]:
    with pytest.raises(WeightsError) as caught:
        assign(targets, files, allow_unloaded=allow_unloaded)
    return caught.value.diagnostics


def test_layers_load_by_name() -> None:
    targets = [target("a", (2, 3), (2,)), target("b", (4,))]
    values, audit = assign(targets, [file("f", layer("b", (4,)), layer("a", (2, 3), (2,)))])
    assert set(values) == {("a", 0), ("a", 1), ("b", 0)}
    np.testing.assert_array_equal(values["a", 0], np.arange(6).reshape(2, 3))
    assert {value.dtype for value in values.values()} == {np.dtype("f4")}
    assert [(row.layer, row.status, row.file) for row in audit.rows] == [
        ("a", "loaded", "f"),
        ("b", "loaded", "f"),
    ]
    assert audit.ignored == ()
    assert audit.warnings == ()


def test_later_files_win() -> None:
    files = [file("f", layer("a", (3,))), file("g", layer("a", (3,), start=10))]
    values, audit = assign([target("a", (3,))], files)
    assert values["a", 0].tolist() == [10, 11, 12]
    assert audit.rows[0].file == "g"


def test_the_first_of_a_name_counts_and_is_warned_of() -> None:
    found = file("f", layer("a"), layer("a", (2,)), layer("a", (2,), start=5))
    values, audit = assign([target("a", (2,))], [found])
    assert values["a", 0].tolist() == [0, 1]
    assert audit.warnings == ('"f" holds layer "a" 2 times; the first one counts',)


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [((1, 1, 1, 5), (5,)), ((1, 1, 4, 6), (4, 6)), ((1, 2, 3, 4), (2, 3, 4)), ((1, 1, 1, 1), ())],
)
def test_legacy_shapes_equal_shorter_ones(
    stored: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    values, _ = assign([target("a", wanted)], [file("f", layer("a", stored))])
    assert values["a", 0].shape == wanted
    assert values["a", 0].ravel().tolist() == list(range(int(np.prod(wanted))))


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ((5, 1, 1, 1), (5,)),
        ((1, 5), (5,)),
        ((5,), (1, 1, 1, 5)),
        ((1, 1, 6, 4), (4, 6)),
        ((24,), (4, 6)),
        ((1, 2, 3, 4), (1, 1, 2, 3, 4)),
    ],
)
def test_other_shapes_do_not_fit(stored: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    (found,) = faults([target("a", wanted)], [file("f", layer("a", stored))])
    assert found.code == "weights-shape-mismatch"
    assert str(stored) in found.message
    assert str(wanted) in found.message


def test_the_text_of_a_shape_mismatch() -> None:
    with pytest.raises(WeightsError) as caught:
        assign([target("fc8", (100, 40))], [file("t.caffemodel", layer("fc8", (10, 40)))])
    assert str(caught.value) == (
        'kd.prototxt:7:1: error: blob 0 of layer "fc8" has shape (100, 40), but "t.caffemodel" '
        "holds shape (10, 40) [weights-shape-mismatch]\n"
        "help: to learn this layer from scratch, rename it in the net\n"
        "help: to load another layer into it, rename that layer: "
        "kdnet weights rename t.caffemodel -o OUT --map OTHER=fc8"
    )


def test_blob_counts_must_agree() -> None:
    (found,) = faults([target("a", (2, 3), (2,))], [file("f", layer("a", (2, 3)))])
    assert found.code == "weights-blob-count"
    assert found.message == 'layer "a" takes 2 blobs, but "f" has 1 for it'
    assert found.span == SPAN


def test_a_mismatch_counts_even_where_a_later_file_fits() -> None:
    files = [file("f", layer("a", (3,))), file("g", layer("a", (4,)))]
    (found,) = faults([target("a", (4,))], files)
    assert '"f"' in found.message


def test_double_blobs_become_float_and_non_finite_ones_are_warned_of() -> None:
    double = LayerBlobs("a", "X", (np.array([0.1, 1e300, np.nan]),))
    values, audit = assign([target("a", (3,))], [file("f", double)])
    assert values["a", 0].dtype == np.float32
    assert values["a", 0][0] == np.float32(0.1)
    assert np.isinf(values["a", 0][1])
    assert audit.warnings == ('blob 0 of layer "a" in "f" has values that are not finite: 2',)


def test_all_faults_are_reported() -> None:
    targets = [target("a", (3,)), target("b", (3,), (3,)), target("t", (9,), frozen=True)]
    found = faults(targets, [file("f", layer("a", (4,)), layer("b", (3,)))])
    assert [fault.code for fault in found] == [
        "weights-shape-mismatch",
        "weights-blob-count",
        "unloaded-teacher",
    ]
    _, audit = audit_weights(targets, [file("f", layer("a", (4,)), layer("b", (3,)))])
    assert audit.faults == found
    assert [row.status for row in audit.rows] == ["mismatched", "mismatched", "filler"]
    assert audit.summary() == "0 of 3 layers loaded, 1 initialised by fillers, 2 mismatched"


def test_a_random_teacher_stops_the_run() -> None:
    targets = [
        target("conv_s_1", (8, 3, 5, 5), (8,)),
        target("conv_t_1", (32, 3, 5, 5), (32,), frozen=True),
        target("ip_t_1", (10, 64), (10,), frozen=True),
    ]
    with pytest.raises(WeightsError) as caught:
        assign(targets, [])
    assert str(caught.value) == (
        'kd.prototxt:7:1: error: frozen layer "conv_t_1" was filled by no file: its weights '
        "would stay random [unloaded-teacher]\n"
        "help: name the file that has the teacher's weights: --weights FILE\n"
        "help: to train against random weights on purpose, pass --allow-unloaded\n"
        'kd.prototxt:7:1: error: frozen layer "ip_t_1" was filled by no file: its weights '
        "would stay random [unloaded-teacher]"
    )


def test_a_layer_of_the_same_shapes_under_another_name_is_offered() -> None:
    targets = [target("conv_t_1", (32, 3, 5, 5), (32,), frozen=True), target("ip", (4,))]
    found = file("cifar 10.bin", layer("conv1", (32, 3, 5, 5), (1, 1, 1, 32)), layer("ip", (4,)))
    (fault,) = faults(targets, [found])
    assert [note.message for note in fault.notes] == [
        '"cifar 10.bin" has layer "conv1" of the same shapes (32, 3, 5, 5), (1, 1, 1, 32)'
    ]
    assert fault.help == (
        "if it is that one: kdnet weights rename 'cifar 10.bin' -o OUT --map conv1=conv_t_1",
        "to train against random weights on purpose, pass --allow-unloaded",
    )


def test_of_several_fitting_layers_the_nearest_name_is_offered() -> None:
    found = file("f", layer("conv1_1", (2,)), layer("conv2_1", (2,)), layer("pool", (2,)))
    (fault,) = faults([target("t/conv2_1", (2,), frozen=True)], [found])
    assert 'layer "conv2_1"' in fault.notes[0].message
    assert "(3 layers fit)" in fault.notes[0].message


def test_a_layer_that_the_net_uses_already_is_not_offered() -> None:
    targets = [target("t", (2,), frozen=True), target("s", (2,))]
    (fault,) = faults(targets, [file("f", layer("s", (2,)))])
    assert fault.notes == ()


def test_a_near_name_of_other_shapes_is_told() -> None:
    (fault,) = faults([target("conv1_t", (2,), frozen=True)], [file("f", layer("conv1", (3,)))])
    assert [note.message for note in fault.notes] == ['"f" has layer "conv1", of other shapes']


def test_unloaded_teachers_may_be_allowed_and_are_warned_of() -> None:
    values, audit = assign([target("t", (2,), frozen=True)], [], allow_unloaded=True)
    assert values == {}
    assert audit.warnings == ('frozen layer "t" keeps random filler values (--allow-unloaded)',)


def test_many_allowed_layers_are_one_warning() -> None:
    targets = [target(f"t{index}", (2,), frozen=True) for index in range(4)]
    _, audit = assign(targets, [], allow_unloaded=True)
    assert audit.warnings == (
        '4 frozen layers, "t0" to "t3", keep random filler values (--allow-unloaded)',
    )
    assert len(assign(targets[:3], [], allow_unloaded=True)[1].warnings) == 3


def test_a_frozen_layer_with_fixed_fillers_needs_no_file() -> None:
    up = Target("up", ((1, 1, 4, 4),), frozen=True, needs_file=False, span=None)
    _, audit = assign([up], [])
    assert audit.rows[0].status == "filler"
    assert audit.warnings == ()


def test_a_file_in_vain_is_warned_of() -> None:
    files = [file("f", layer("x", (2,))), file("g", layer("relu"))]
    _, audit = assign([target("a", (2,))], files)
    assert audit.warnings == (
        'nothing was loaded from "f": none of its layers is in the net',
        'nothing was loaded from "g": it holds no blobs',
    )
    assert audit.ignored == (("f", ("x",)),)


def test_the_account_as_text() -> None:
    targets = [
        target("teacher/conv1", (2,), frozen=True),
        target("conv1", (2,), (2,)),
        Target("up", ((3,),), frozen=True, needs_file=False, span=None),
    ]
    found = file("t.bin", layer("teacher/conv1", (2,)), layer("prob", (1,)), layer("aux", (1,)))
    _, audit = assign(targets, [found, file("empty.bin")])
    assert audit.text() == (
        "layer          status          blobs  file\n"
        "teacher/conv1  loaded, frozen      1  t.bin\n"
        "conv1          filler              2  -\n"
        "up             filler, frozen      1  -\n"
        "1 of 3 layers loaded, 2 initialised by fillers\n"
        "ignored in t.bin: prob, aux\n"
        'warning: nothing was loaded from "empty.bin": it holds no blobs'
    )
