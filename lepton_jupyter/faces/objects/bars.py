"""Bars as inline SVG: what a chart of bars shows where plotly is not drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from lepton_jupyter.faces.objects.curve import PALETTE, legend_of
from lepton_jupyter.faces.objects.html import LINE, escape, number

WIDTH, LABEL, ROW = 480, 150, 18
TALL, FOOT = 150, 18
CATEGORIES_SHOWN = 60
LETTER = 6  # how wide one is

_TEXT = 'fill="currentColor" font-size="10" opacity=".75"'


class Bars(NamedTuple):
    """One colour of bars.

    Attributes
    ----------
    values : sequence of float or None
        One a category; None: no bar.
    """

    name: str
    colour: str
    values: Sequence[float | None]


def bars_of(traces: Sequence[dict[str, Any]]) -> tuple[list[str], list[Bars]]:
    """Return categories and bars of plotly's traces of type ``bar``, all of which lie the same way."""
    is_lying = traces[0].get("orientation") == "h"
    names, lengths = ("y", "x") if is_lying else ("x", "y")
    categories = list(dict.fromkeys(_name(name) for trace in traces for name in trace.get(names) or ()))
    found = []
    for at, trace in enumerate(traces):
        values = {
            _name(name): value for name, value in zip(trace.get(names) or (), trace.get(lengths) or (), strict=False)
        }
        colour = trace.get("marker", {}).get("color")
        found.append(
            Bars(
                str(trace.get("name") or ""),
                colour if isinstance(colour, str) else PALETTE[at % len(PALETTE)],
                [_finite(values.get(category)) for category in categories],
            )
        )
    return categories, found


def bars(categories: Sequence[str], series: Sequence[Bars], *, is_stacked: bool, is_lying: bool) -> str:
    """Return the picture: bars that lie have one line a category, bars that stand are for what has an order."""
    categories = categories[:CATEGORIES_SHOWN]
    if not categories or not series:
        return ""
    totals = [
        (sum if is_stacked else max)([max(each.values[at] or 0.0, 0.0) for each in series])
        for at in range(len(categories))
    ]
    highest = max(totals) or 1.0
    draw = _lying if is_lying else _standing
    height, body = draw(categories, series, highest, is_stacked=is_stacked)
    return (
        f'<div style="margin-top:8px">{legend_of([(each.name, each.colour) for each in series if each.name])}'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'style="max-width:100%" role="img" aria-label="{escape(", ".join(each.name for each in series))}">'
        f"{body}</svg></div>"
    )


def _lying(categories: Sequence[str], series: Sequence[Bars], highest: float, *, is_stacked: bool) -> tuple[int, str]:
    thick = (ROW - 5) / (1 if is_stacked else len(series))
    parts = []
    for at, category in enumerate(categories):
        top, left = at * ROW + 2.0, float(LABEL)
        parts.append(f'<text x="{LABEL - 6}" y="{top + 10:.0f}" text-anchor="end" {_TEXT}>{_short(category)}</text>')
        for place, each in enumerate(series):
            wide = (each.values[at] or 0.0) / highest * (WIDTH - LABEL - 50)
            above = top if is_stacked else top + place * thick
            parts.append(_box(left, above, wide, thick, each.colour))
            left += wide if is_stacked else 0.0
        total = sum(each.values[at] or 0.0 for each in series)
        if is_stacked:
            parts.append(f'<text x="{left + 4:.1f}" y="{top + 10:.0f}" {_TEXT}>{number(total)}</text>')
    return len(categories) * ROW + 4, "".join(parts)


def _standing(
    categories: Sequence[str], series: Sequence[Bars], highest: float, *, is_stacked: bool
) -> tuple[int, str]:
    floor, left = TALL - FOOT, 44
    step = (WIDTH - left) / len(categories)
    thick = min(step * 0.8, 40.0) / (1 if is_stacked else len(series))
    parts = [
        f'<line x1="{left}" y1="{floor}" x2="{WIDTH}" y2="{floor}" stroke="{LINE}"/>',
        f'<text x="{left - 4}" y="12" text-anchor="end" {_TEXT}>{number(highest)}</text>',
    ]
    for at in range(len(categories)):
        start = left + (at + 0.5) * step - thick * (0.5 if is_stacked else len(series) / 2)
        base = float(floor)
        for place, each in enumerate(series):
            tall = (each.values[at] or 0.0) / highest * (floor - 6)
            parts.append(_box(start + (0 if is_stacked else place * thick), base - tall, thick, tall, each.colour))
            base -= tall if is_stacked else 0.0
    parts += _labels_below(categories, left, step)
    return TALL, "".join(parts)


def _labels_below(categories: Sequence[str], left: float, step: float) -> list[str]:
    """Write each name below its bars where they all have room, else the first and the last."""
    if max(map(len, categories)) * LETTER < step:
        places = [(at, "middle", left + (at + 0.5) * step) for at in range(len(categories))]
    else:
        places = [(0, "start", float(left)), (len(categories) - 1, "end", float(WIDTH))]
    return [
        f'<text x="{where:.1f}" y="{TALL - 5}" text-anchor="{anchor}" {_TEXT}>{_short(categories[at])}</text>'
        for at, anchor, where in places
    ]


def _box(left: float, top: float, wide: float, tall: float, colour: str) -> str:
    if wide <= 0 or tall <= 0:
        return ""
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{tall:.1f}" fill="{escape(colour)}"/>'


def _name(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    text = text.strip()
    return escape(text if len(text) <= 24 else f"{text[:23]}…")


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
