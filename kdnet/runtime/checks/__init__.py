"""``kdnet check``: what is legal but likely wrong in a net, one module a finding."""

from kdnet.runtime.checks.registry import check_codes
from kdnet.runtime.checks.run import CheckOptions, Findings, check_training

__all__ = ["CheckOptions", "Findings", "check_codes", "check_training"]
