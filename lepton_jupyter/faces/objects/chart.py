"""A chart in a cell: plotly's JSON, and a picture without script for where plotly is not drawn."""

from __future__ import annotations

import json
from typing import Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.curve import curve
from lepton_jupyter.faces.objects.shown import publish

PLOTLY = "application/vnd.plotly.v1+json"
ROWS_SHOWN = 40


def publish_chart(figure: Any) -> None:
    """Send a plotly figure to the cell, with its static picture and its title as text."""
    publish(chart_bundle(figure))


def chart_bundle(figure: Any) -> dict[str, Any]:
    """Return a plotly figure as a bundle of MIME types."""
    drawn = json.loads(figure.to_json())  # numpy arrays become plain lists
    return {PLOTLY: drawn, "text/html": static(drawn), "text/plain": f"[chart: {_title(drawn)}]"}


def _title(drawn: dict[str, Any]) -> str:
    title = drawn.get("layout", {}).get("title", {})
    return str(title.get("text", "") if isinstance(title, dict) else title) or "chart"


def static(drawn: dict[str, Any]) -> str:
    """Return a picture of a figure's JSON: lines as SVG, a matrix or bars as a table."""
    lines: dict[str, list[tuple[float, float]]] = {}
    parts = []
    for at, trace in enumerate(drawn.get("data", [])):
        xs, ys, name = trace.get("x"), trace.get("y"), str(trace.get("name") or "")
        if isinstance(trace.get("z"), list):
            parts.append(_matrix(trace))
        elif trace.get("type") == "scatter" and _are_numbers(xs) and _are_numbers(ys):
            if name or trace.get("showlegend") is not False:
                lines[name or f"line {at + 1}"] = list(zip(xs, ys, strict=False))
        elif isinstance(xs, list) and isinstance(ys, list):
            parts.append(html.table(("", name), list(zip(xs, ys, strict=False))[:ROWS_SHOWN]))
    axis = drawn.get("layout", {}).get("xaxis", {}).get("title", {}).get("text", "")
    return html.card(_title(drawn), curve(lines, unit=str(axis)), *parts)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, (int, float)) for value in values)


def _matrix(trace: dict[str, Any]) -> str:
    columns = [str(x) for x in trace.get("x") or range(len(trace["z"][0]) if trace["z"] else 0)]
    names = [str(y) for y in trace.get("y") or range(len(trace["z"]))]
    return html.table(("", *columns), [(name, *row) for name, row in zip(names, trace["z"], strict=False)])
