"""Learning-rate policies and update rules."""

from kdnet.solvers.plateau import Plateau
from kdnet.solvers.policies import (
    PLATEAU,
    learning_rate,
    policy_names,
    steps_taken,
    warmup_of,
)
from kdnet.solvers.rules import SOLVER, numbers_of, solver_names, transforms_of
from kdnet.solvers.schedules import Schedule, curve_names, schedules_of
from kdnet.solvers.transforms import Inputs, Leaf, Remember, Transform, apply_chain

__all__ = [
    "PLATEAU",
    "SOLVER",
    "Inputs",
    "Leaf",
    "Plateau",
    "Remember",
    "Schedule",
    "Transform",
    "apply_chain",
    "curve_names",
    "learning_rate",
    "numbers_of",
    "policy_names",
    "schedules_of",
    "solver_names",
    "steps_taken",
    "transforms_of",
    "warmup_of",
]
