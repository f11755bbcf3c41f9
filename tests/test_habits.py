"""Slips from other languages and from older formats: what a user is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdnet.errors import SchemaError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net, read_text


def first_fault(text: str) -> tuple[str, tuple[str, ...]]:
    with pytest.raises(SchemaError) as caught:
        read_text(text, "a.prototxt", pb.NetParameter)
    fault = caught.value.diagnostics[0]
    return fault.code, fault.help


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ('name: "a" // b', "syntax-error", "a comment begins with #"),
        ('name: "a" /* b */', "syntax-error", "a comment begins with #"),
        ("name: “a”", "syntax-error", 'quotes are straight: "..."'),
        ('name: "a"\n<<<<<<< HEAD\n', "syntax-error", "a merge left its marks here"),
        ("input_dim: 1, 2", "syntax-error", "several values are written [1, 2]"),
        ("layer { param { lr_mult: 0,5 } }", "syntax-error", "it takes one value; a fraction"),
        ("layer { param { lr_mult: [1, 2] } }", "syntax-error", "it takes one value"),
        ("layer { type: CONVOLUTION }", "bad-value", 'write "Convolution": such words belong to'),
        ("layer { type: Convolution }", "bad-value", 'write it in quotes: "Convolution"'),
        ('layers { type: "Input" }', "bad-value", "or write layer { for layers {"),
        ("layers { type: PRELU }", "unknown-enum-value", "layers { } is the old format"),
        ("layer { relu_param { engine: MKL2017 } }", "unknown-enum-value", "engine has no effect"),
        ("layer { blobs_lr: 1 }", "unknown-field", "write param { lr_mult: ... } for each blob"),
        ("layer { weight_decay: 1 }", "unknown-field", "write param { decay_mult: ... } for each"),
        ("layer { blob_share_mode: STRICT }", "unknown-field", "write param { share_mode: ... }"),
        ("layers { prelu_param { } }", "unknown-field", '"prelu_param" belongs to today\'s layer'),
    ],
)
def test_a_slip_is_told_with_what_was_meant(text: str, code: str, hint: str) -> None:
    found, hints = first_fault(text)
    assert found == code
    assert hints[-1].startswith(hint)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a pointer of Git LFS"),
        ("\n<!DOCTYPE html>\n<html><body></body></html>", "a web page (HTML)"),
        ("<html>", "a web page (HTML)"),
    ],
)
def test_another_text_is_told_for_what_it_is(tmp_path: Path, content: str, kind: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(content)
    with pytest.raises(SchemaError) as caught:
        read_net(path)
    (fault,) = caught.value.diagnostics
    assert fault.code == "not-a-text-file"
    assert fault.message.endswith(f"this looks like {kind}")


GBK = "网络 # 'x".encode("gbk")


@pytest.mark.parametrize(
    "data",
    [
        b"# " + GBK + b'\nname: "a#b" # ' + GBK + b"\n",
        b"name: 'a#b'#" + GBK,
        b'#"\nname: "a#b"\n# caf\xe9 "',
    ],
)
def test_comments_may_be_in_any_encoding(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    assert read_net(path).message.name == "a#b"


def test_a_fault_on_a_line_with_such_a_comment_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'nmae: "a" # caf\xe9\n')
    with pytest.raises(SchemaError) as caught:
        read_net(path)
    assert '1 | nmae: "a" # caf\ufffd\n' in str(caught.value)


def test_a_string_must_be_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'# caf\xe9\nname: "caf\xe9"\n')
    with pytest.raises(SchemaError) as caught:
        read_net(path)
    (fault,) = caught.value.diagnostics
    assert fault.message == "the file is no text: byte 0xe9 is not UTF-8"
    assert fault.span is not None
    assert (fault.span.line, fault.span.column) == (2, 11)


def test_an_input_without_a_shape_that_a_layer_makes_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    layer = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } }'
    path.write_text(f'input: "x" {layer}')
    net = read_net(path).message
    assert [found.name for found in net.layer] == ["in"]
    assert not net.input
    path.write_text(f'input: "x" input: "y" {layer}')
    with pytest.raises(SchemaError, match='input "y" has no shape'):
        read_net(path)
