"""Writes small PyTorch models beside this file, as torch.onnx.export does, with their answers.

Beside each NAME.onnx stands NAME.npz: the input x, the output y, the random direction ``seed/y``
of the loss L = Σ ⟨y, seed⟩, and ``grad/WEIGHT``, dL by each weight under its name in the model.
Run with a Python that has PyTorch 2.13 and onnx; the export needs no onnxscript.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as fn

warnings.filterwarnings("ignore")


class Residual(nn.Module):
    """Convolution, batch normalisation, a residual block, global average, classes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.drop = nn.Dropout(0.25)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.pool(fn.relu(self.norm(self.stem(x))))
        x = x + self.conv2(fn.relu(self.norm1(self.conv1(x))))
        x = fn.adaptive_avg_pool2d(fn.relu(x), 1)
        return self.fc(self.drop(torch.flatten(x, 1)))


class Attention(nn.Module):
    """Patches, a class token, one block of attention and a GELU perceptron."""

    def __init__(self, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.5)
        self.place = nn.Parameter(torch.randn(1, 5, width) * 0.5)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 16), nn.Linear(16, width)
        self.fc = nn.Linear(width, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        n, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = fn.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, c))
        x = x + self.down(fn.gelu(self.up(self.norm2(x))))
        return self.fc(x[:, 0])


class Mobile(nn.Module):
    """Depthwise convolutions, hard activations, squeeze and excitation, resizing; any image."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.depth = nn.Conv2d(6, 6, 3, 1, 1, groups=6)
        self.squeeze, self.excite = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
        self.slope = nn.PReLU(6)
        self.up = nn.ConvTranspose2d(6, 4, 2, 2)
        self.head = nn.Conv2d(10, 3, 1)

    def forward(self, x):
        y = fn.hardswish(self.stem(x))
        z = self.slope(self.depth(fn.pad(y, (1, 1, 1, 1), mode="reflect")))
        z = z * fn.hardsigmoid(self.excite(fn.relu6(self.squeeze(z.mean((2, 3), keepdim=True)))))
        z = fn.avg_pool2d(z, 3, 2, 1, count_include_pad=False)
        wide = fn.interpolate(z, size=x.shape[2:], mode="bilinear", align_corners=False)
        near = fn.interpolate(self.up(z), size=x.shape[2:], mode="nearest")
        scores = self.head(torch.cat([wide, near], 1))
        return fn.log_softmax(scores, 1).flatten(2).amax(2)


class Recurrent(nn.Module):
    """Rows of an image as the steps of an LSTM, its last state to classes."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        _, (state, _) = self.lstm(x)
        return self.fc(state[-1])


def randomized(model, seed):
    """Fixed weights, and running statistics that are not those of a fresh model."""
    torch.manual_seed(seed)
    for value in [*model.parameters(), *model.buffers()]:
        if value.is_floating_point():
            value.data = torch.randn_like(value) * 0.4
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.data = torch.rand_like(module.running_var) + 0.5
    return model


def exported(model, x, axes, **options):
    """The model as torch.onnx.export writes it."""
    file = io.BytesIO()
    torch.onnx.export(
        model,
        (x,),
        file,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": axes, "y": {0: "batch"}},
        dynamo=False,
        **options,
    )
    return onnx.load_from_string(file.getvalue())


def answers(model, x, held):
    """Output and gradients, computed in float64; ``held`` are the names in the model."""
    double = model.double()
    y = double(x.double())
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).double()
    double.zero_grad()
    (y * seed).sum().backward()
    found = {"x": x, "y": y, "seed/y": seed}
    for name, value in double.named_parameters():
        if name in held:
            found[f"grad/{name}"] = value.grad
    return {name: value.detach().numpy().astype(np.float32) for name, value in found.items()}


def write(folder, name, model, x, axes=None, **options):
    """One model and its answers."""
    axes = axes or {0: "batch"}
    proto = exported(model, x[:1] if options.pop("one", False) else x, axes, **options)
    held = {tensor.name for tensor in proto.graph.initializer}
    path = folder / f"{name}.onnx"
    path.write_bytes(proto.SerializeToString(deterministic=True))
    np.savez_compressed(folder / f"{name}.npz", **answers(model, x, held))
    print(path.stat().st_size, name, sorted({node.op_type for node in proto.graph.node}))


AFFINE = """
<ir_version: 8, opset_import: ["" : 18]>
affine (float[batch, 4] x) => (float[batch, 3] y)
<float[4, 3] weight = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, float[3] bias = {0, 0, 0}>
{
  product = MatMul (x, weight)
  inner = Add (product, bias)
  y = Softplus (inner)
}
"""


def main():
    """Write every model."""
    folder = Path(__file__).parent
    affine = onnx.parser.parse_model(AFFINE)
    (folder / "affine.onnx").write_bytes(affine.SerializeToString(deterministic=True))
    torch.manual_seed(0)
    preserve = torch.onnx.TrainingMode.PRESERVE
    kept = {"training": preserve, "do_constant_folding": False}
    x = torch.randn(3, 3, 8, 8)
    write(folder, "residual", randomized(Residual(), 1).eval(), x, opset_version=13, **kept)
    train = {"training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False}
    learning = randomized(Residual(), 1).train()
    learning.drop = nn.Identity()
    write(folder, "residual_train", learning, x, opset_version=15, **train)
    write(folder, "attention", randomized(Attention(), 2).eval(), x, opset_version=17, **kept)
    image = {0: "batch", 2: "height", 3: "width"}
    wide = torch.randn(2, 3, 12, 16)
    write(folder, "mobile", randomized(Mobile(), 3).eval(), wide, image, opset_version=18, **kept)
    rows = torch.randn(4, 7, 6)
    write(folder, "recurrent", randomized(Recurrent(), 4).eval(), rows, opset_version=14)


if __name__ == "__main__":
    sys.exit(main())
