"""The joined nets in PyTorch, and one training step of them: eager, compiled, or a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from joined import (
    DECAY,
    HARD_WEIGHT,
    MOMENTUM,
    RATE,
    SOFT_WEIGHT,
    STUDENT,
    TEACHER,
    TEMPERATURE,
    Conv,
    Dense,
    Layer,
    Net,
    Pool,
    input_shapes,
    weight_shapes,
)
from torch import Tensor, nn
from torch.nn import functional

Losses = tuple[float, float]
Work = Callable[[], tuple[Tensor, Tensor]]


class AveragePool(nn.Module):
    """Caffe's AVE without pads: a window clipped at the border is divided by what is left of it.

    PyTorch's ceil_mode clips the divisor in the same way, but torch.compile 2.13 gets its gradient
    wrong; ``compiled`` pads the end and corrects the divisor instead.
    """

    def __init__(self, kernel: int, stride: int, size: int, *, compiled: bool) -> None:
        super().__init__()
        self.kernel, self.stride, self.compiled = kernel, stride, compiled
        count = -(-(size - kernel) // stride) + 1
        self.end = (count - 1) * stride + kernel - size
        left = torch.tensor([min(kernel, size - stride * index) for index in range(count)])
        factor = kernel**2 / torch.outer(left, left)
        self.register_buffer("factor", factor, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window."""
        if not self.compiled:
            return functional.avg_pool2d(x, self.kernel, self.stride, ceil_mode=True)
        padded = functional.pad(x, (0, self.end, 0, self.end))
        return functional.avg_pool2d(padded, self.kernel, self.stride) * self.factor


def module(
    net: Net, side: str, weights: Mapping[str, np.ndarray], *, compiled: bool
) -> nn.Sequential:
    """One side of the joined net with Caffe's weights, which have PyTorch's layout."""
    shapes, inputs = weight_shapes(net), input_shapes(net)
    parts = nn.Sequential()
    for layer in net.layers:
        if isinstance(layer, Dense):
            parts.append(nn.Flatten())
        made = _made(layer, inputs[layer.name], compiled=compiled)
        if layer.name in shapes:
            names = ("weight", "bias")
            arrays = {name: weights[f"{side}{layer.name}/{name}"] for name in names}
            made.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
        parts.append(made)
    return parts


def _made(layer: Layer, x: tuple[int, ...], *, compiled: bool) -> nn.Module:
    match layer:
        case Conv(_, outputs, kernel, pad):
            return nn.Conv2d(x[0], outputs, kernel, padding=pad)
        case Pool(_, "MAX", kernel, stride):
            return nn.MaxPool2d(kernel, stride, ceil_mode=True)
        case Pool(_, _, kernel, stride):
            return AveragePool(kernel, stride, x[1], compiled=compiled)
        case Dense(_, outputs):
            return nn.Linear(int(np.prod(x)), outputs)
    return nn.ReLU(inplace=True)


class TorchStep:
    """One update of the student, as a person would write it.

    Args:
        net: what to train.
        weights: initial weights of both sides.
        how: "eager", "compiled" (torch.compile over forward, losses, backward and update) or
            "graph" (the eager step in a CUDA graph).
        device: "cpu" or "cuda".
    """

    def __init__(
        self, net: Net, weights: Mapping[str, np.ndarray], how: str, device: str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        compiled = how == "compiled"
        self.teacher = module(net, TEACHER, weights, compiled=compiled).to(self.device).eval()
        self.student = module(net, STUDENT, weights, compiled=compiled).to(self.device).train()
        self.optimizer = torch.optim.SGD(
            self.student.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
        )
        self.data = torch.zeros(net.data_shape, device=self.device)
        self.label = torch.zeros(net.batch, dtype=torch.int64, device=self.device)
        self._work: Work = {
            "eager": lambda: self._train,
            "compiled": lambda: torch.compile(self._train),
            "graph": self._captured,
        }[how]()

    def losses(self) -> tuple[Tensor, Tensor]:
        """Softmax loss, and the T²-scaled cross entropy with the teacher's soft targets."""
        with torch.no_grad():
            targets = functional.softmax(self.teacher(self.data) / TEMPERATURE, 1)
        logits = self.student(self.data)
        hard = functional.cross_entropy(logits, self.label)
        soft = TEMPERATURE**2 * functional.cross_entropy(logits / TEMPERATURE, targets)
        return hard, soft

    def _train(self) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        hard, soft = self.losses()
        (HARD_WEIGHT * hard + SOFT_WEIGHT * soft).backward()
        self.optimizer.step()
        return hard.detach(), soft.detach()

    def _captured(self) -> Work:
        """Capture the step; the steps that warm up for it leave weights and history unchanged."""
        start = [parameter.detach().clone() for parameter in self.student.parameters()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._train()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._train()
        with torch.no_grad():
            for parameter, value in zip(self.student.parameters(), start, strict=True):
                parameter.copy_(value)
                self.optimizer.state[parameter]["momentum_buffer"].zero_()

        def replay() -> tuple[Tensor, Tensor]:
            graph.replay()
            return result

        return replay

    def step(self, data: np.ndarray, label: np.ndarray) -> Losses:
        """One update on a batch; both losses."""
        self.data.copy_(torch.from_numpy(data))
        self.label.copy_(torch.from_numpy(label))
        hard, soft = self._work()
        return float(hard), float(soft)
