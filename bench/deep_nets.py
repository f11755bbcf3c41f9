"""The deep nets that ``compile.py`` compiles, written as prototxts.

ResNet of 9n + 2 layers on CIFAR-10: bottleneck units of pre-activations. Source: He et al.,
Identity Mappings in Deep Residual Networks, 2016, ResNet-164 and ResNet-1001. GoogLeNet with its
two auxiliary heads. Source: Szegedy et al., Going Deeper with Convolutions, 2015, table 1.
"""

from __future__ import annotations

from collections.abc import Sequence

UNITS_A_LAYER = 9
# #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj of each inception module.
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class _Writer:
    """Collects the layers of a prototxt."""

    def __init__(
        self, batch: int, item: tuple[int, int, int], classes: int, *, biased: bool
    ) -> None:
        dims = " ".join(f"dim: {size}" for size in (batch, *item))
        self.classes, self.biased = classes, biased
        self.lines = [
            'layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {'
            f" shape {{ {dims} }} shape {{ dim: {batch} }}"
            ' data_filler { type: "gaussian" } data_filler { type: "constant" } } }'
        ]

    def layer(self, name: str, kind: str, bottoms: Sequence[str], top: str, rest: str = "") -> str:
        joined = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.lines.append(
            f'layer {{ name: "{name}" type: "{kind}" {joined} top: "{top}" {rest} }}'
        )
        return top

    def conv(self, name: str, bottom: str, outputs: int, kernel: int, stride: int = 1) -> str:
        rest = (
            f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} "
            f"stride: {stride} pad: {kernel // 2} bias_term: {str(self.biased).lower()} "
            'weight_filler { type: "msra" } }'
        )
        return self.layer(name, "Convolution", [bottom], name, rest)

    def relu(self, bottom: str, top: str = "") -> str:
        return self.layer(f"{bottom}/relu", "ReLU", [bottom], top or bottom)

    def pool(
        self, name: str, bottom: str, kind: str, kernel: int, stride: int, pad: int = 0
    ) -> str:
        rest = (
            f"pooling_param {{ pool: {kind} kernel_size: {kernel} stride: {stride} pad: {pad} }}"
        )
        return self.layer(name, "Pooling", [bottom], name, rest)

    def dense(self, name: str, bottom: str, outputs: int) -> str:
        rest = (
            f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }}'
        )
        return self.layer(name, "InnerProduct", [bottom], name, rest)

    def loss(self, name: str, bottom: str, weight: float = 1) -> None:
        self.layer(name, "SoftmaxWithLoss", [bottom, "label"], name, f"loss_weight: {weight}")

    def text(self, net_name: str) -> str:
        return "\n".join([f'name: "{net_name}"', *self.lines, ""])


def resnet(units: int, batch: int = 2) -> str:
    """A ResNet with ``units`` bottleneck units a stage: 9·units + 2 layers with weights."""
    net = _Writer(batch, (3, 32, 32), 10, biased=False)
    x = net.conv("stem", "data", 16, 3)
    for stage, width in enumerate((16, 32, 64), 1):
        for unit in range(1, units + 1):
            stride = 2 if stage > 1 and unit == 1 else 1
            x = _bottleneck(net, f"stage{stage}/unit{unit}", x, width, stride, first=unit == 1)
    x = _activated(net, "last", x)
    x = net.pool("pool", x, "AVE", 8, 1)
    net.loss("loss", net.dense("fc", x, net.classes))
    return net.text(f"ResNet-{UNITS_A_LAYER * units + 2}")


def _activated(net: _Writer, name: str, x: str) -> str:
    top = net.layer(f"{name}/bn", "BatchNorm", [x], f"{name}/bn")
    net.layer(f"{name}/scale", "Scale", [top], top, "scale_param { bias_term: true }")
    return net.relu(top)


def _bottleneck(net: _Writer, name: str, x: str, width: int, stride: int, *, first: bool) -> str:
    start = _activated(net, f"{name}/a", x)
    shortcut = net.conv(f"{name}/shortcut", start, 4 * width, 1, stride) if first else x
    y = net.conv(f"{name}/conv1", start, width, 1, stride)
    y = net.conv(f"{name}/conv2", _activated(net, f"{name}/b", y), width, 3)
    y = net.conv(f"{name}/conv3", _activated(net, f"{name}/c", y), 4 * width, 1)
    return net.layer(f"{name}/sum", "Eltwise", [shortcut, y], f"{name}/sum")


def googlenet(batch: int = 2) -> str:
    """GoogLeNet for images of 224×224."""
    net = _Writer(batch, (3, 224, 224), 1000, biased=True)
    lrn = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
    x = net.relu(net.conv("conv1", "data", 64, 7, 2))
    x = net.layer("norm1", "LRN", [net.pool("pool1", x, "MAX", 3, 2)], "norm1", lrn)
    x = net.relu(net.conv("conv2/reduce", x, 64, 1))
    x = net.relu(net.conv("conv2", x, 192, 3))
    x = net.pool("pool2", net.layer("norm2", "LRN", [x], "norm2", lrn), "MAX", 3, 2)
    for name, widths in INCEPTION.items():
        x = _inception(net, f"inception_{name}", x, widths)
        if name in ("3b", "4e"):
            x = net.pool(f"pool{name}", x, "MAX", 3, 2)
        if name in ("4a", "4d"):
            _auxiliary(net, f"loss_{name}", x)
    x = _dropped(net, net.pool("pool5", x, "AVE", 7, 1), 0.4)
    net.loss("loss", net.dense("classifier", x, net.classes))
    return net.text("GoogLeNet")


def _dropped(net: _Writer, x: str, ratio: float) -> str:
    return net.layer(f"{x}/drop", "Dropout", [x], x, f"dropout_param {{ dropout_ratio: {ratio} }}")


def _inception(net: _Writer, name: str, x: str, widths: tuple[int, ...]) -> str:
    one, reduce3, three, reduce5, five, projected = widths
    parts = [net.relu(net.conv(f"{name}/1x1", x, one, 1))]
    for kernel, reduced, width in ((3, reduce3, three), (5, reduce5, five)):
        y = net.relu(net.conv(f"{name}/{kernel}x{kernel}_reduce", x, reduced, 1))
        parts.append(net.relu(net.conv(f"{name}/{kernel}x{kernel}", y, width, kernel)))
    pooled = net.pool(f"{name}/pool", x, "MAX", 3, 1, 1)
    parts.append(net.relu(net.conv(f"{name}/pool_proj", pooled, projected, 1)))
    return net.layer(f"{name}/output", "Concat", parts, f"{name}/output")


def _auxiliary(net: _Writer, name: str, x: str) -> None:
    y = net.relu(net.conv(f"{name}/conv", net.pool(f"{name}/pool", x, "AVE", 5, 3), 128, 1))
    y = _dropped(net, net.relu(net.dense(f"{name}/fc", y, 1024)), 0.7)
    net.loss(name, net.dense(f"{name}/classifier", y, net.classes), 0.3)
