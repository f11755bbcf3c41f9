"""Small models in ONNX's text form: what they leave implicit must come out as it was meant."""

from __future__ import annotations

# name: opset, the shape fed, the graph's body from the declared input on
X = "(float[n, 3, 6, 7] x) => (float[a, b, c, d] y)"
FLAT = "(float[n, 6] x) => (float[a, b] y)"
MODELS = {
    "auto-pad-average": (
        13,
        (2, 3, 6, 7),
        f"{X} {{ y = AveragePool <kernel_shape = [3, 2], strides = [2, 2], "
        'auto_pad = "SAME_LOWER"> (x) }',
    ),
    "auto-pad-conv": (
        11,
        (2, 3, 6, 7),
        f"{X} <float[2, 3, 3, 2] w> {{ "
        'y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w) }',
    ),
    "auto-pad-max": (
        12,
        (2, 3, 6, 7),
        f'{X} {{ y = MaxPool <kernel_shape = [2, 2], auto_pad = "VALID"> (x) }}',
    ),
    "cast-like": (
        19,
        (2, 6),
        f"{FLAT} {{ i = Cast <to = 7> (x) y = CastLike (i, x) }}",
    ),
    "celu": (13, (2, 6), f"{FLAT} {{ y = Celu <alpha = 0.5> (x) }}"),
    "clip-6": (6, (2, 6), f"{FLAT} {{ y = Clip <min = -0.5, max = 0.5> (x) }}"),
    "constants": (
        13,
        (2, 6),
        f"{FLAT} {{ a = Constant <value_floats = [1.0, 2.0]> () "
        "c = Constant <value_ints = [3]> () f = Constant <value_float = 0.5> () "
        "i = Constant <value_int = 2> () g = Cast <to = 1> (i) t = Tile (a, c) "
        "u = Mul (x, t) v = Mul (u, f) y = Sub (v, g) }",
    ),
    "conv-transpose-output-shape": (
        11,
        (2, 3, 6, 7),
        f"{X} <float[3, 2, 3, 3] w> {{ "
        "y = ConvTranspose <strides = [2, 2], output_shape = [12, 14]> (x, w) }",
    ),
    "conv-transpose-same": (
        11,
        (2, 3, 6, 7),
        f"{X} <float[3, 2, 3, 3] w, float[2] b> {{ "
        'y = ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, w, b) }',
    ),
    "conv-transpose-unequal": (
        11,
        (2, 3, 6, 7),
        f"{X} <float[3, 2, 3, 3] w> {{ "
        "y = ConvTranspose <strides = [2, 1], pads = [1, 0, 0, 2], output_padding = [1, 0]> "
        "(x, w) }",
    ),
    "dropout": (10, (2, 6), f"{FLAT} {{ y = Dropout <ratio = 0.5> (x) }}"),
    "dropout-mask": (
        13,
        (2, 6),
        f"{FLAT} {{ z, mask = Dropout (x) m = Cast <to = 1> (mask) y = Add (z, m) }}",
    ),
    "expand": (
        13,
        (2, 6),
        f"{FLAT} <int64[3] s = {{3, 1, 6}}, int64[1] o = {{0}}> {{ "
        "e = Expand (x, s) y = ReduceSum <keepdims = 0> (e, o) }",
    ),
    "function": (
        18,
        (2, 6),
        f"{FLAT} {{ y = local.twice (x) }} "
        '<domain: "local", opset_import: ["" : 18]> twice (a) => (b) { b = Add (a, a) }',
    ),
    "group-norm": (
        21,
        (2, 4, 6),
        "(float[n, 4, 6] x) => (float[a, b, c] y) <float[4] s, float[4] b2> { "
        "y = GroupNormalization <num_groups = 2> (x, s, b2) }",
    ),
    "if-by-shape": (
        13,
        (2, 6),
        f"{FLAT} <int64 two = {{2}}, int64[1] i = {{0}}> {{ s = Shape (x) g = Gather (s, i) "
        "q = Squeeze (g) c = Equal (q, two) y = If (c) < "
        "then_branch = then () => (float[a, b] t) { t = Neg (x) }, "
        "else_branch = other () => (float[a, b] u) { u = Identity (x) } > }",
    ),
    "inner-float-shape": (
        13,
        (2, 3, 6, 7),
        f"{X} <float[4] times = {{1, 1, 1.5, 2}}, float[0] roi = {{}}> {{ s = Shape (x) "
        "f = Cast <to = 1> (s) m = Mul (f, times) r = Floor (m) i = Cast <to = 7> (r) "
        'y = Resize <mode = "linear"> (x, roi, , i) }',
    ),
    "lrn": (13, (2, 3, 6, 7), f"{X} {{ y = LRN <size = 3, alpha = 0.5> (x) }}"),
    "mean": (13, (2, 6), f"{FLAT} <float[6] w> {{ y = Mean (x, w, x) }}"),
    "opset-22": (22, (2, 3, 6, 7), f"{X} {{ y = MaxPool <kernel_shape = [2, 2]> (x) }}"),
    "opset-23": (23, (2, 6), f"{FLAT} <int64[2] s = {{3, 4}}> {{ y = Reshape (x, s) }}"),
    "opset-7": (7, (2, 6), f"{FLAT} <float[6, 4] w, float[4] b> {{ y = Gemm (x, w, b) }}"),
    "pad-axes": (
        18,
        (2, 3, 6, 7),
        f"{X} <int64[2] p = {{1, 2}}, float v = {{0.5}}, int64[1] a = {{-1}}> {{ "
        "y = Pad (x, p, v, a) }",
    ),
    "pad-cut": (13, (2, 6), f"{FLAT} <int64[4] p = {{0, -1, 1, -2}}> {{ y = Pad (x, p) }}"),
    "pad-nothing": (13, (2, 6), f"{FLAT} <int64[4] p = {{0, 0, 0, 0}}> {{ y = Pad (x, p) }}"),
    "quantized": (
        13,
        (2, 6),
        f"{FLAT} <float s = {{0.5}}, int8 z = {{1}}> {{ q = QuantizeLinear (x, s, z) "
        "y = DequantizeLinear (q, s, z) }",
    ),
    "reduce-all": (
        13,
        (2, 6),
        "(float[n, 6] x) => (float y) { y = ReduceMean <keepdims = 0> (x) }",
    ),
    "reduce-attribute": (11, (2, 6), f"{FLAT} {{ y = ReduceSum <axes = [-1]> (x) }}"),
    "reduce-nothing": (
        18,
        (2, 6),
        f"{FLAT} <int64[0] a = {{}}> {{ y = ReduceMax <noop_with_empty_axes = 1> (x, a) }}",
    ),
    "reshape-as-it-is": (
        14,
        (2, 6),
        f"{FLAT} <int64[2] s = {{-1, 3}}> {{ y = Reshape <allowzero = 1> (x, s) }}",
    ),
    "reshape-zero": (
        13,
        (2, 3, 6, 7),
        "(float[n, 3, 6, 7] x) => (float[a, b] y) <int64[2] s = {0, -1}> { y = Reshape (x, s) }",
    ),
    "sizes": (
        15,
        (2, 3, 6, 7),
        "(float[n, 3, 6, 7] x) => (float[a, b] y) <int64[1] r = {-1}> { s = Shape "
        "<start = 0, end = -2> (x) t = Shape <start = -2> (x) z = Size (x) p = ReduceProd "
        "<keepdims = 0> (t) q = Div (z, p) u = Reshape (q, r) v = Concat <axis = 0> (u, r) "
        "w = Concat <axis = 0> (s, r) h = Reshape (x, w) y = Reshape (h, v) }",
    ),
    "slice-9": (9, (2, 6), f"{FLAT} {{ y = Slice <starts = [1, 2], ends = [2, 9]> (x) }}"),
    "slice-no-axes": (
        13,
        (2, 6),
        f"{FLAT} <int64[1] s = {{1}}, int64[1] e = {{2}}> {{ y = Slice (x, s, e) }}",
    ),
    "softmax-12": (12, (2, 3, 6, 7), f"{X} {{ y = Softmax (x) }}"),
    "spots-of-a-constant": (
        13,
        (2, 6),
        f"{FLAT} <int64[3] c = {{0, 2, 3}}> {{ n = NonZero (c) s = Squeeze (n) "
        "y = Gather <axis = 1> (x, s) }",
    ),
    "squeeze-12": (
        12,
        (2, 6),
        f"{FLAT} {{ u = Unsqueeze <axes = [0]> (x) y = Squeeze (u) }}",
    ),
    "topk-values": (
        13,
        (2, 6),
        f"{FLAT} <int64[1] k = {{3}}> {{ y, i = TopK (x, k) }}",
    ),
    "trailing": (
        13,
        (2, 6),
        f"{FLAT} <float low = {{0}}> {{ c, d = Split (x) y = Clip (c, low, ) }}",
    ),
    "upsample-9": (
        9,
        (2, 3, 6, 7),
        f"{X} <float[4] s = {{1, 1, 2, 2}}> {{ y = Upsample (x, s) }}",
    ),
}
