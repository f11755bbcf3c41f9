"""Learning-rate policies and update rules."""

from kdnet.solvers.plateau import Plateau
from kdnet.solvers.policies import learning_rate, policy_names, steps_taken
from kdnet.solvers.rules import SOLVER, numbers_of, solver_names, transforms_of
from kdnet.solvers.schedules import Schedule, curve_names, schedules_of
from kdnet.solvers.transforms import Inputs, Leaf, Transform, apply_chain

__all__ = [
    "SOLVER",
    "Inputs",
    "Leaf",
    "Plateau",
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
]
