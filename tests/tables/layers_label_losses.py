"""Rows of the losses with a margin, and of those between probabilities and labels."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracles_losses as oracle

from tables.cases import LayerCase, fixed, integers, normal, positive, uniform

LABELS = integers(3, np.float64)
PAIRS = [(5, 3), (5, 3), (5,)]
MARKS = fixed(0, 1, 0, 0, 2)
INFOGAIN = 'type: "InfogainLoss"'
SCORED = [normal, LABELS, positive]
# Close to, but nowhere nearer than a tenth.
NEAR = [uniform(0.0, 0.2), uniform(0.3, 0.5), MARKS]

CASES = (
    LayerCase(
        "ContrastiveLoss/default",
        'type: "ContrastiveLoss"',
        PAIRS,
        oracle.contrastive_loss,
        domain=NEAR,
        wrt=["bottom0", "bottom1"],
        tol=1e-3,
    ),
    LayerCase(
        "ContrastiveLoss/legacy",
        'type: "ContrastiveLoss" contrastive_loss_param { margin: 0.25 legacy_version: true }',
        PAIRS,
        partial(oracle.contrastive_loss, margin=0.25, legacy=True),
        domain=NEAR,
        wrt=["bottom0", "bottom1"],
    ),
    LayerCase(
        "ContrastiveLoss/margin",
        'type: "ContrastiveLoss" contrastive_loss_param { margin: 8 }',
        [(4, 2, 3), (4, 2, 3), (4, 1)],
        partial(oracle.contrastive_loss, margin=8),
        domain=[normal, normal, fixed(1, 0, 0, 1)],
        wrt=["bottom0", "bottom1"],
        tol=1e-3,
    ),
    LayerCase(
        "HingeLoss/l1",
        'type: "HingeLoss"',
        [(5, 3), (5,)],
        oracle.hinge_loss,
        domain=[normal, LABELS],
        wrt=["bottom0"],
    ),
    LayerCase(
        "HingeLoss/l2",
        'type: "HingeLoss" hinge_loss_param { norm: L2 }',
        [(4, 3, 1, 1), (4, 1)],
        partial(oracle.hinge_loss, power=2),
        domain=[normal, LABELS],
        wrt=["bottom0"],
    ),
    LayerCase(
        "InfogainLoss/axis_and_top",
        f"{INFOGAIN} infogain_loss_param {{ axis: -1 }}",
        [(2, 4, 3), (2, 4), (1, 1, 3, 3)],
        partial(oracle.infogain_loss, axis=-1),
        domain=SCORED,
        wrt=["bottom0"],
        tops=2,
    ),
    LayerCase(
        "InfogainLoss/full",
        f"{INFOGAIN} loss_param {{ normalization: FULL }}",
        [(2, 3, 4), (2, 4), (3, 3)],
        lambda *bottoms: oracle.infogain_loss(*bottoms, full=True)[0],
        domain=SCORED,
        wrt=["bottom0"],
    ),
    LayerCase(
        "InfogainLoss/ignore_label",
        f"{INFOGAIN} loss_param {{ ignore_label: 1 }}",
        [(6, 3), (6,), (1, 1, 3, 3)],
        lambda *bottoms: oracle.infogain_loss(*bottoms, ignore=1)[0],
        domain=SCORED,
        wrt=["bottom0"],
    ),
    LayerCase(
        "MultinomialLogisticLoss/default",
        'type: "MultinomialLogisticLoss"',
        [(5, 3), (5,)],
        oracle.multinomial_logistic_loss,
        domain=[positive, LABELS],
        wrt=["bottom0"],
    ),
)
