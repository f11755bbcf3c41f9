"""Reads ONNX Runtime's profile: how long each node of each run took."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KERNEL = "_kernel_time"


@dataclass
class ProfiledRun:
    """One run of a session; times in microseconds.

    Attributes:
        start: when it began, on the profile's clock.
        duration: how long it took.
        nodes: the time of each node, by name and op type.
    """

    start: int
    duration: int
    nodes: dict[tuple[str, str], int] = field(default_factory=dict)


def read_profile(path: Path) -> list[ProfiledRun]:
    """The runs of a profile, in order."""
    return runs_of(json.loads(path.read_text(encoding="utf-8")))


def runs_of(events: Iterable[Mapping[str, Any]]) -> list[ProfiledRun]:
    """The runs that the events of a profile are of; what lies outside of a run is left out."""
    # The file ends with an empty object.
    seen = [event for event in events if "ts" in event]
    runs = [
        ProfiledRun(event["ts"], event["dur"]) for event in seen if event["name"] == "model_run"
    ]
    runs.sort(key=lambda run: run.start)
    starts = [run.start for run in runs]
    for event in _outermost(seen):
        index = bisect_right(starts, event["ts"]) - 1
        if index >= 0 and event["ts"] <= runs[index].start + runs[index].duration:
            key = (event["name"].removesuffix(KERNEL), event["args"]["op_name"])
            runs[index].nodes[key] = runs[index].nodes.get(key, 0) + event["dur"]
    return runs


def _outermost(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The events of nodes, without those inside a loop's body: the loop's own time has them."""
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith(KERNEL)]
    end = -1
    for event in sorted(nodes, key=lambda event: (event["ts"], -event["dur"])):
        ends = event["ts"] + event["dur"]
        if event["ts"] >= end or ends > end:
            end = ends
            yield event


def mean_nodes(runs: Iterable[ProfiledRun]) -> dict[tuple[str, str], float]:
    """The mean time of each node over the runs, by name and op type."""
    found = list(runs)
    sums: dict[tuple[str, str], float] = {}
    for run in found:
        for key, time in run.nodes.items():
            sums[key] = sums.get(key, 0.0) + time
    return {key: total / len(found) for key, total in sums.items()}
