"""A curve as inline SVG: what a card draws while a run goes on, without a script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lepton_jupyter.faces.objects.html import LINE, escape, number

WIDTH, HEIGHT, LEFT, BOTTOM = 480, 150, 64, 18
MAX_POINTS = 400  # more than a card has pixels for
PALETTE = ("#3b82f6", "#f59e0b", "#16a34a", "#a855f7", "#ef4444", "#06b6d4", "#84cc16", "#ec4899")

Points = Sequence[tuple[float, float]]


def curve(series: Mapping[str, Points], *, unit: str = "epoch", last: str = "") -> str:
    """Return the curves of some metrics over steps; empty where no metric has two finite points.

    Parameters
    ----------
    series : mapping
        Points (x, y) by name.
    unit : str
        Of x; written with its largest value.
    last : str
        What is written there instead, where x only counts.
    """
    drawn = {name: thin([(x, y) for x, y in points if math.isfinite(y)]) for name, points in series.items()}
    drawn = {name: points for name, points in drawn.items() if len(points) > 1}
    if not drawn:
        return ""
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    wide, tall = (right - left) or 1.0, (high - low) or 1.0

    def place(x: float, y: float) -> str:
        across = LEFT + (x - left) / wide * (WIDTH - LEFT - 4)
        return f"{across:.1f},{4 + (high - y) / tall * (HEIGHT - BOTTOM - 8):.1f}"

    lines = ""
    for colour, points in zip(PALETTE, drawn.values(), strict=False):
        path = " ".join(place(x, y) for x, y in points)
        lines += f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{path}"/>'
    floor = HEIGHT - BOTTOM
    text = 'fill="currentColor" font-size="10" opacity=".75"'
    axes = (
        f'<line x1="{LEFT}" y1="{floor}" x2="{WIDTH}" y2="{floor}" stroke="{LINE}"/>'
        f'<line x1="{LEFT}" y1="4" x2="{LEFT}" y2="{floor}" stroke="{LINE}"/>'
        f'<text x="{LEFT - 4}" y="12" text-anchor="end" {text}>{number(high)}</text>'
        f'<text x="{LEFT - 4}" y="{floor}" text-anchor="end" {text}>{number(low)}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end" {text}>{escape(last or f"{unit} {right:g}")}</text>'
    )
    return (
        f'<div style="margin-top:8px">{legend_of(list(zip(drawn, PALETTE, strict=False)))}'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'style="max-width:100%" role="img" aria-label="{escape(", ".join(drawn))}">{axes}{lines}</svg></div>'
    )


def legend_of(series: Sequence[tuple[str, str]]) -> str:
    """Return the names of what is drawn, each in its colour."""
    words = "".join(
        f'<span style="color:{colour};margin-right:12px">■ {escape(name)}</span>' for name, colour in series
    )
    return f'<div style="font-size:.85em">{words}</div>'


def thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most about `MAX_POINTS` points, the newest always among them."""
    if len(points) <= MAX_POINTS:
        return points
    stride = len(points) / MAX_POINTS
    return [points[int(at * stride)] for at in range(MAX_POINTS)] + [points[-1]]
