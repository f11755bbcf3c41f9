"""Learning-rate policies and update rules."""

from kdnet.solvers.policies import learning_rate, policy_names
from kdnet.solvers.rules import solver_names, transforms_of
from kdnet.solvers.schedules import Schedule, curve_names, schedules_of
from kdnet.solvers.transforms import Leaf, Transform, apply_chain

__all__ = [
    "Leaf",
    "Schedule",
    "Transform",
    "apply_chain",
    "curve_names",
    "learning_rate",
    "policy_names",
    "schedules_of",
    "solver_names",
    "transforms_of",
]
