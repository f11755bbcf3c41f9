"""kdnet classify: images in files against pycaffe's Classifier, and what is printed of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_nets import ok, run

import kdnet
from kdnet.api import classifying
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import encode_blob

GOLDEN = np.load(Path(__file__).parent / "golden" / "caffe" / "api.npz")
NET = ("--model-def", "net.prototxt", "--pretrained-model", "net.caffemodel")
CAFFES = ("--model_def", "net.prototxt", "--pretrained_model", "net.caffemodel")
WAYS = ("--images_dim", "9,8", "--raw_scale", "2", "--mean_value", "0.4,0.5,0.6")


@pytest.fixture(autouse=True)
def _a_net_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(str(GOLDEN["classes/net"]))
    net = kdnet.Net("net.prototxt")
    for name, params in net.params.items():
        for index, param in enumerate(params):
            param.data[...] = GOLDEN[f"classes/start/{name}/{index}"]
    net.save("net.caffemodel")
    np.save("one.npy", GOLDEN["classes/0"])
    pixels = np.random.default_rng(1).integers(0, 256, (3, 9, 8, 3), dtype=np.uint8)
    np.save("bytes.npy", pixels)
    for name, image in zip(("b.png", "a.png", "c.PNG"), pixels, strict=True):
        Image.fromarray(image).save(name, "PNG")


@pytest.mark.parametrize(("way", "flags"), [("ten", ()), ("middle", ("--center_only",))])
def test_scores_are_pycaffes(way: str, flags: tuple[str, ...]) -> None:
    ended = ok("classify", "one.npy", "out", *CAFFES, *WAYS, *flags, "--channel_swap", "2,1,0")
    found = np.load("out.npy")
    assert found == pytest.approx(GOLDEN[f"classes/{way}"][:1], rel=1e-4)
    assert ended.out.splitlines()[0] == "one.npy[0]:"
    assert ended.out.splitlines()[-1] == f"out.npy: 1 rows of {found.size} scores"


def test_files_bytes_and_a_folder_say_the_same() -> None:
    ok("classify", "bytes.npy", "bytes_out.npy", *NET, *WAYS)
    whole = np.load("bytes_out.npy")
    assert len(whole) == 3
    ended = ok("classify", ".", "folder.npy", *NET, *WAYS, "--ext", "png")
    names = [line for line in ended.out.splitlines() if line.endswith("g:") or "PNG:" in line]
    assert names == ["a.png:", "b.png:", "c.PNG:"]
    np.testing.assert_allclose(np.load("folder.npy"), whole[[1, 0, 2]], rtol=1e-4)
    ok("classify", "c.PNG", "c.npy", *NET, *WAYS)
    np.testing.assert_allclose(np.load("c.npy"), whole[2:], rtol=1e-4)


def test_many_images_are_scored_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ok("classify", "bytes.npy", "all.npy", *NET, *WAYS)
    monkeypatch.setattr(classifying, "_IMAGES_AT_ONCE", 2)
    ok("classify", "bytes.npy", "few.npy", *NET, *WAYS)
    np.testing.assert_allclose(np.load("few.npy"), np.load("all.npy"), rtol=1e-5)


def test_a_mean_image_of_either_form() -> None:
    mean = np.arange(108, dtype=np.float32).reshape(3, 6, 6) / 108
    np.save("mean.npy", mean)
    Path("mean.binaryproto").write_bytes(encode_blob(mean[None]))
    np.save("four.npy", mean[None])
    found = []
    for name in ("mean.npy", "mean.binaryproto", "four.npy", ""):
        ok("classify", "one.npy", "out.npy", *NET, "--mean-file", name, "--raw-scale", "1")
        found.append(np.load("out.npy"))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[0] - found[3]).max() > 1e-3


def test_the_last_factor_and_the_order_of_channels_count() -> None:
    found = {}
    for flags in ("", "--input-scale 0.1", "--channel-swap 0,1,2", "--channel-swap="):
        ok("classify", "one.npy", "out.npy", *NET, "--raw-scale", "1", *flags.split())
        found[flags] = np.load("out.npy")
    assert np.abs(found[""] - found["--input-scale 0.1"]).max() > 1e-4
    assert np.abs(found[""] - found["--channel-swap="]).max() > 1e-4
    np.testing.assert_array_equal(found["--channel-swap 0,1,2"], found["--channel-swap="])


def test_the_largest_scores_are_printed_with_their_labels() -> None:
    ok("classify", "one.npy", "out.npy", *NET, *WAYS)
    (scores,) = np.load("out.npy")
    order = np.argsort(-scores)
    labels = [f"n{index:08d} thing, {index}" for index in range(len(scores) - 1)]
    Path("synset.txt").write_text("\n".join(labels))
    ended = ok(
        *("classify", "one.npy", "out.npy", *NET, *WAYS, "--labels", "synset.txt", "--top", 2)
    )
    labels.append(f"class {len(scores) - 1}")
    wanted = [f'  {scores[index]:.4f} - "{labels[index]}"' for index in order[:2]]
    assert ended.out.splitlines()[1:-1] == wanted


def test_a_grey_net_takes_grey_images() -> None:
    Path("grey.prototxt").write_text(
        'layer { name: "data" type: "Input" top: "data" '
        "input_param { shape { dim: [1, 1, 4, 4] } } }\n"
        'layer { name: "sum" type: "Reduction" bottom: "data" top: "sum" '
        "reduction_param { axis: 1 } }"
    )
    Image.fromarray(np.full((4, 4, 3), 51, np.uint8)).save("grey.png")
    flags = ("--model-def", "grey.prototxt", "--pretrained-model", "net.caffemodel")
    ok("classify", "grey.png", "out.npy", *flags, "--images-dim", "4,4", "--center-only")
    assert np.load("out.npy") == pytest.approx([16 * 51])


# Faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "flags", "code"),
    [
        ("nothing.png", (), "missing-image"),
        ("net.prototxt", (), "corrupt-image"),
        (".", (), "no-images"),
        ("no.npy", (), "bad-images"),
        ("text.npy", (), "bad-images"),
        ("objects.npy", (), "bad-images"),
        ("flat.npy", (), "bad-images"),
        ("one.npy", ("--images-dim", "3,3"), "bad-preprocessing"),
        ("one.npy", ("--mean-value", "1,2"), "bad-preprocessing"),
        ("one.npy", ("--channel-swap", "0,0,1"), "bad-preprocessing"),
        ("one.npy", ("--mean-file", "no.npy"), "bad-mean-file"),
        ("one.npy", ("--mean-file", "net.prototxt"), "bad-mean-file"),
        ("one.npy", ("--mean-file", "objects.npy"), "bad-mean-file"),
        ("one.npy", ("--labels", "no.txt"), "unreadable-classes"),
        ("one.npy", ("--images-dim", "0,3"), "usage"),
        ("one.npy", ("--model-def", "none.prototxt"), "file-not-found"),
        ("one.npy", ("--model-def", "flat.prototxt"), "no-image-input"),
        ("one.npy", ("--pretrained-model", "empty.caffemodel"), "unloaded-layers"),
    ],
)
def test_faults(source: str, flags: tuple[str, ...], code: str) -> None:
    Path("text.npy").write_text("no array")
    np.save("flat.npy", np.zeros((2, 3)))
    np.save("objects.npy", np.array([None, {}], object))
    Path("flat.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3] } } }'
    )
    other = pb.NetParameter(layer=[{"name": "elsewhere", "type": "ReLU"}])
    Path("empty.caffemodel").write_bytes(other.SerializeToString())
    ended = run("classify", source, "out.npy", *NET, *flags)
    assert ended.code in (1, 2)
    assert f"[{code}]" in ended.err, ended.err
    assert not Path("out.npy").exists()


def test_layers_that_no_file_fills_run_when_asked_to() -> None:
    other = pb.NetParameter(layer=[{"name": "elsewhere", "type": "ReLU"}])
    Path("empty.caffemodel").write_bytes(other.SerializeToString())
    flags = ("--pretrained-model", "empty.caffemodel", "--allow-unloaded")
    ended = ok("classify", "one.npy", "out.npy", *NET, *flags)
    assert "0 of " in ended.err
    ended = ok("classify", "one.npy", "out.npy", *CAFFES[:3], "empty.caffemodel,net.caffemodel")
    assert "0 of " not in ended.err
