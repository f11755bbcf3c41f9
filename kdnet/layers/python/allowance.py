"""Whether nets may run code of their own, where it lies, and which of it runs already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdnet.layers.python.hosted import HostedLayer

# The layers of a program's nets, each by the identity of its message.
Instances = dict[int, "HostedLayer"]


@dataclass(frozen=True)
class Allowance:
    """What a block of :func:`allowed_python` allows.

    Attributes:
        folders: where modules are sought, after the net's own folder.
        instances: layers that live on from one trace of their net to the next; None where each
            trace makes its own.
    """

    folders: tuple[str, ...]
    instances: Instances | None


_ALLOWANCE: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


@contextmanager
def allowed_python(*folders: str, instances: Instances | None = None) -> Iterator[None]:
    """While the block runs, nets may hold Python layers.

    Their modules are sought beside the net, then in ``folders``, then where Python itself looks,
    PYTHONPATH among it.

    Args:
        folders: where modules are sought.
        instances: layers that were made in an earlier block, and are to be used again.
    """
    places = tuple(os.path.abspath(folder) for folder in folders)
    token = _ALLOWANCE.set(Allowance(places, instances))
    try:
        yield
    finally:
        _ALLOWANCE.reset(token)


def current_allowance() -> Allowance | None:
    """What the block around allows; None outside of any."""
    return _ALLOWANCE.get()
