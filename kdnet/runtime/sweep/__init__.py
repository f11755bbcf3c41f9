"""``kdnet sweep``: a grid of settings as students side by side in one graph."""

from kdnet.runtime.sweep.run import SweepOptions, SweepOutcome, reports_of, run_sweep

__all__ = ["SweepOptions", "SweepOutcome", "reports_of", "run_sweep"]
