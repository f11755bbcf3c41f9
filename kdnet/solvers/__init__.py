"""Learning-rate policies and update rules."""

from kdnet.solvers.policies import learning_rate, policy_names
from kdnet.solvers.rules import solver_names, transforms_of
from kdnet.solvers.transforms import Leaf, Transform, apply_chain

__all__ = [
    "Leaf",
    "Transform",
    "apply_chain",
    "learning_rate",
    "policy_names",
    "solver_names",
    "transforms_of",
]
