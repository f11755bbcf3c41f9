"""What predictions are worth: metrics of classifiers, binary heads and auto-encoders."""

from kdnet.runtime.scoring.collect import Collector
from kdnet.runtime.scoring.report import as_json, as_text
from kdnet.runtime.scoring.scores import (
    BinaryScore,
    ClassifierScore,
    HeadScore,
    ReconstructionScore,
    not_finite,
    score_head,
)

__all__ = [
    "BinaryScore",
    "ClassifierScore",
    "Collector",
    "HeadScore",
    "ReconstructionScore",
    "as_json",
    "as_text",
    "not_finite",
    "score_head",
]
