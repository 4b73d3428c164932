"""A chart of lines as SVG, with no library behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_LEFT, _WIDE, _HIGH, _GAP, _HEAD = 60, 560, 130, 46, 44
_COLOURS = ("#3b7dd8", "#d8743b", "#5a9e4b", "#8a5ac2")

Points = Sequence[tuple[float, float]]


def lines(title: str, panels: Mapping[str, Mapping[str, Points]]) -> str:
    """One panel for each name, below each other, with a line for each series; the lowest value drawn is 0."""
    series = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    colour = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(series)}
    drawn, y = [_text(8, 18, title, size=14)], _HEAD
    for number, name in enumerate(series):
        drawn.append(_text(_LEFT + 110 * number, 34, f"● {name}", colour=colour[name]))
    for heading, panel in panels.items():
        xs = [x for points in panel.values() for x, _ in points]
        most = max((value for points in panel.values() for _, value in points), default=1.0) or 1.0
        low, high = min(xs, default=0.0), max(xs, default=1.0)

        def place(
            x: float, value: float, top: int = y, low: float = low, high: float = high, most: float = most
        ) -> str:
            across = _LEFT + _WIDE * (x - low) / max(high - low, 1e-9)
            return f"{across:.1f},{top + 16 + _HIGH * (1 - value / most):.1f}"

        drawn += [
            _text(8, y + 10, heading, size=12),
            f'<path d="M{_LEFT} {y + 16}V{y + 16 + _HIGH}H{_LEFT + _WIDE}" fill="none" stroke="#888"/>',
            _text(8, y + 24, f"{most:.3g}"),
            _text(8, y + 16 + _HIGH, "0"),
            _text(_LEFT, y + 30 + _HIGH, f"{low:g}"),
            _text(_LEFT + _WIDE - 24, y + 30 + _HIGH, f"{high:g}"),
        ]
        for name, points in panel.items():
            path = " ".join(place(x, value) for x, value in points)
            drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour[name]}" stroke-width="1.3"/>')
        y += _HIGH + _GAP
    size = f'width="{_LEFT + _WIDE + 20}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *drawn, "</svg>\n"])


def _text(x: float, y: float, text: str, size: int = 11, colour: str = "black") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
