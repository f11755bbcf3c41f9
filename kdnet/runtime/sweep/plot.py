"""The plot of a sweep as an SVG: scores by iteration, and final scores by the first variable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from colorsys import hls_to_rgb
from dataclasses import dataclass
from xml.sax.saxutils import escape

from kdnet.runtime.sweep.grid import Grid, Setting
from kdnet.runtime.sweep.results import Results, summarise
from kdnet.runtime.sweep.values import decimal_of

WIDTH, HEIGHT, MARGIN, GAP = 460, 320, 56, 24
LEGEND_LINES = 24
TICKS, ROOM = 5, 0.03
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Line:
    """A named polyline; the third number of a point is half its error bar, nan for none."""

    name: str
    points: Sequence[Point]


def draw(results: Results, grid: Grid, report: str) -> str:
    """Two panels: ``report`` by iteration, one line a combination of values; and at the end.

    The second has the first variable with several values across, with the standard deviation over
    seeds as error bars.
    """
    curves, ends, across = (
        _curves(results, grid, report),
        _ends(results, grid, report),
        _across(grid),
    )
    legend = 14 * (min(len(curves), LEGEND_LINES) + 2)
    height = max(HEIGHT + 2 * MARGIN, legend + 2 * MARGIN)
    total = 2 * (WIDTH + MARGIN + GAP) + 220
    left = _panel(curves, MARGIN, ("iteration", report))
    second = 2 * MARGIN + GAP + WIDTH
    name = grid.variables[across].name if grid.variables else "setting"
    right = _panel(ends, second, (name, f"{report} at the end"), bars=True)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" '
            'font-family="sans-serif" font-size="11">',
            f'<rect width="{total}" height="{height}" fill="white"/>',
            *left,
            *right,
            *_legend([curve.name for curve in curves], second + WIDTH + GAP, MARGIN),
            *_legend([line.name for line in ends if line.name], second + 8, MARGIN + 8),
            "</svg>\n",
        ]
    )


def _across(grid: Grid) -> int:
    """The first variable that varies."""
    several = (i for i, variable in enumerate(grid.variables) if len(variable.values) > 1)
    return next(several, 0)


def _combinations(grid: Grid) -> dict[tuple[str, ...], list[Setting]]:
    found: dict[tuple[str, ...], list[Setting]] = {}
    for setting in grid.settings:
        found.setdefault(setting.values, []).append(setting)
    return found


def _name(grid: Grid, values: Sequence[str], without: int | None = None) -> str:
    named = [
        f"{variable.name}={value}"
        for index, (variable, value) in enumerate(zip(grid.variables, values, strict=True))
        if len(variable.values) > 1 and index != without
    ]
    return ", ".join(named) or ("all" if without is None else "")


def _curves(results: Results, grid: Grid, report: str) -> list[Line]:
    """Means over seeds by iteration."""
    lines = []
    for values, settings in _combinations(grid).items():
        by_iteration: dict[int, list[float]] = {}
        for setting in settings:
            for row in results.rows[setting.key]:
                by_iteration.setdefault(row.iteration, []).append(row.scores.get(report, math.nan))
        points = []
        for iteration, scores in sorted(by_iteration.items()):
            finite = [score for score in scores if math.isfinite(score)]
            if finite:
                points.append((float(iteration), sum(finite) / len(finite), math.nan))
        lines.append(Line(_name(grid, values), points))
    return lines


def _ends(results: Results, grid: Grid, report: str) -> list[Line]:
    """Final means by the value across, one line a combination of the other variables."""
    across = _across(grid)
    places = (
        _places([value.text for value in grid.variables[across].values]) if grid.variables else {}
    )
    found: dict[str, list[Point]] = {}
    for summary in summarise(results, grid.settings):
        mean = summary.mean.get(report, math.nan)
        name = _name(grid, summary.values, across)
        place = places[summary.values[across]] if summary.values else 0.0
        points = found.setdefault(name, [])
        if math.isfinite(mean):
            points.append((place, mean, summary.spread[report]))
    return [Line(name, sorted(points)) for name, points in found.items()]


def _places(texts: Sequence[str]) -> Mapping[str, float]:
    """Numbers at their value, anything else one after another."""
    numbers = [decimal_of(text) for text in texts]
    if None in numbers:
        return {text: float(index) for index, text in enumerate(texts)}
    return {text: float(n) for text, n in zip(texts, numbers, strict=True) if n is not None}


def _panel(
    lines: Sequence[Line], left: float, titles: tuple[str, str], *, bars: bool = False
) -> Iterator[str]:
    points = [point for line in lines for point in line.points]
    across = _range([x for x, _, _ in points])
    up = _range([y + d for _, y, e in points for d in ((-e, e) if math.isfinite(e) else (0.0,))])

    def at(x: float, y: float) -> tuple[float, float]:
        part_x = (x - across[0]) / (across[1] - across[0])
        part_y = (y - up[0]) / (up[1] - up[0])
        return left + WIDTH * part_x, MARGIN + HEIGHT * (1 - part_y)

    bottom = MARGIN + HEIGHT
    frame = f'x="{left}" y="{MARGIN}" width="{WIDTH}" height="{HEIGHT}"'
    yield f'<rect {frame} fill="none" stroke="#888"/>'
    for tick in _ticks(*across):
        x, _ = at(tick, up[0])
        yield _text(x, bottom + 16, f"{tick:g}", "middle")
    for tick in _ticks(*up):
        _, y = at(across[0], tick)
        yield f'<path d="M{left} {y:.1f}h{WIDTH}" stroke="#ddd"/>'
        yield _text(left - 6, y + 4, f"{tick:g}", "end")
    yield _text(left + WIDTH / 2, bottom + 34, titles[0], "middle")
    yield _text(left + WIDTH / 2, MARGIN - 10, titles[1], "middle")
    for number, line in enumerate(lines):
        color = _color(number, len(lines))
        yield from _line(line, [at(x, y) for x, y, _ in line.points], color)
        for x, y, error in line.points if bars else ():
            if math.isfinite(error):
                (x0, y0), (_, y1) = at(x, y - error), at(x, y + error)
                yield f'<path d="M{x0:.1f} {y0:.1f}V{y1:.1f}" stroke="{color}"/>'
                for end in (y0, y1):
                    yield f'<path d="M{x0 - 3:.1f} {end:.1f}h6" stroke="{color}"/>'


def _line(line: Line, places: Sequence[tuple[float, float]], color: str) -> Iterator[str]:
    listed = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    title = f"<title>{escape(line.name)}</title>"
    style = f'fill="none" stroke="{color}" stroke-width="1.5"'
    yield f'<polyline points="{listed}" {style}>{title}</polyline>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>'


def _legend(names: Sequence[str], left: float, top: float) -> Iterator[str]:
    for index, name in enumerate(names[:LEGEND_LINES]):
        y = top + 14 * index
        color = _color(index, len(names))
        yield f'<rect x="{left}" y="{y}" width="14" height="4" fill="{color}"/>'
        yield _text(left + 20, y + 6, name, "start")
    if len(names) > LEGEND_LINES:
        y = top + 14 * LEGEND_LINES
        yield _text(left + 20, y + 6, f"and {len(names) - LEGEND_LINES} more", "start")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _color(index: int, count: int) -> str:
    """From blue over green to red, so that neighbouring values look alike."""
    hue = 240 * (1 - index / max(1, count - 1))
    # Hexadecimal, since many viewers of SVG have no hue and lightness.
    red, green, blue = (round(255 * part) for part in hls_to_rgb(hue / 360, 0.42, 0.7))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis, never the same, with some room around what is drawn."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = ROOM * (high - low) if high > low else 0.5
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Some round numbers from ``low`` to ``high``."""
    raw = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(step * number, 12) for number in range(first, last + 1)]
