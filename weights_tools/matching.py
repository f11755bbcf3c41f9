"""Which layer of a file belongs to which layer of a net: by order, shapes and likeness of names.

Two guesses are made, and the better one is taken. In order: a file that a framework wrote has its
layers in the order of the net, so the matches may not cross; among those that do not, as many
layers as possible are matched, and of names the likest. By name: the likest pairs first, whatever
their order, for files that are sorted by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdnet.errors import WeightsError, fail
from kdnet.weights import Target
from kdnet.weights.audit import same_shape
from weights_tools.parameters import LayerInfo

# Pairs of layers that are compared at most: a second or so.
MOST_PAIRS = 4_000_000
# A match counts this much more than any likeness of names does.
_MATCH = 2.0
# What a frozen layer counts more: it is the one that needs a file.
_FROZEN = 0.25
# How much liker, on average, the names must be for the order not to count.
_CLEARLY = 0.2
NEAR = 0.5


@dataclass(frozen=True)
class Match:
    """A layer of the file, the net's layer that it fits, and the likeness of their names."""

    layer: LayerInfo
    target: Target
    likeness: float


@dataclass(frozen=True)
class Matches:
    """What was matched, ``how`` (in order, or by name), and what of the net was not."""

    found: tuple[Match, ...]
    how: str
    unmatched: tuple[Target, ...]


def fits(layer: LayerInfo, target: Target) -> bool:
    """Whether a layer's blobs have the shapes that the net's layer takes."""
    return len(layer.shapes) == len(target.shapes) and all(
        same_shape(stored, wanted)
        for stored, wanted in zip(layer.shapes, target.shapes, strict=True)
    )


class Name:
    """A layer's name taken apart, so that comparing it with many others is quick."""

    def __init__(self, text: str) -> None:
        folded = text.lower()
        letters = re.sub(r"[^a-z]+", " ", folded).split()
        padded = f" {' '.join(letters)} "
        self.pairs = frozenset(padded[i : i + 2] for i in range(len(padded) - 1))
        self.numbers = tuple(map(int, re.findall(r"\d{1,9}", folded)))
        self.text = folded

    def likeness(self, other: Name) -> float:
        """0 to 1: half for pairs of letters in common, half for the numbers in the names."""
        if self.text == other.text:
            return 1.0
        common = 2 * len(self.pairs & other.pairs) / (len(self.pairs) + len(other.pairs))
        return 0.5 * common + 0.5 * _number_likeness(self.numbers, other.numbers)


def _number_likeness(ours: tuple[int, ...], theirs: tuple[int, ...]) -> float:
    """1 for the same numbers; less for the same last ones, which tell layers of a block apart."""
    if ours == theirs:
        return 1.0
    same = 0
    for mine, other in zip(reversed(ours), reversed(theirs), strict=False):
        if mine != other:
            break
        same += 1
    return same / max(len(ours), len(theirs))


def match_layers(layers: Sequence[LayerInfo], targets: Sequence[Target]) -> Matches:
    """Match a file's layers with a net's, each at most once, only where the shapes fit.

    Raises:
        WeightsError: ``no-match``, or ``too-many-layers`` to compare.
    """
    scores = _scores(layers, targets)
    best, how = _better(_in_order(scores, len(targets)), _by_name(scores), scores)
    if not best:
        fail(WeightsError, "no-match", "no layer of the file has the shapes of one of the net's")
    found = tuple(
        Match(layers[i], targets[j], _plain(layers[i], targets[j])) for i, j in sorted(best)
    )
    taken = {j for _, j in best}
    return Matches(found, how, tuple(t for j, t in enumerate(targets) if j not in taken))


Scores = dict[int, dict[int, float]]
Pairs = list[tuple[int, int]]


def _plain(layer: LayerInfo, target: Target) -> float:
    return Name(layer.name).likeness(Name(target.layer))


def _scores(layers: Sequence[LayerInfo], targets: Sequence[Target]) -> Scores:
    """The worth of each pair that fits, by the layer's index and the target's."""
    kept = [(index, layer) for index, layer in enumerate(layers) if layer.shapes]
    if len(kept) * len(targets) > MOST_PAIRS:
        text = (
            f"{len(kept)} layers of the file and {len(targets)} of the net are too many to match"
        )
        fail(WeightsError, "too-many-layers", text, help=("name them with --map or --regex",))
    wanted = [(Name(target.layer), target) for target in targets]
    found: Scores = {}
    for index, layer in kept:
        name = Name(layer.name)
        fitting = {
            j: _MATCH + name.likeness(other) + _FROZEN * target.needs_file
            for j, (other, target) in enumerate(wanted)
            if fits(layer, target)
        }
        if fitting:
            found[index] = fitting
    return found


def _better(ordered: Pairs, named: Pairs, scores: Scores) -> tuple[Pairs, str]:
    """More matches are better; of as many, those in order unless their names are much less like.

    Greedy pairs by name always look a little liker: that alone says nothing.
    """
    gain = sum(scores[i][j] for i, j in named) - sum(scores[i][j] for i, j in ordered)
    clearer = gain > _CLEARLY * len(named)
    if len(named) > len(ordered) or (len(named) == len(ordered) and clearer):
        return named, "by name"
    return ordered, "in order"


def _in_order(scores: Scores, width: int) -> Pairs:
    """The matches of greatest worth of which none crosses another (a weighted alignment)."""
    rows = sorted(scores)
    best = [0.0] * (width + 1)
    taken: list[bytearray] = []
    for index in rows:
        fitting, row, marks = scores[index], [0.0], bytearray(width + 1)
        for j in range(width):
            above, beside = best[j + 1], row[j]
            both = best[j] + fitting[j] if j in fitting else -1.0
            marks[j + 1] = 2 if both > max(above, beside) else int(beside > above)
            row.append(max(above, beside, both))
        taken.append(marks)
        best = row
    return _traced_back(rows, taken, width)


def _traced_back(rows: list[int], taken: list[bytearray], width: int) -> Pairs:
    found: Pairs = []
    i, j = len(rows), width
    while i and j:
        step = taken[i - 1][j]
        if step == 2:
            found.append((rows[i - 1], j - 1))
        i -= step != 1
        j -= step != 0
    return found


def _by_name(scores: Scores) -> Pairs:
    """The likest pairs first, each layer once."""
    every = [(score, -i, -j) for i, fitting in scores.items() for j, score in fitting.items()]
    found: Pairs = []
    used: set[int] = set()
    reached: set[int] = set()
    for _, i, j in sorted(every, reverse=True):
        if -i not in used and -j not in reached:
            found.append((-i, -j))
            used.add(-i)
            reached.add(-j)
    return found


def near_misses(
    targets: Sequence[Target], spare: Sequence[LayerInfo]
) -> list[tuple[Target, LayerInfo, bool]]:
    """Layers of a file that a net's unfilled layers may have meant, likest first, three at most.

    Each comes with whether its shapes fit; a layer that fits counts whatever it is called. There
    are none where comparing every name would take long.
    """
    if len(targets) * len(spare) > MOST_PAIRS:
        return []
    names = [(Name(layer.name), layer) for layer in spare]
    found = []
    for target in targets:
        wanted = Name(target.layer)
        ranked = [(fits(layer, target), wanted.likeness(name), layer) for name, layer in names]
        near = [one for one in ranked if one[0] or one[1] >= NEAR]
        near.sort(key=lambda one: (-one[0], -one[1]))
        found += [(target, layer, fitting) for fitting, _, layer in near[:3]]
    return found
