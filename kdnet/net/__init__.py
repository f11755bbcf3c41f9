"""The model of a net: which layers a phase has, and how their blobs are joined."""

from typing import TYPE_CHECKING

from kdnet.lazily import offered

if TYPE_CHECKING:
    from kdnet.net.flow import feeders, last_makers, needed, upstream
    from kdnet.net.model import LayerModel, NetModel, ParamModel
    from kdnet.net.solver import (
        SolverModel,
        find_path,
        load_solver,
        solver_beside,
        solver_for_net,
        test_nets_of,
        train_net_of,
    )
    from kdnet.net.state import NetState
    from kdnet.net.wiring import resolve_net
else:
    __getattr__, __dir__ = offered(__name__)

__all__ = [
    "LayerModel",
    "NetModel",
    "NetState",
    "ParamModel",
    "SolverModel",
    "feeders",
    "find_path",
    "last_makers",
    "load_solver",
    "needed",
    "resolve_net",
    "solver_beside",
    "solver_for_net",
    "test_nets_of",
    "train_net_of",
    "upstream",
]
