"""Renames that make a file fit a net: found by matching, shown, and agreed to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdnet.errors import Diagnostic, UsageError, WeightsError, fail
from kdnet.net.rename import Mapping, Pair
from kdnet.weights import Target
from weights_tools.matching import Match, Matches, fits, match_layers
from weights_tools.nets import NetChoice, net_targets
from weights_tools.parameters import LayerInfo, Weights
from weights_tools.tables import Row, table


@dataclass(frozen=True)
class Proposal:
    """The matches of a file with a net, and the rules that they come to."""

    file: str
    net: str
    matches: Matches
    rules: Mapping
    left: tuple[LayerInfo, ...]

    def text(self) -> str:
        """A row a match, then what is left on either side."""
        head: Row = ("layer", "to", "shapes", "names alike")
        rows = [head, *map(_row, self.matches.found)]
        count = len(self.matches.found)
        lines = [
            table(rows, right=(3,)),
            f'matched {count} layers of "{self.file}" with those of "{self.net}", '
            f"{self.matches.how}",
        ]
        if self.left:
            lines.append(f"not matched in the file: {_names(self.left)}")
        if self.matches.unmatched:
            names = ", ".join(target.layer for target in self.matches.unmatched)
            lines.append(f"not matched in the net: {names}")
        return "\n".join(lines)


def _row(match: Match) -> Row:
    shapes = " ".join("x".join(map(str, shape)) or "scalar" for shape in match.target.shapes)
    return (match.layer.name, match.target.layer, shapes, f"{100 * match.likeness:.0f} %")


def _names(layers: Sequence[LayerInfo]) -> str:
    return ", ".join(layer.name for layer in layers)


def propose(path: str, choice: NetChoice, rules: Mapping) -> Proposal:
    """Match what the rules leave unsettled with what they leave of the net.

    Raises:
        KdnetError: the faults of the file and of the net; ``no-match``.
    """
    layers = list(Weights(path).by_layer.values())
    targets = net_targets(choice)
    settled = {pair.old: pair.new for pair in rules.pairs}
    taken = set(settled.values())
    free = [layer for layer in layers if layer.name not in settled]
    open_targets = [target for target in targets if target.layer not in taken]
    called = [replace(layer, name=rules.rename(layer.name)) for layer in free]
    matches = match_layers(called, open_targets)
    originals = {new.name: old for new, old in zip(called, free, strict=True)}
    found = tuple(replace(m, layer=originals[m.layer.name]) for m in matches.found)
    pairs = tuple(Pair(match.layer.name, match.target.layer) for match in found)
    matched = {match.layer.name for match in found}
    return Proposal(
        path,
        choice.path,
        replace(matches, found=found),
        replace(rules, pairs=(*rules.pairs, *pairs)),
        tuple(layer for layer in free if layer.name not in matched),
    )


def confirm(*, yes: bool) -> None:
    """Ask on a terminal whether what was shown shall be done.

    Raises:
        UsageError: ``not-confirmed``, by the answer or for want of a terminal.
    """
    if yes:
        return
    hint = ("--yes takes the matches as they are; --map OLD=NEW settles a layer by hand",)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        fail(UsageError, "not-confirmed", "nothing was written: nobody agreed", help=hint)
    sys.stderr.write("rename so? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail(UsageError, "not-confirmed", "nothing was written", help=hint)


def check_fit(path: str, names: Sequence[str | None], choice: NetChoice) -> None:
    """Refuse new names of layers whose shapes the net's layers of those names do not take.

    Raises:
        WeightsError: ``shape-change``, one for each layer.
    """
    targets = {target.layer: target for target in net_targets(choice)}
    faults = [
        _misfit(layer, targets[name], choice.path)
        for layer, name in zip(Weights(path).layers, names, strict=True)
        if name in targets and layer.shapes and not fits(layer, targets[name])
    ]
    if faults:
        raise WeightsError(*faults)


def _misfit(layer: LayerInfo, target: Target, net: str) -> Diagnostic:
    ours, theirs = (", ".join(map(str, found.shapes)) for found in (layer, target))
    return Diagnostic(
        "shape-change",
        f'layer "{layer.name}" of shapes {ours} would be "{target.layer}", '
        f'which takes {theirs} in "{net}"',
        target.span,
        help=("--allow-shape-change renames it all the same",),
    )
