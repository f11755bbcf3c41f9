"""Scores as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kdnet.runtime.scoring.scores import (
    BinaryScore,
    ClassifierScore,
    HeadScore,
    ReconstructionScore,
)


def as_json(outputs: Mapping[str, float], heads: Sequence[HeadScore], batches: int) -> str:
    """One object: ``batches``, the mean of each output blob, and the heads with their kind."""
    kinds = {ClassifierScore: "classes", BinaryScore: "binary", ReconstructionScore: "values"}
    found = [{"kind": kinds[type(head)], **asdict(head)} for head in heads]
    whole = {"batches": batches, "outputs": dict(outputs), "heads": found}
    return json.dumps(whole, indent=2) + "\n"


def as_text(heads: Sequence[HeadScore]) -> str:
    """A block a head, a line a number."""
    return "\n".join(_block(head) for head in heads)


def _block(head: HeadScore) -> str:
    title, rows = _rows(head)
    width = max(len(name) for name, _ in rows)
    return "".join([f"{title}\n", *(f"  {name:{width}}  {text}\n" for name, text in rows)])


def _rows(head: HeadScore) -> tuple[str, list[tuple[str, str]]]:
    if isinstance(head, ClassifierScore):
        whose = "teacher" if head.teacher else "classifier"
        return f'{whose} "{head.blob}", {head.items} items', _classifier(head)
    if isinstance(head, BinaryScore):
        title = f'binary head "{head.blob}", {head.entries} entries'
        return title, [("accuracy", _number(head.accuracy)), ("loss", _number(head.loss))]
    rows = [("mean squared error", _number(head.mean))]
    rows += [(f"{level} quantile", _number(value)) for level, value in head.quantiles.items()]
    rows += [("largest", _number(head.largest)), ("reject above", _number(head.threshold))]
    return f'auto-encoder "{head.blob}", {head.items} items', rows


def _classifier(head: ClassifierScore) -> list[tuple[str, str]]:
    rows: list[tuple[str, Any]] = [
        ("top-1 accuracy", head.top1),
        ("top-5 accuracy", head.top5),
        ("loss", head.loss),
        ("calibration error", head.ece),
        ("fitted temperature", head.temperature),
        ("loss at that temperature", head.calibrated_loss),
        ("calibration error there", head.calibrated_ece),
        ("reject below probability", head.threshold),
        ("outsiders", head.outsiders or None),
        ("outsiders rejected", head.outsiders_rejected),
        ("outsiders' AUROC", head.outsiders_auroc),
    ]
    for teacher, share in head.agreement.items():
        rows.append((f'agreement with "{teacher}"', share))
        rows.append((f'KL from "{teacher}"', head.divergence[teacher]))
    return [(name, _number(value)) for name, value in rows if value is not None]


def _number(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
