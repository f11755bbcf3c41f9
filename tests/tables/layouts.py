"""The layout rule table: arrays as another framework names them, and the Caffe layers expected.

Expected numbers follow from the frameworks' own definitions, spelled out with loops or plain
indexing; nothing here uses the rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class LayoutCase:
    """One layer's arrays by the last parts of their names; (suffix, type, blobs) expected.

    ``op`` and ``numbers`` are those of an ONNX node that reads the arrays in this order.
    """

    id: str
    arrays: Arrays
    layers: tuple[tuple[str, str, tuple[np.ndarray, ...]], ...]
    op: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


def ramp(*shape: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + int(np.prod(shape)), dtype=np.float32).reshape(shape)


ONE = np.ones(1, np.float32)
A, B, C, D = (ramp(3, start=start) for start in (1, 10, 20, 30))
KERNEL, BIAS = ramp(2, 3, 4, 5), ramp(5)
OIHW = np.array([[KERNEL[:, :, i, o] for i in range(4)] for o in range(5)])
DEPTHWISE = ramp(2, 3, 4, 2)
GROUPS = np.array([[DEPTHWISE[:, :, i, m]] for i in range(4) for m in range(2)])
POINTWISE = ramp(1, 1, 8, 5)
# Two units: rows of the input, forget and cell gate, then of the output gate; Caffe has the last
# two the other way round.
ROWS, RECURRENT = ramp(8, 3), ramp(8, 2, start=50)
ROW_BIAS, ROW_BIAS_2 = ramp(8), ramp(8, start=100)
CAFFE_ROWS = [0, 1, 2, 3, 6, 7, 4, 5]
# ONNX: input, output, forget, cell.
CAFFE_ROWS_ONNX = [0, 1, 4, 5, 2, 3, 6, 7]


def lstm(bias: np.ndarray, rows: list[int]) -> tuple[np.ndarray, ...]:
    return ROWS[rows], bias[rows], RECURRENT[rows]


CASES = (
    LayoutCase(
        "caffe/batch-norm",
        {"mean": A, "variance": B, "scale_factor": 2 * ONE},
        (("", "BatchNorm", (A, B, 2 * ONE)),),
    ),
    LayoutCase(
        "keras/batch-norm",
        {"gamma": A, "beta": B, "moving_mean": C, "moving_variance": D},
        (("", "BatchNorm", (C, D, ONE)), ("/scale", "Scale", (A, B))),
    ),
    LayoutCase(
        "keras/batch-norm, no beta",
        {"gamma": A, "moving_mean": C, "moving_variance": D},
        (("", "BatchNorm", (C, D, ONE)), ("/scale", "Scale", (A,))),
    ),
    LayoutCase(
        "keras/batch-norm, no gamma",
        {"beta": B, "moving_mean": C, "moving_variance": D},
        (("", "BatchNorm", (C, D, ONE)), ("/scale", "Scale", (np.ones_like(B), B))),
    ),
    LayoutCase("keras/convolution", {"kernel": KERNEL, "bias": BIAS}, (("", "", (OIHW, BIAS)),)),
    LayoutCase(
        "keras/convolution, 1 axis",
        {"kernel": KERNEL[0]},
        (("", "", (OIHW[:, :, 0],)),),
    ),
    LayoutCase(
        "keras/dense",
        {"kernel": ramp(2, 3), "bias": A},
        (("", "InnerProduct", (np.array([[0, 3], [1, 4], [2, 5]], np.float32), A)),),
    ),
    LayoutCase(
        "keras/depthwise",
        {"depthwise_kernel": DEPTHWISE, "bias": ramp(8)},
        (("", "Convolution", (GROUPS, ramp(8))),),
    ),
    LayoutCase("keras/embedding", {"embeddings": KERNEL[0, 0]}, (("", "Embed", (KERNEL[0, 0],)),)),
    LayoutCase("keras/layer-norm", {"gamma": A, "beta": B}, (("", "Scale", (A, B)),)),
    LayoutCase(
        "keras/lstm",
        {"kernel": ROWS.T, "recurrent_kernel": RECURRENT.T, "bias": ROW_BIAS},
        (("", "LSTM", lstm(ROW_BIAS, CAFFE_ROWS)),),
    ),
    LayoutCase(
        "keras/lstm, no bias",
        {"kernel": ROWS.T, "recurrent_kernel": RECURRENT.T},
        (("", "LSTM", lstm(0 * ROW_BIAS, CAFFE_ROWS)),),
    ),
    LayoutCase("keras/prelu", {"alpha": A.reshape(1, 1, 3)}, (("", "PReLU", (A,)),)),
    LayoutCase(
        "keras/separable",
        {"depthwise_kernel": DEPTHWISE, "pointwise_kernel": POINTWISE, "bias": BIAS},
        (
            ("/depthwise", "Convolution", (GROUPS,)),
            ("/pointwise", "Convolution", (POINTWISE[0, 0].T.reshape(5, 8, 1, 1), BIAS)),
        ),
    ),
    LayoutCase(
        "onnx/batch-norm",
        {"scale": A, "bias": B, "mean": C, "variance": D},
        (("", "BatchNorm", (C, D, ONE)), ("/scale", "Scale", (A, B))),
        op="BatchNormalization",
    ),
    LayoutCase(
        "onnx/convolution",
        {"weight": OIHW, "bias": BIAS},
        (("", "Convolution", (OIHW, BIAS)),),
        op="Conv",
    ),
    LayoutCase(
        "onnx/deconvolution",
        {"weight": OIHW},
        (("", "Deconvolution", (OIHW,)),),
        op="ConvTranspose",
    ),
    LayoutCase(
        "onnx/gemm",
        {"weight": ramp(2, 3), "bias": A.reshape(1, 3)},
        (("", "InnerProduct", (np.array([[0, 3], [1, 4], [2, 5]], np.float32), A)),),
        op="Gemm",
    ),
    LayoutCase(
        "onnx/gemm, transposed there",
        {"weight": ramp(3, 2), "bias": A},
        (("", "InnerProduct", (ramp(3, 2), A)),),
        op="Gemm",
        numbers={"transB": 1},
    ),
    LayoutCase(
        "onnx/lstm",
        {
            "weight": ROWS[np.newaxis],
            "recurrence": RECURRENT[np.newaxis],
            "bias": np.concatenate([ROW_BIAS, ROW_BIAS_2])[np.newaxis],
        },
        (("", "LSTM", lstm(ROW_BIAS + ROW_BIAS_2, CAFFE_ROWS_ONNX)),),
        op="LSTM",
    ),
    LayoutCase(
        "onnx/matmul",
        {"weight": ramp(2, 3)},
        (("", "InnerProduct", (np.array([[0, 3], [1, 4], [2, 5]], np.float32),)),),
        op="MatMul",
    ),
    LayoutCase("onnx/prelu", {"slope": A.reshape(3, 1, 1)}, (("", "PReLU", (A,)),), op="PRelu"),
    LayoutCase(
        "torch/batch-norm",
        {
            "weight": A,
            "bias": B,
            "running_mean": C,
            "running_var": D,
            "num_batches_tracked": np.float32(7),
        },
        (("", "BatchNorm", (C, D, ONE)), ("/scale", "Scale", (A, B))),
    ),
    LayoutCase(
        "torch/batch-norm, not affine",
        {"running_mean": C, "running_var": D},
        (("", "BatchNorm", (C, D, ONE)),),
    ),
    LayoutCase("torch/layer", {"bias": BIAS, "weight": OIHW}, (("", "", (OIHW, BIAS)),)),
    LayoutCase(
        "torch/lstm",
        {
            "weight_ih": ROWS,
            "weight_hh": RECURRENT,
            "bias_ih": ROW_BIAS,
            "bias_hh": ROW_BIAS_2,
        },
        (("", "LSTM", lstm(ROW_BIAS + ROW_BIAS_2, CAFFE_ROWS)),),
    ),
)

# Arrays that look like a rule's but have other shapes: each becomes a layer of its own.
UNFIT = {
    "keras/batch-norm": {"moving_mean": A, "moving_variance": BIAS},
    "keras/lstm": {"kernel": ramp(3, 6), "recurrent_kernel": ramp(2, 6)},
    "keras/depthwise": {"depthwise_kernel": A},
    "keras/prelu": {"alpha": ramp(2, 2, 3)},
    "torch/batch-norm": {"running_mean": KERNEL, "running_var": KERNEL},
    "torch/lstm": {"weight_ih": ROWS, "weight_hh": RECURRENT, "bias_ih": A, "bias_hh": B},
}
