"""Write the PyTorch files here, and what the net computes; run with PyTorch and NumPy.

    python make_torch.py

`evil.pt` calls `os.system` when Python unpickles it: never load it with anything but kdnet.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent


class Net(nn.Module):
    """One of each kind of layer that has a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.bn = nn.BatchNorm2d(3)
        self.act = nn.PReLU(3)
        self.up = nn.ConvTranspose2d(3, 2, 2)
        self.fc = nn.Linear(2 * 9, 5)
        self.lstm = nn.LSTM(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(self.act(self.bn(self.conv(x))))
        return self.lstm(self.fc(y.flatten(1)).unsqueeze(1))[0]


class Evil:
    """Pickles as a call of os.system."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch evil-was-here",)


def main() -> None:
    torch.manual_seed(7)
    net = Net()
    for _ in range(3):
        net(torch.randn(4, 2, 4, 4))
    net.eval()
    x = torch.randn(3, 2, 4, 4)
    with torch.no_grad():
        y = net(x)
    state = net.state_dict()
    np.savez_compressed(HERE / "torch.npz", x=x.numpy(), y=y.numpy())
    torch.save(state, HERE / "state.pt")
    optimizer = torch.optim.Adam(net.parameters())
    checkpoint = {"epoch": 3, "model": state, "optimizer": optimizer.state_dict(), "best": 0.5}
    torch.save(checkpoint, HERE / "checkpoint.pt")
    torch.save(net.fc, HERE / "module.pt")
    torch.save(state, HERE / "old.pt", _use_new_zipfile_serialization=False)
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    views = {
        "all.weight": base,
        "turned.weight": base.T,
        "part.weight": base[1:, ::2],
        "half.weight": base.half(),
        "brain.weight": base.bfloat16(),
        "whole.weight": base.long(),
        "none.weight": torch.zeros(0, 3),
        "tied.weight": base,
        "given.weight": nn.Parameter(base.double()),
    }
    torch.save(views, HERE / "views.pt")
    with zipfile.ZipFile(HERE / "evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Evil()}, protocol=2))
        archive.writestr("archive/version", "3\n")
    torch.onnx.export(net, (x,), HERE / "net.onnx", dynamo=False)


if __name__ == "__main__":
    main()
