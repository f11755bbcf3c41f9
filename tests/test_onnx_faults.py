"""Models that cannot be a layer: each fault is a located error with a name, never a traceback."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_programs as models
import pytest
from onnx_programs import fault, opset

from kdnet.errors import KdnetError

X = np.ones((2, 6), np.float32)
FLAT = "(float[n, 6] x) => (float[a, b] y)"


# name: code, what is said, opset, body
TEXTS = {
    "branch": (
        "unsupported-model",
        'node "choice" (If): its condition depends on the data',
        13,
        f"{FLAT} {{ s = ReduceSum <keepdims = 0> (x) c = Cast <to = 9> (s) "
        "[choice] y = If (c) < then_branch = then () => (float[a, b] t) { t = Neg (x) }, "
        "else_branch = other () => (float[a, b] u) { u = Identity (x) } > }",
    ),
    "data-shape": (
        "op-misuse",
        "NonZero of (2, 6): NonZero layer/spots/NonZero: an output axis is not static",
        13,
        f"{FLAT} {{ [spots] n = NonZero (x) y = Cast <to = 1> (n) }}",
    ),
    "domain": (
        "unsupported-model",
        'node "fast" (FastGelu) is of "com.microsoft"',
        13,
        f"{FLAT} {{ [fast] y = com.microsoft.FastGelu (x) }}",
    ),
    "down": (
        "model-conversion",
        "it cannot be converted from opset 24 to 21: ",
        24,
        f"{FLAT} {{ y = Swish (x) }}",
    ),
    "expand": (
        "op-misuse",
        'node "wide" (Expand): shape (2, 6) to (4, 3)',
        13,
        f"{FLAT} <int64[2] s = {{4, 3}}> {{ [wide] y = Expand (x, s) }}",
    ),
    "fold": (
        "corrupt-model",
        'node "pick" (Gather) fails on its constants: ',
        13,
        f"{FLAT} <int64[1] i = {{7}}> {{ s = Shape (x) [pick] g = Gather (s, i) "
        "y = Reshape (x, g) }",
    ),
    "loop": (
        "unsupported-model",
        'node "again" (Scan): loops are not supported',
        13,
        f"{FLAT} {{ [again] y = Scan <num_scan_inputs = 1, body = b (float[6] i) => (float[6] o) "
        "{ o = Neg (i) }> (x) }",
    ),
    "nameless": (
        "corrupt-model",
        'nothing makes "m"',
        14,
        f"{FLAT} <float[6] s> {{ z, m, w = BatchNormalization <training_mode = 1> "
        "(x, s, s, s, s) y = Add (z, m) }",
    ),
    "nobody": (
        "corrupt-model",
        "it is no valid model: Nodes in a graph must be topologically sorted",
        13,
        f"{FLAT} {{ a = Neg (b) b = Neg (a) y = Add (a, x) }}",
    ),
    "pads": (
        "op-misuse",
        'node "frame" (Pad): 2 pads for 2 axes',
        13,
        f"{FLAT} <int64[2] p = {{1, 1}}> {{ [frame] y = Pad (x, p) }}",
    ),
    "pads-of-data": (
        "unsupported-model",
        'node "frame" (Pad): its input 1 depends on the data',
        13,
        f"{FLAT} <int64[1] s = {{4}}> {{ f = ReduceSum <keepdims = 0> (x) "
        "i = Cast <to = 7> (f) p = Expand (i, s) [frame] y = Pad (x, p) }",
    ),
    "random": (
        "unsupported-model",
        'node "r" (RandomUniformLike): its numbers would differ from run to run',
        13,
        f"{FLAT} {{ [r] y = RandomUniformLike (x) }}",
    ),
    "reshape": (
        "op-misuse",
        'node "fold" (Reshape): shape (2, 6) to (5, -1)',
        13,
        f"{FLAT} <int64[2] s = {{5, -1}}> {{ [fold] y = Reshape (x, s) }}",
    ),
    "sequence": (
        "op-misuse",
        "no static shape for an output",
        13,
        f"{FLAT} {{ q = SplitToSequence (x) y = ConcatFromSequence <axis = 0> (q) }}",
    ),
    "string": (
        "unsupported-model",
        'node "words" (Cast): it makes elements of a type that kdnet has not',
        13,
        f"{FLAT} {{ [words] s = Cast <to = 8> (x) y = Cast <to = 1> (s) }}",
    ),
    "string-input": (
        "unsupported-model",
        'input "x" is not an array of numbers that kdnet has',
        13,
        "(string[n, 6] x) => (float[a, b] y) { y = Cast <to = 1> (x) }",
    ),
    "text": (
        "unsupported-model",
        'node "word" (Constant): its value_string is no array of numbers',
        13,
        f'{FLAT} {{ [word] s = Constant <value_string = "1"> () c = Cast <to = 1> (s) '
        "y = Add (x, c) }",
    ),
    "unknown-op": (
        "corrupt-model",
        "it is no valid model: No Op registered for Frobnicate",
        13,
        f"{FLAT} {{ y = Frobnicate (x) }}",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_model_that_cannot_be_a_layer_says_why(name, tmp_path):
    code, text, version, body = TEXTS[name]
    found = fault(models.written(tmp_path, opset(version, body)))
    assert found[0] == code, found
    assert text in found[1]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it has no graph"),
        (b"layer { name: 'x' }", "is not an ONNX model, or is cut short"),
        (b"\x89PNG\r\n\x1a\n" * 9, "is not an ONNX model, or is cut short"),
    ],
)
def test_a_file_that_is_no_model_is_told(content, text, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    code, said = fault(path)
    assert code == "not-a-model"
    assert text in said


def test_a_folder_is_no_model(tmp_path):
    assert fault(tmp_path)[0] == "not-a-model"


def test_a_model_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    path = models.written(tmp_path, opset(13, f"{FLAT} {{ y = Neg (x) }}"))

    def refused(*_arguments, **_more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(onnx, "load_model", refused)
    assert fault(path) == ("not-a-model", f'cannot read "{path}": Permission denied')


def test_a_model_that_is_not_there_is_told_with_the_nearest(tmp_path):
    models.written(tmp_path, opset(13, f"{FLAT} {{ y = Neg (x) }}"))
    with pytest.raises(KdnetError) as caught:
        models.loaded(tmp_path / "modell.onnx", X)
    [found] = caught.value.diagnostics
    assert found.code == "missing-model"
    assert "model.onnx" in found.help[0]


TWO = (
    "(float[n, 6] x, float[n, 6] z) => (float[n, 6] y, float[n, 6] u) "
    "{ y = Add (x, z) u = Neg (x) }"
)


@pytest.mark.parametrize(
    ("bottoms", "tops", "text", "code", "said"),
    [
        (1, 2, "", "bottom-count", '1 bottoms for the model\'s 2 inputs: "x", "z"'),
        (2, 1, "", "top-count", '1 tops for the model\'s 2 outputs: "y", "u"'),
        (1, 1, 'output: "v"', "unknown-tensor", 'the model has no tensor "v"'),
        (1, 1, 'input: "w" output: "u"', "unknown-tensor", 'the model has no input "w"'),
        (
            1,
            1,
            'input: "x" output: "y"',
            "unknown-tensor",
            'the wanted outputs need input "z" too',
        ),
    ],
)
def test_names_and_counts_must_fit(bottoms, tops, text, code, said, tmp_path):
    path = models.written(tmp_path, opset(13, TWO))
    found = fault(path, *[X] * bottoms, text=text, count=tops)
    assert found[0] == code
    assert said in found[1]


def test_an_output_of_the_model_s_may_be_left_out(tmp_path):
    path = models.written(tmp_path, opset(13, TWO))
    np.testing.assert_array_equal(models.tops(path, X, text='output: "u"')[0], -X)


@pytest.mark.parametrize(
    ("declared", "shapes", "said"),
    [
        ("float[n, 5] x", [(2, 6)], 'a bottom of shape (2, 6) for input "x" of shape (n, 5)'),
        ("float[4, 6] x", [(2, 6)], 'input "x" of shape (4, 6)'),
        ("float[n, 3, 6] x", [(2, 6)], 'input "x" of shape (n, 3, 6)'),
        ("float[n, m] x, float[n, 4] z", [(2, 6), (3, 4)], 'input "z" of shape (n, 4)'),
    ],
)
def test_bottoms_must_fit_what_the_model_declares(declared, shapes, said, tmp_path):
    name = declared.rpartition(" ")[2]
    body = f"({declared}) => (float[a, b] y, float[c, d] q) {{ y = Neg (x) q = Neg ({name}) }}"
    path = models.written(tmp_path, opset(13, body))
    found = fault(path, *[np.ones(shape) for shape in shapes], count=2)
    assert found[0] == "shape-mismatch"
    assert said in found[1]


def test_a_model_for_a_batch_says_how_to_get_another(tmp_path):
    path = models.written(
        tmp_path, opset(13, "(float[4, 6] x) => (float[4, 6] y) { y = Neg (x) }")
    )
    with pytest.raises(KdnetError, match="give batches of 4, or export it for any batch size"):
        models.tops(path, X)


MIXED = {
    "mean": ("m = ReduceMean <axes = [0]> (x) y = Add (x, m)", '"m" of shape (1, 6) becomes'),
    "rows": ("r = Reshape (x, s) y = Reshape (r, t)", '"r" of shape (3, 2) becomes (6, 2) for 2'),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_model_for_one_item_that_would_mix_several_is_refused(name, tmp_path):
    nodes, said = MIXED[name]
    body = (
        "(float[1, 6] x) => (float[1, 6] y) <int64[2] s = {-1, 2}, int64[2] t = {-1, 6}> "
        f"{{ {nodes} }}"
    )
    path = models.written(tmp_path, opset(13, body))
    assert models.tops(path, X[:1])[0].shape == (1, 6)
    code, text = fault(path)
    assert code == "mixed-items"
    assert said in text


def test_a_model_too_large_for_the_memory_is_refused(tmp_path, monkeypatch):
    path = models.written(tmp_path, opset(13, f"{FLAT} {{ y = Neg (x) }}"))
    monkeypatch.setattr("os.sysconf", lambda _name: 1)
    assert fault(path)[0] == "weights-too-large"


def test_a_path_must_be_given():
    from layer_programs import layer_model

    from kdnet.graph import Emitter
    from kdnet.layers import Trace, layer_class

    made = layer_model('type: "ONNX"', "TRAIN", 1, 1)
    with pytest.raises(KdnetError, match=r"model: the path of an \.onnx file must be given"):
        layer_class(made)(made, Trace()).check(Emitter().input("x", (2, 3)))


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_model_is_an_error_or_a_model(seed, tmp_path):
    """Bytes changed or cut anywhere: no traceback, whatever comes out of them."""
    rng = np.random.default_rng(seed)
    content = bytearray((models.GOLDEN / "residual.onnx").read_bytes())
    for place in rng.integers(0, len(content), 3):
        content[place] = rng.integers(0, 256)
    path = tmp_path / "model.onnx"
    path.write_bytes(
        content[: len(content) - int(rng.integers(0, 2)) * int(rng.integers(1, 3000))]
    )
    try:
        found = models.loaded(path, np.ones((1, 3, 8, 8)))
        models.Traced(found.program(), np.float32)
    except KdnetError as error:
        codes = {fault.code for fault in error.diagnostics}
        assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", code) for code in codes)
