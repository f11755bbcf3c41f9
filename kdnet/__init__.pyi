from typing import Final

from kdnet import errors as errors
from kdnet import io as io
from kdnet import layers as layers
from kdnet import proto as proto
from kdnet.api.classifier import Classifier as Classifier
from kdnet.api.mode import set_device as set_device
from kdnet.api.mode import set_mode_cpu as set_mode_cpu
from kdnet.api.mode import set_mode_gpu as set_mode_gpu
from kdnet.api.mode import set_random_seed as set_random_seed
from kdnet.api.net import Net as Net
from kdnet.api.solver import AdaDeltaSolver as AdaDeltaSolver
from kdnet.api.solver import AdaGradSolver as AdaGradSolver
from kdnet.api.solver import AdamSolver as AdamSolver
from kdnet.api.solver import NesterovSolver as NesterovSolver
from kdnet.api.solver import RMSPropSolver as RMSPropSolver
from kdnet.api.solver import SGDSolver as SGDSolver
from kdnet.api.solver import Solver as Solver
from kdnet.api.solver import get_solver as get_solver
from kdnet.layers.python import Layer as Layer
from kdnet.layers.spec import NetSpec as NetSpec
from kdnet.layers.spec import layer_type_list as layer_type_list
from kdnet.layers.spec import params as params
from kdnet.layers.spec import to_proto as to_proto

__version__: Final[str]
TRAIN: Final = 0
TEST: Final = 1
