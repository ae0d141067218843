"""Pictures of a report, drawn from its record's tables alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from lepton_jupyter.formats.monitor import MonitorRecord
from lepton_jupyter.stages.evaluate.charts import COLOURS, INK, Drawn, new_figure
from lepton_jupyter.stages.monitor.drift import SMALLEST_PSI

__all__ = ["Drawn", "figures"]

Table = dict[str, list[Any]]
Chart = Callable[[MonitorRecord, Table], go.Figure]

MOST_BARS = 20


def figures(record: MonitorRecord) -> list[go.Figure]:
    """Return the charts of a report, the most telling first; those whose table it does not have are left out."""
    found = [draw(record, record.tables[name]) for name, draw in CHARTS if name in record.tables]
    drawn = [column.name for column in record.columns if f"column:{column.name}" in record.tables]
    return found[:1] + [cells(record, name) for name in drawn] + found[1:]


def drift(record: MonitorRecord, table: Table) -> go.Figure:
    """Draw every column's PSI beside what chance gives, the largest on top."""
    lines = list(zip(table["column"], table["psi"], table["noise"], table["drifted"], strict=True))
    judged = [line for line in lines if line[1] is not None][:MOST_BARS]
    if not judged:
        figure = new_figure("Drift: too few independent rows to say", "", "")
        return figure.update_layout(height=160).update_xaxes(visible=False).update_yaxes(visible=False)
    title = "PSI of each column, beside what chance gives"
    figure = new_figure(title if len(judged) == len(lines) else f"{title} (the largest {len(judged)})", "PSI", "")
    names = [f"{name} " for name, *_ in judged]  # a blank: a column named 1 is no number on an axis
    figure.add_bar(
        x=[noise for _, _, noise, _ in judged], y=names, orientation="h", name="by chance", marker={"color": INK},
        hovertemplate="%{y}<br>chance gives %{x:.3f}<extra></extra>",
    )  # fmt: skip
    for label, is_drifted, colour in (("change", False, COLOURS[0]), ("drifted", True, COLOURS[1])):
        figure.add_bar(
            x=[max(0.0, psi) if has == is_drifted else None for _, psi, _, has in judged], y=names, orientation="h",
            name=label, marker={"color": colour},
            hovertemplate="%{y}<br>%{x:.3f} above chance<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=SMALLEST_PSI, line={"color": INK, "dash": "dot"})
    figure.update_layout(barmode="stack", showlegend=True, height=max(240, 130 + 24 * len(judged)))
    return figure.update_yaxes(autorange="reversed", type="category", showgrid=False)


def cells(record: MonitorRecord, name: str) -> go.Figure:
    """Draw a column's shares by bin or category, in training and in the window."""
    table = record.tables[f"column:{name}"]
    column = next(column for column in record.columns if column.name == name)
    says = "drifted" if column.has_drifted else "more missing" if column.has_more_missing else "no drift"
    if column.psi is None:
        says = "too few independent rows to say"
    figure = new_figure(f"{name}: {says}", "", "Share of rows")
    names = [f"{cell} " for cell in table["cell"]]
    before = "known rows" if column.kind == "prediction" else "training"
    for label, side, colour in ((before, "training", COLOURS[0]), ("window", "window", COLOURS[1])):
        figure.add_bar(
            x=names, y=table[side], name=label, marker={"color": colour},
            hovertemplate="%{x}<br>%{y:.1%} of rows<extra>" + label + "</extra>",
        )  # fmt: skip
    figure.update_xaxes(type="category", showgrid=False)
    return figure.update_layout(barmode="group", showlegend=True).update_yaxes(tickformat=".0%")


def traffic(record: MonitorRecord, table: Table) -> go.Figure:
    """Draw requests over time, those that were refused or failed on top."""
    figure = new_figure(f"Requests ({record.window.n_rows:,} rows)", "UTC", "Requests")
    for label, colour in (("requests", COLOURS[0]), ("failed", COLOURS[1])):
        if any(table[label]):
            name = "answered" if label == "requests" else "refused or failed"
            figure.add_bar(x=table["at"], y=table[label], name=name, marker={"color": colour})
    return figure.update_layout(barmode="stack", showlegend=True)


def latency(record: MonitorRecord, table: Table) -> go.Figure:
    """Draw percentiles of the latency over time."""
    p95 = record.checks.get("p95_latency_ms")
    figure = new_figure(f"Latency (p95 {p95:.3g} ms)" if p95 is not None else "Latency", "UTC", "ms")
    for place, name in enumerate(("p50", "p95", "p99")):
        figure.add_scatter(
            x=table["at"], y=table[name], name=name, mode="lines+markers", line={"color": COLOURS[place]},
            hovertemplate="%{x}<br>%{y:.3g} ms<extra>" + name + "</extra>",
        )  # fmt: skip
    return figure.update_yaxes(rangemode="tozero").update_layout(showlegend=True)


CHARTS: tuple[tuple[str, Chart], ...] = (("drift", drift), ("traffic", traffic), ("latency", latency))
