"""How each net of a join comes to see the shared records."""

from __future__ import annotations

from pathlib import Path

import pytest
from joining import IMAGES, LOSS, deploy, fc, layers, pair

from kdnet.net.join.transforms import Affine, affine_between
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text


def transform(text: str) -> pb.TransformationParameter:
    return read_text(text, "t", pb.TransformationParameter).message


@pytest.mark.parametrize(
    ("shared", "wanted", "step"),
    [
        ("", "", Affine()),
        ("scale: 2 mean_value: 3", "scale: 2 mean_value: 3 mean_value: 3", Affine()),
        ("", "scale: 0.5 mean_value: 8", Affine(0.5, -4)),
        ("scale: 0.25 mean_value: 4", "", Affine(4, 4)),
        ("mean_value: [1, 2, 3]", "scale: 2 mean_value: [2, 3, 4]", Affine(2, -2)),
        ("mean_value: [1, 2, 3]", "mean_value: [1, 2, 4]", None),
        ("mean_value: [1, 2, 3]", "mean_value: [1, 2]", None),
        ("crop_size: 4", "crop_size: 3", None),
        ('mean_file: "a"', 'mean_file: "a" scale: 2', Affine(2, 0)),
        ('mean_file: "a"', 'mean_file: "b"', None),
        ("force_gray: true", "", None),
        ("scale: 0", "scale: 1", None),
    ],
)
def test_one_view_follows_from_another_where_one_number_does_it(
    shared: str, wanted: str, step: Affine | None
) -> None:
    assert affine_between(transform(shared), transform(wanted)) == step


def images(train: str, test: str | None = None) -> str:
    """A net over images, with a transform of its own for each phase if there are two."""
    if test is None:
        return IMAGES % train + fc("fc") + LOSS % "fc"
    shown = zip(("TRAIN", "TEST"), (train, test), strict=True)
    data = [
        (IMAGES % text).replace("data_param", f"include {{ phase: {phase} }} data_param")
        for phase, text in shown
    ]
    return "".join(data) + fc("fc") + LOSS % "fc"


def views(folder: Path, teacher: str, student: str, **more: str) -> list[pb.LayerParameter]:
    """The layers that were added between the shared data and the teacher."""
    net = pair(folder, teacher, student, **more)
    types = ("Data", "Power")
    return [one.message for one in net.layers if one.message.type in types][1:]


def test_nets_that_see_the_same_share_it(tmp_path: Path) -> None:
    assert views(tmp_path, images("scale: 2 mirror: true"), images("scale: 2")) == []


def test_each_phase_may_have_a_step_of_its_own(tmp_path: Path) -> None:
    found = views(tmp_path, images("scale: 2", "scale: 4"), images("", ""))
    powers = [one for one in found if one.type == "Power"]
    assert [(one.power_param.scale, one.include[0].phase) for one in powers] == [
        (2, pb.TRAIN),
        (4, pb.TEST),
    ]
    assert {one.top[0] for one in powers} == {"teacher/data"}


def test_a_mean_for_each_channel_takes_a_layer_that_reads_again(tmp_path: Path) -> None:
    means = "mean_value: 1 mean_value: 2 mean_value: 3"
    (second,) = views(tmp_path, images(means), images("mirror: true"))
    assert (second.name, list(second.top)) == ("teacher/data", ["teacher/data"])
    assert second.transform_param == transform(f'{means} mirror: true draws_of: "data"')


def test_one_shared_layer_is_read_again_once_for_each_phase_that_differs(tmp_path: Path) -> None:
    teacher = images("crop_size: 4 scale: 2", "crop_size: 4")
    found = views(tmp_path, teacher, images(""))
    assert [one.include[0].phase for one in found] == [pb.TRAIN, pb.TEST]
    assert [one.transform_param.scale for one in found] == [2, 1]


@pytest.mark.parametrize(("size", "crops"), [(8, []), (6, [6])])
def test_a_deploy_net_is_cropped_to_its_input(size: int, crops: list[int], tmp_path: Path) -> None:
    found = views(tmp_path, deploy((1, 3, size, size)), images("scale: 2"))
    assert [one.transform_param.crop_size for one in found] == crops
    assert all(one.transform_param.scale == 2 for one in found)


def test_a_view_that_is_stated_wins(tmp_path: Path) -> None:
    stated = "transform_param { scale: 8 }"
    (power,) = views(tmp_path, images("scale: 2"), images(""), t=stated)
    assert power.power_param.scale == 8


def test_labels_are_never_viewed(tmp_path: Path) -> None:
    net = pair(tmp_path, images("scale: 2"), images(""), t="keep_losses: true")
    assert layers(net)["teacher/loss"].bottom == ["teacher/fc", "label"]


def test_a_view_keeps_the_order_and_the_flips_of_the_shared_layer(tmp_path: Path) -> None:
    student = images('crop_size: 6 draws_of: "elsewhere"')
    (second,) = views(tmp_path, images("crop_size: 5"), student)
    assert second.transform_param.draws_of == "elsewhere"
