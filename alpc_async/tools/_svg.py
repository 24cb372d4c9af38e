"""Line charts as SVG, without any library.

Belongs here: drawing series of numbers over a common axis. Never here: what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence  # msgspec reads the annotations of its structs at run time
from html import escape
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Panel", "Series", "line_chart"]

WIDTH: Final = 880
HEIGHT: Final = 240
LEFT: Final = 76
RIGHT: Final = 24
TOP: Final = 40
BOTTOM: Final = 48
INK: Final = "#1b2a3a"
GRID: Final = "#d6dde4"
COLOURS: Final = ("#0b5cad", "#9a3b00", "#2f7d32", "#7a2f8f", "#a1122d", "#5c6b7a")


class Series(msgspec.Struct, frozen=True):
    """One line.

    Attributes:
        name: what the legend calls it.
        points: pairs of position and value, in order of position.
        steps: draw each value as level until the next position.
        dashed: draw it dashed.
    """

    name: str
    points: Sequence[tuple[float, float]]
    steps: bool = False
    dashed: bool = False


class Panel(msgspec.Struct, frozen=True):
    """One diagram.

    Attributes:
        title: what stands above it.
        x: name of the horizontal axis, with its unit.
        y: name of the vertical axis, with its unit.
        series: the lines.
        log_x: logarithmic horizontal axis.
        log_y: logarithmic vertical axis.
    """

    title: str
    x: str
    y: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False


class _Axis:
    """Where a value lies on one axis.

    Args:
        values: everything that has to fit.
        start: coordinate of the smallest.
        end: coordinate of the largest.
        log: logarithmic.
    """

    def __init__(self, values: Sequence[float], start: float, end: float, *, log: bool) -> None:
        self._log = log
        known = [value for value in values if not log or value > 0] or [1.0]
        low, high = min(known), max(known)
        if log:
            self.ticks = _powers(low, high)
        else:
            self.ticks = _round_steps(min(low, 0.0), high)
        self._low = self._scale(min(low, self.ticks[0]))
        self._high = self._scale(max(high, self.ticks[-1]))
        self._start = start
        self._end = end

    def _scale(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self._log else value

    def at(self, value: float) -> float:
        """Return the coordinate of a value."""
        span = self._high - self._low or 1.0
        return self._start + (self._end - self._start) * (self._scale(value) - self._low) / span


def _powers(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _round_steps(low: float, high: float) -> list[float]:
    rough = (high - low or 1.0) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    first = math.floor(low / step)
    return [round(number * step, 12) for number in range(first, math.ceil(high / step - 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str = "middle", *, size: int = 12, colour: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = GRID) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _polyline(series: Series, x: _Axis, y: _Axis, colour: str) -> str:
    points: list[tuple[float, float]] = []
    for position, value in series.points:
        here = (x.at(position), y.at(value))
        if series.steps and points:
            points.append((here[0], points[-1][1]))
        points.append(here)
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
    style = ' stroke-dasharray="6 4"' if series.dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{style}/>'


def _panel(panel: Panel, top: float) -> Iterator[str]:
    floor, right = top + HEIGHT - BOTTOM, WIDTH - RIGHT
    points = [point for series in panel.series for point in series.points]
    x = _Axis([point[0] for point in points], LEFT, right, log=panel.log_x)
    y = _Axis([point[1] for point in points], floor, top + TOP, log=panel.log_y)
    yield _text(LEFT, top + 18, panel.title, "start", size=14)
    for tick in y.ticks:
        yield _line(LEFT, y.at(tick), right, y.at(tick))
        yield _text(LEFT - 8, y.at(tick) + 4, _number(tick), "end", size=11)
    for tick in x.ticks:
        yield _line(x.at(tick), floor, x.at(tick), floor + 5, INK)
        yield _text(x.at(tick), floor + 18, _number(tick), size=11)
    yield _line(LEFT, floor, right, floor, INK)
    yield _text((LEFT + right) / 2, floor + 36, panel.x)
    yield _text(LEFT - 8, top + TOP - 12, panel.y, "end", size=11)
    for index, series in enumerate(panel.series):
        colour = COLOURS[index % len(COLOURS)]
        yield _polyline(series, x, y, colour)
        yield _text(right - 150 * (len(panel.series) - 1 - index), top + 18, f"— {series.name}", "end", colour=colour)


def line_chart(panels: Sequence[Panel]) -> str:
    """Draw diagrams one below the other.

    Args:
        panels: the diagrams; each needs at least one point.

    Returns:
        The text of an SVG file.
    """
    height = HEIGHT * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"',
        ' font-family="system-ui, sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for index, panel in enumerate(panels):
        parts += _panel(panel, index * HEIGHT)
    return "\n".join([*parts, "</svg>", ""])
