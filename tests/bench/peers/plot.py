# SPDX-License-Identifier: MIT
"""Grouped bars as SVG, without any library."""
from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 64, 44
COLOURS = ("#d9480f", "#1c7ed6", "#2f9e44", "#868e96", "#7048e8")


def short(number: float) -> str:
    """1234567 as 1.23M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.{3 if number < 999.5 * limit else 4}g}{unit}"
    return f"{number:.3g}"


def nice_top(largest: float) -> float:
    """The end of an axis: 1, 2 or 5 times a power of ten."""
    step = 1.0
    while step * 10 <= largest:
        step *= 10
    while step > largest > 0:
        step /= 10
    return next(step * factor for factor in (1, 2, 2.5, 4, 5, 8, 10) if step * factor >= largest) if largest > 0 else 1.0


def bars(title: str, subtitle: str, groups: Sequence[str], series: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """A chart: one group of bars for each name in `groups`, one bar in it for each of `series`; None leaves a gap."""
    top = nice_top(max((v for _, values in series for v in values if v is not None), default=1.0))
    plot_w, plot_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           f'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
           f'<text x="{LEFT}" y="20" font-size="15" font-weight="bold">{escape(title)}</text>',
           f'<text x="{LEFT}" y="36" fill="#555555">{escape(subtitle)}</text>']
    for i in range(5):
        y = TOP + plot_h * (1 - i / 4)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(top * i / 4) if i else 0}</text>')
    group_w = plot_w / max(1, len(groups))
    bar_w = group_w * 0.84 / max(1, len(series))
    for g, name in enumerate(groups):
        x = LEFT + group_w * g
        out.append(f'<text x="{x + group_w / 2:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{escape(name)}</text>')
        for s, (label, values) in enumerate(series):
            value = values[g]
            if value is None:
                continue
            h = plot_h * value / top
            bar_x = x + group_w * 0.08 + bar_w * s
            out.append(f'<rect x="{bar_x:.1f}" y="{TOP + plot_h - h:.1f}" width="{bar_w - 2:.1f}" height="{h:.1f}" '
                       f'fill="{COLOURS[s % len(COLOURS)]}"><title>{escape(label)}, {escape(name)}: {value:.6g}</title></rect>')
            out.append(f'<text x="{bar_x + bar_w / 2 - 1:.1f}" y="{TOP + plot_h - h - 3:.1f}" font-size="10" '
                       f'text-anchor="middle">{short(value)}</text>')
    for s, (label, _) in enumerate(series):
        x = LEFT + 120 * s
        out.append(f'<rect x="{x}" y="{HEIGHT - 16}" width="10" height="10" fill="{COLOURS[s % len(COLOURS)]}"/>')
        out.append(f'<text x="{x + 15}" y="{HEIGHT - 7}">{escape(label)}</text>')
    return "\n".join([*out, "</svg>", ""])
