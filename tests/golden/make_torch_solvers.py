"""Make the golden numbers of PyTorch's AdamW: gradients as given, weights after each step."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

STEPS = 10
OUT = Path(__file__).parent / "torch_solvers.npz"
# Two weights: the second has twice the rate and no decay.
LR_MULTS, DECAY_MULTS = (1.0, 2.0), (1.0, 0.0)
# Each case: the fields of a solver, and AdamW's own settings.
CASES = {
    "defaults": ("momentum: 0.9", {"betas": (0.9, 0.999)}),
    "decay": ("momentum: 0.9 weight_decay: 0.1", {"betas": (0.9, 0.999), "weight_decay": 0.1}),
    "betas": (
        "momentum: 0.5 momentum2: 0.8 delta: 1e-3 weight_decay: 0.02",
        {"betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.02},
    ),
}


def main() -> int:
    rng = np.random.default_rng(20)
    start = [rng.standard_normal(shape) for shape in ((3, 4), (5,))]
    slopes = [[rng.standard_normal(w.shape) for w in start] for _ in range(STEPS)]
    rates = 0.05 * 0.8 ** np.arange(STEPS)
    entries = {"rates": rates, "lr_mult": np.array(LR_MULTS), "decay_mult": np.array(DECAY_MULTS)}
    for index, weight in enumerate(start):
        entries[f"start/{index}"] = weight
        entries[f"slopes/{index}"] = np.stack([step[index] for step in slopes])
    for name, (fields, settings) in CASES.items():
        weights = [torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in start]
        decay = settings.get("weight_decay", 0.0)
        rule = torch.optim.AdamW(
            [
                {"params": [w], "weight_decay": decay * mult}
                for w, mult in zip(weights, DECAY_MULTS, strict=True)
            ],
            **settings | {"weight_decay": decay},
        )
        kept: list[list[np.ndarray]] = [[] for _ in weights]
        for rate, step in zip(rates, slopes, strict=True):
            for group, mult in zip(rule.param_groups, LR_MULTS, strict=True):
                group["lr"] = rate * mult
            for weight, slope in zip(weights, step, strict=True):
                weight.grad = torch.tensor(slope, dtype=torch.float64)
            rule.step()
            for index, weight in enumerate(weights):
                kept[index].append(weight.detach().numpy().copy())
        entries[f"{name}/fields"] = np.array(fields)
        for index, values in enumerate(kept):
            entries[f"{name}/weights/{index}"] = np.stack(values)
    np.savez_compressed(OUT, **entries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
