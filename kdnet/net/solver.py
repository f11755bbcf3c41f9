"""The model of a solver file: which net it names, and where it is found beside a net."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kdnet.errors import Diagnostic, NetError, SchemaError, Span, fail
from kdnet.schema import Located, SourceMap, read_net, read_solver
from kdnet.schema import kdnet_pb2 as pb

NET_FIELDS = ("net", "net_param", "train_net", "train_net_param")


@dataclass(frozen=True)
class SolverModel:
    """A solver's message, its positions, and the path it was read from ("" for none)."""

    message: pb.SolverParameter
    source: SourceMap
    path: str = ""

    def span(self, field: str, index: int | None = None) -> Span | None:
        """Where a field stands."""
        return self.source.span((field,) if index is None else (field, index))


def load_solver(path: str) -> SolverModel:
    """Read a solver file."""
    located = read_solver(path)
    return SolverModel(located.message, located.source, path)


def find_path(named: str, beside: str) -> str:
    """A path named in a file: as given from the working directory, else from the file's folder."""
    if Path(named).exists() or not beside:
        return named
    candidate = Path(beside).parent / named
    return str(candidate) if candidate.exists() else named


def train_net_of(solver: SolverModel) -> Located[pb.NetParameter]:
    """The net that the solver trains.

    Raises:
        NetError: solver-net-count, unless exactly one of net, net_param, train_net and
            train_net_param is given (Caffe's rule).
    """
    given = [name for name in NET_FIELDS if solver.message.HasField(name)]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        text = (
            f"a solver names its train net once, by one of {', '.join(NET_FIELDS)}; found: {found}"
        )
        at = solver.span(given[1]) if len(given) > 1 else solver.source.span(())
        fail(NetError, "solver-net-count", text, span=at)
    return _net_in(solver, given[0])


def test_nets_of(solver: SolverModel) -> list[Located[pb.NetParameter]]:
    """The nets that the solver tests, in Caffe's order: test_net_param, test_net, then net."""
    message = solver.message
    found = [
        Located(param, solver.source.at(("test_net_param", index)))
        for index, param in enumerate(message.test_net_param)
    ]
    for index, named in enumerate(message.test_net):
        found.append(_read_named(solver, named, solver.span("test_net", index)))
    shared = [name for name in ("net", "net_param") if message.HasField(name)]
    remaining = len(message.test_iter) - len(found)
    if shared and remaining > 0:
        found += [_net_in(solver, shared[0])] * remaining
    return found


def _net_in(solver: SolverModel, field: str) -> Located[pb.NetParameter]:
    value = getattr(solver.message, field)
    if isinstance(value, pb.NetParameter):
        return Located(value, solver.source.at((field,)))
    return _read_named(solver, value, solver.span(field))


def _read_named(solver: SolverModel, named: str, span: Span | None) -> Located[pb.NetParameter]:
    path = find_path(named, solver.path)
    if not Path(path).is_file():
        text = f'the solver names a net that is not there: "{named}"'
        fail(NetError, "missing-net", text, span=span, help=_where(named, solver.path))
    return read_net(path)


def _where(named: str, solver_path: str | None) -> tuple[str, ...]:
    """Where a net that is not found may be meant to lie, seen from the folder of its solver."""
    if not solver_path:
        return ()
    folder = Path(solver_path).resolve().parent
    for root in folder.parents:
        if (root / named).is_file():
            return (f'it is in "{root}": run kdnet there',)
    beside = folder / Path(named).name
    if beside.is_file():
        return (f'"{beside.name}" lies beside the solver: write net: "{beside.name}"',)
    return ("a path is looked for here, then in the folder of the solver",)


def names_net(solver_path: Path, net_path: Path) -> bool:
    """Whether a solver file names this net.

    Raises:
        SchemaError: the file has faults, but its text names the net: to pass it over would train
            with other settings than those that were written down.
    """
    try:
        solver = load_solver(str(solver_path))
    except SchemaError:
        if _mentions(solver_path, net_path.name):
            raise
        return False
    named = [solver.message.net, solver.message.train_net]
    return any(name and _is_meant(name, solver_path, net_path) for name in named)


def _is_meant(named: str, solver_path: Path, net_path: Path) -> bool:
    """Whether a path in a solver is the net's: as it is found, else as from a folder above."""
    found, net = Path(find_path(named, str(solver_path))), net_path.resolve()
    if found.is_file():
        return found.resolve() == net
    parts = Path(named).parts
    return len(parts) > 1 and net.parts[-len(parts) :] == parts


def _mentions(path: Path, name: str) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(rf"[\"'/]{re.escape(name)}[\"']", text) is not None


def solver_beside(net_path: str) -> str | None:
    """The solver that belongs to a net file: ``<stem>_solver.prototxt``, else the one naming it.

    Raises:
        NetError: ambiguous-solver, when two files of the folder name the net.
        SchemaError: the faults of a file that names the net and cannot be read.
    """
    net = Path(net_path)
    own = net.with_name(f"{net.stem}_solver.prototxt")
    if own.is_file():
        return str(own)
    candidates = sorted(
        path
        for path in net.parent.glob("*solver*.prototxt")
        if path != net and path.is_file() and names_net(path, net)
    )
    if len(candidates) > 1:
        listed = ", ".join(f'"{path}"' for path in candidates)
        fault = Diagnostic(
            "ambiguous-solver",
            f'more than one solver in the folder names "{net_path}": {listed}',
            help=("choose one with --solver",),
        )
        raise NetError(fault)
    return str(candidates[0]) if candidates else None


def solver_for_net(net_path: str) -> SolverModel:
    """kdnet's stated defaults for a net without a solver: SGD, the values of Caffe's LeNet."""
    message = pb.SolverParameter(
        net=net_path,
        base_lr=0.01,
        lr_policy="inv",
        gamma=0.0001,
        power=0.75,
        momentum=0.9,
        weight_decay=0.0005,
        max_iter=1000,
        display=100,
    )
    return SolverModel(message, SourceMap.empty())
