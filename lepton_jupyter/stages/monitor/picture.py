"""One static picture of a report for a mail, from the same tables as its charts."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from lepton_jupyter.formats.monitor import MonitorRecord
from lepton_jupyter.stages.monitor.drift import SMALLEST_PSI
from lepton_jupyter.stages.monitor.text import moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 10
BLUE, RED, GREY = "#1F86C7", "#D55E00", "#7a7a7a"  # as the charts


def draw(record: MonitorRecord) -> bytes | None:
    """Return a PNG: what drifted, and the column that changed most or the traffic; None where nothing was asked."""
    if not any(name in record.tables for name in ("drift", "traffic")):
        return None
    from matplotlib.figure import Figure  # without pyplot: no state, no window, no other notebook's settings

    figure = Figure(figsize=(9, 4.2), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _drift(left, record)
    first = record.columns[0].name if record.columns else ""
    table = record.tables.get(f"column:{first}")
    if table is not None and record.verdict == "DRIFT":
        _cells(right, first, table)
    else:
        _traffic(right, record.tables["traffic"])
    figure.suptitle(f"{record.endpoint}: {record.verdict}, {moment(record.window.end)} UTC", fontsize=12)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _drift(axes: Axes, record: MonitorRecord) -> None:
    judged = [column for column in record.columns if column.psi is not None][:MOST_BARS]
    if not judged:
        axes.text(0.5, 0.5, "too few independent rows\nto say anything of drift", ha="center", va="center")
        axes.set_axis_off()
        return
    names = [_short(column.name) for column in judged]
    places = list(range(len(names)))
    noise: list[Any] = [column.noise for column in judged]
    change = [max(0.0, column.psi or 0.0) for column in judged]
    axes.barh(places, noise, color=GREY, label="by chance")
    bars = axes.barh(places, change, left=noise, color=BLUE, label="change")
    for bar, column in zip(bars, judged, strict=True):
        bar.set_color(RED if column.has_drifted else BLUE)
    axes.set_yticks(places, [f"{name} *" if c.has_drifted else name for name, c in zip(names, judged, strict=True)])
    axes.axvline(SMALLEST_PSI, color=GREY, linestyle=":")
    axes.invert_yaxis()
    axes.set_xlabel("PSI (* drifted)")


def _cells(axes: Axes, name: str, table: dict[str, list[Any]]) -> None:
    places = range(len(table["cell"]))
    axes.bar([place - 0.2 for place in places], table["training"], width=0.4, color=BLUE, label="training")
    axes.bar([place + 0.2 for place in places], table["window"], width=0.4, color=RED, label="window")
    axes.set_xticks(list(places), [_short(cell) for cell in table["cell"]], rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("share of rows")
    axes.set_title(_short(name, 40), fontsize=10, loc="left")
    _legend(axes)


def _traffic(axes: Axes, table: dict[str, list[Any]]) -> None:
    places = range(len(table["at"]))
    axes.bar(places, table["requests"], color=BLUE, label="answered")
    axes.bar(places, table["failed"], bottom=table["requests"], color=RED, label="refused or failed")
    shown = sorted({0, len(table["at"]) // 2, len(table["at"]) - 1})
    axes.set_xticks(shown, [table["at"][place][5:16] for place in shown], fontsize=8)
    axes.set_ylabel("requests")
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)


def _short(name: str, most: int = 22) -> str:
    plain = name.replace("$", r"\$")  # else mathematics
    return plain if len(plain) <= most else plain[: most - 1] + "…"
