"""The teacher-to-student table: what each net weighs, costs, takes and knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from kdnet.runtime.export.measure import Latency

HEADINGS = (
    "net",
    "part",
    "parameters",
    "MACs",
    "FLOPs",
    "caffemodel",
    "onnx",
    "latency ms",
    "top-1",
)
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
NONE = "-"


@dataclass(frozen=True)
class Row:
    """One net. Numbers are of one item; sizes in bytes; None is what could not be measured."""

    net: str
    part: str
    parameters: int
    macs: int | None
    flops: int | None
    caffemodel_bytes: int
    onnx_bytes: int | None
    latency: Latency | None
    top1: float | None


@dataclass(frozen=True)
class Table:
    """The rows, teachers first, and how they were measured."""

    rows: tuple[Row, ...]
    device: str
    batch: int
    runs: int
    items: int

    def text(self) -> str:
        """Columns, a line of ratios for each pair of student and teacher, and what is what."""
        cells = [HEADINGS, *map(_cells, self.rows), *map(_ratio_cells, self.pairs())]
        widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
        lines = []
        for line in cells:
            left = [text.ljust(width) for text, width in zip(line[:2], widths[:2], strict=True)]
            right = [text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True)]
            lines.append("  ".join([*left, *right]).rstrip())
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> Iterator[str]:
        yield "MACs and FLOPs of one item; caffemodel and onnx in bytes"
        yield (
            f"latency: median (10th to 90th percentile) of {self.runs} runs at batch {self.batch} "
            f"on {self.device}"
        )
        if self.items:
            yield f"top-1: of {self.items:,} TEST items"

    def pairs(self) -> list[tuple[Row, Row]]:
        """Each student with each teacher."""
        students = [row for row in self.rows if row.part == "student"]
        teachers = [row for row in self.rows if row.part == "teacher"]
        return [(student, teacher) for student in students for teacher in teachers]

    def as_json(self) -> dict[str, object]:
        """The rows as they are, and the ratios by quantity."""
        return {
            "nets": [asdict(row) for row in self.rows],
            "ratios": [
                {"student": student.net, "teacher": teacher.net, **ratios(student, teacher)}
                for student, teacher in self.pairs()
            ],
            "device": self.device,
            "batch": self.batch,
            "runs": self.runs,
            "items": self.items,
        }


def ratios(student: Row, teacher: Row) -> dict[str, float | None]:
    """Student divided by teacher, for each quantity that both have."""
    both = zip(_quantities(student).items(), _quantities(teacher).values(), strict=True)
    return {
        name: own / other if own is not None and other else None for (name, own), other in both
    }


def _quantities(row: Row) -> dict[str, float | None]:
    return {
        "parameters": row.parameters,
        "macs": row.macs,
        "flops": row.flops,
        "caffemodel_bytes": row.caffemodel_bytes,
        "onnx_bytes": row.onnx_bytes,
        "latency": row.latency.median_ms if row.latency else None,
        "top1": row.top1,
    }


def _cells(row: Row) -> tuple[str, ...]:
    latency = row.latency
    return (
        row.net,
        row.part,
        f"{row.parameters:,}",
        _scaled(row.macs),
        _scaled(row.flops),
        f"{row.caffemodel_bytes:,}",
        NONE if row.onnx_bytes is None else f"{row.onnx_bytes:,}",
        f"{latency.median_ms:.3f} ({latency.low_ms:.3f}-{latency.high_ms:.3f})"
        if latency
        else NONE,
        NONE if row.top1 is None else f"{row.top1:.4f}",
    )


def _ratio_cells(pair: Sequence[Row]) -> tuple[str, ...]:
    student, teacher = pair
    found = [
        NONE if ratio is None else f"{ratio:.4f}" for ratio in ratios(student, teacher).values()
    ]
    return (f"{student.net} / {teacher.net}", "ratio", *found)


def _scaled(count: int | None) -> str:
    """A count with a letter for thousands, millions and so on."""
    if count is None:
        return NONE
    for unit, letter in UNITS:
        if count >= unit:
            return f"{count / unit:.3f}{letter}"
    return str(count)
