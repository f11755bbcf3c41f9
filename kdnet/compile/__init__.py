"""NetModel + SolverModel -> the step, gradient, update and evaluation graphs."""

from kdnet.compile.evaluation import Evaluation, compile_evaluation
from kdnet.compile.forward import Forward, trace_forward
from kdnet.compile.program import Program, Report, StateSlot, WeightSlot
from kdnet.compile.standalone import standalone, write_training
from kdnet.compile.training import Training, compile_training

__all__ = [
    "Evaluation",
    "Forward",
    "Program",
    "Report",
    "StateSlot",
    "Training",
    "WeightSlot",
    "compile_evaluation",
    "compile_training",
    "standalone",
    "trace_forward",
    "write_training",
]
