"""Renaming the layers of weight files without touching their numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kdnet.errors import WeightsError
from kdnet.net.rename import Mapping as Rules
from kdnet.net.rename import Pair, make_mapping
from kdnet.weights import LayerBlobs
from weights_tools.writing import Output, layer_names, write_selected

Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Plan:
    """The new name of every layer of a file, None for one that is left out, and what that means.

    ``left_out`` are layers whose new name another layer has.
    """

    names: tuple[str | None, ...]
    made: Renames
    left_out: tuple[str, ...] = ()


def plan_renames(names: Sequence[str], rules: Rules, *, allow_collision: bool = False) -> Plan:
    """Decide what each layer is called.

    With ``allow_collision``, of several layers that would get one name the one that a pair names
    stays, else the first, and the others are left out. Layers that have one name already are not
    told apart.

    Raises:
        WeightsError: ``unmatched-mapping`` or ``rename-collision``.
    """
    if not allow_collision:
        renamed = rules.resolve(names)
        return Plan(tuple(renamed[name] for name in names), _made(renamed))
    faults = rules.unmatched(names) if rules.strict else []
    if faults:
        raise WeightsError(*faults)
    paired = {pair.old for pair in rules.pairs}
    renamed = {name: rules.rename(name) for name in names}
    owners: dict[str, str] = {}
    for name in sorted(renamed, key=lambda name: name not in paired):
        owners.setdefault(renamed[name], name)
    kept = {old: new for old, new in renamed.items() if owners[new] == old}
    # A layer without a name would load nowhere: that is never meant.
    replace(rules, strict=False).resolve(list(kept))
    left_out = tuple(name for name in renamed if name not in kept)
    return Plan(tuple(kept.get(name) for name in names), _made(kept), left_out)


def _made(renamed: Mapping[str, str]) -> Renames:
    return tuple((old, new) for old, new in renamed.items() if old != new)


def rename_layers(
    layers: Sequence[LayerBlobs], mapping: Rules
) -> tuple[tuple[LayerBlobs, ...], Renames]:
    """The layers under their new names, and each rename that was made.

    Raises:
        WeightsError: ``unmatched-mapping`` or ``rename-collision``.
    """
    renamed = mapping.resolve([layer.name for layer in layers])
    return tuple(replace(layer, name=renamed[layer.name]) for layer in layers), _made(renamed)


def rename(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    mapping: Rules | Mapping[str, str],
) -> Renames:
    """Write ``source`` to ``destination`` with its layers renamed; return the renames made.

    A ``.caffemodel`` of any generation is copied byte for byte but for the names and the lengths
    around them; memory use does not grow with the file. The ending of ``destination`` says
    whether another format is written; one that is no format's means a ``.caffemodel``.
    ``source`` and ``destination`` may be the same file.

    Args:
        source: A weight file of any format.
        destination: The file to write; it may be ``source``.
        mapping: New names by old ones, or rules of :func:`make_mapping`.

    Raises:
        WeightsError: The faults of reading, writing and of :meth:`Mapping.resolve`.
    """
    if isinstance(mapping, Mapping):
        mapping = make_mapping(Pair(old, new) for old, new in mapping.items())
    path = os.fspath(source)
    plan = plan_renames(layer_names(path), mapping)
    write_selected(path, plan.names, Output(os.fspath(destination)))
    return plan.made


rename_file = rename
