"""A chart of bars as SVG, with no library behind it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_LABEL, _LONGEST, _LINE, _HEAD = 150, 470, 18, 34


def bars(title: str, groups: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """One bar for each ``median``, with a whisker from ``quarter`` to ``three_quarters``, in groups with a heading."""
    most = max(one["three_quarters"] for group in groups.values() for one in group.values())
    lines, y = [_text(8, 20, title, size=14)], _HEAD

    def x(value: float) -> float:
        return round(_LABEL + _LONGEST * value / most, 1)

    for name, group in groups.items():
        y += _LINE
        lines.append(_text(8, y, name, size=12))
        for label, one in group.items():
            y += _LINE
            whisker = f"M{x(one['quarter'])} {y - 4}H{x(one['three_quarters'])}"
            lines += [
                _text(20, y, label),
                f'<rect x="{_LABEL}" y="{y - 12}" width="{x(one["median"]) - _LABEL:.1f}" height="13" fill="#3b7dd8"/>',
                f'<path d="{whisker}" stroke="#222" stroke-width="1.5"/>',
                _text(_LABEL + _LONGEST + 10, y, f"{one['median']:.0f}"),
            ]
        y += _LINE // 2
    width, height = _LABEL + _LONGEST + 60, y + _LINE
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _text(x: int, y: int, text: str, size: int = 11) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}">{escape(text)}</text>'
