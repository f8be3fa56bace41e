"""Charts as inline SVG: lines over a load, grouped bars, dots over time. They are made of text without any I/O."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 34, 66
COLOURS = (
    "#2a6fdb", "#d1495b", "#2e8b57", "#e09f3e", "#7b5ea7", "#5c6b73", "#00838f", "#a0522d", "#c2185b", "#9ccc65",
    "#90a4ae", "#ffb300",
)  # fmt: skip
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axes:
    """The labels of both axes, with their units.

    `guide` is the height of a dashed line with the name `guide_name`. With `log` the vertical axis is logarithmic, and
    values of 0 are drawn at its bottom.
    """

    x: str
    y: str
    guide: float | None = None
    guide_name: str = ""
    log: bool = False


def lines(title: str, series: Mapping[str, Points], axes: Axes) -> str:
    """Draw lines with dots."""
    frame = _Frame(title, [p for points in series.values() for p in points], axes)
    parts = frame.axes()
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            _dot(frame=frame, a=a, b=b, colour=colour, radius=3, label=f"{name}: {a:g}, {b:.4g}") for a, b in points
        ]
    return frame.svg(parts, list(series))


def dots(title: str, series: Mapping[str, Points], axes: Axes) -> str:
    """Draw one dot per request."""
    frame = _Frame(title, [p for points in series.values() for p in points], axes)
    parts = frame.axes()
    for number, (name, points) in enumerate(series.items()):
        parts += [
            _dot(
                frame=frame,
                a=a,
                b=b,
                colour=COLOURS[number % len(COLOURS)],
                radius=2,
                label=f"{name}: {a:.2f}, {b:.3f}",
            )
            for a, b in points
        ]
    return frame.svg(parts, list(series))


def bars(title: str, groups: Mapping[str, Mapping[str, float]], axes: Axes) -> str:
    """Draw groups of bars: group -> name -> value, from 0 up."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    top = max((value for group in groups.values() for value in group.values()), default=1.0)
    frame = _Frame(title, [(0.0, 0.0), (0.0, top)], axes, most_x=float(max(1, len(groups))))
    parts = frame.axes(ticks_x=False)
    step = 0.8 / max(1, len(names))
    for g, (label, group) in enumerate(groups.items()):
        parts.append(_text(frame.x(g + 0.5), HEIGHT - _BOTTOM + 15, label, "middle"))
        for n, name in enumerate(names):
            value = group.get(name)
            if value is None:
                continue
            left, right = frame.x(g + 0.1 + n * step), frame.x(g + 0.1 + (n + 1) * step)
            parts.append(
                f'<rect x="{left:.1f}" y="{frame.y(value):.1f}" width="{max(1.0, right - left - 1):.1f}" '
                f'height="{frame.y(0) - frame.y(value):.1f}" fill="{COLOURS[n % len(COLOURS)]}">'
                f"<title>{html.escape(name)}, {html.escape(label)}: {value:.4g}</title></rect>"
            )
    return frame.svg(parts, names)


class _Frame:
    """The scales and axes of a chart; both begin at 0."""

    def __init__(self, title: str, points: Points, axes: Axes, most_x: float | None = None) -> None:
        self._title, self._axes = title, axes
        heights = [b for _, b in points] + ([axes.guide] if axes.guide else [])
        self._most_x = most_x or _ceiling(max((a for a, _ in points), default=1.0))
        self._most_y = _ceiling(max(heights, default=1.0))
        self._decades = _decades(heights) if axes.log else (0, 0)

    def x(self, value: float) -> float:
        return _LEFT + value / self._most_x * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self._decades
        share = value / self._most_y
        if self._axes.log:
            share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def _ticks_y(self) -> list[float]:
        low, high = self._decades
        if not self._axes.log:
            return [self._most_y * i / 4 for i in range(5)]
        steps = (1, 2, 5) if high - low <= 2 else (1,)
        return [step * 10.0**power for power in range(low, high) for step in steps] + [10.0**high]

    def axes(self, *, ticks_x: bool = True) -> list[str]:
        parts = [_text(x=_LEFT, y=18, text=self._title, anchor="start", more='font-weight="600" font-size="13"')]
        for value in self._ticks_y():
            parts.append(
                f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{self.y(value):.1f}" y2="{self.y(value):.1f}" '
                'stroke="#ddd"/>'
            )
            parts.append(_text(_LEFT - 5, self.y(value) + 4, f"{value:g}", "end"))
        for i in range(5 if ticks_x else 0):
            across = self._most_x * i / 4
            parts.append(_text(self.x(across), HEIGHT - _BOTTOM + 15, f"{across:g}", "middle"))
        parts.append(_text((_LEFT + WIDTH) / 2, HEIGHT - _BOTTOM + 31, self._axes.x, "middle"))
        turned = f'transform="rotate(-90 13 {HEIGHT / 2})"'
        parts.append(_text(x=13, y=HEIGHT / 2, text=self._axes.y, anchor="middle", more=turned))
        if self._axes.guide is not None:
            at = self.y(self._axes.guide)
            parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#333" '
                         'stroke-dasharray="5 4"/>')  # fmt: skip
            parts.append(
                _text(x=WIDTH - _RIGHT, y=at - 4, text=self._axes.guide_name, anchor="end", more='fill="#333"')
            )
        return parts

    def svg(self, parts: Sequence[str], names: Sequence[str]) -> str:
        legend, across = [], float(_LEFT)
        row = HEIGHT - 24
        for number, name in enumerate(names):
            width = 20 + 6.2 * len(name)
            if across + width > WIDTH:
                across, row = float(_LEFT), row + 14
            legend.append(
                f'<rect x="{across}" y="{row - 8}" width="9" height="9" fill="{COLOURS[number % len(COLOURS)]}"/>'
            )
            legend.append(_text(across + 13, row, name, "start"))
            across += width
        style = 'font-family="system-ui,sans-serif" font-size="11"'
        height = max(HEIGHT, row + 8)
        return (
            f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" {style}>'
            + "".join([*parts, *legend])
            + "</svg>"
        )


def _dot(frame: _Frame, a: float, b: float, colour: str, radius: int, label: str) -> str:
    return (
        f'<circle cx="{frame.x(a):.1f}" cy="{frame.y(b):.1f}" r="{radius}" fill="{colour}" fill-opacity="0.75">'
        f"<title>{html.escape(label)}</title></circle>"
    )


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html.escape(text)}</text>'


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten below and above all values above 0; they are at least one apart."""
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    low = math.floor(min(logs))
    return low, max(low + 1, math.ceil(max(logs)))


def _ceiling(value: float) -> float:
    """Return the next number that is 1, 2, 2.5, 4, 5, 8 or 10 times a power of ten, so that its quarter is easy to
    read.
    """
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 2.4, 4, 5, 6, 8, 10) if step * power >= value * 0.9999), 10 * power)
