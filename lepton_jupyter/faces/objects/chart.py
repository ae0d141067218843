"""A chart in a cell: plotly's JSON, and a picture without script for where plotly is not drawn."""

from __future__ import annotations

import json
from typing import Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.bars import bars, bars_of
from lepton_jupyter.faces.objects.curve import curve
from lepton_jupyter.faces.objects.shown import publish

PLOTLY = "application/vnd.plotly.v1+json"


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
    """Return a picture of a figure's JSON without script: lines and bars as SVG, a matrix as a table."""
    traces, layout = drawn.get("data", []), drawn.get("layout", {})
    matrices = [_matrix(trace) for trace in traces if isinstance(trace.get("z"), list)]
    return html.card(_title(drawn), _lines(traces, layout), _bars(traces, layout), *matrices)


def _lines(traces: list[dict[str, Any]], layout: dict[str, Any]) -> str:
    found: dict[str, list[tuple[float, float]]] = {}
    last = ""
    for at, trace in enumerate(traces):
        xs, ys, name = trace.get("x"), trace.get("y"), str(trace.get("name") or "")
        if trace.get("type") != "scatter" or not isinstance(xs, list) or not isinstance(ys, list):
            continue
        if not _are_numbers(xs):
            xs, last = list(range(len(xs))), str(xs[-1]) if xs else ""
        if name or trace.get("showlegend") is not False:
            points = [(x, y) for x, y in zip(xs, ys, strict=False) if isinstance(y, (int, float))]
            found[name or f"line {at + 1}"] = points
    axis = layout.get("xaxis", {}).get("title", {}).get("text", "")
    return curve(found, unit=str(axis), last=last)


def _bars(traces: list[dict[str, Any]], layout: dict[str, Any]) -> str:
    standing = [trace for trace in traces if trace.get("type") == "bar"]
    if not standing:
        return ""
    categories, series = bars_of(standing)
    is_stacked = layout.get("barmode") in ("stack", "relative")
    return bars(categories, series, is_stacked=is_stacked, is_lying=standing[0].get("orientation") == "h")


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, (int, float)) for value in values)


def _matrix(trace: dict[str, Any]) -> str:
    columns = [str(x) for x in trace.get("x") or range(len(trace["z"][0]) if trace["z"] else 0)]
    names = [str(y) for y in trace.get("y") or range(len(trace["z"]))]
    return html.table(("", *columns), [(name, *row) for name, row in zip(names, trace["z"], strict=False)])
