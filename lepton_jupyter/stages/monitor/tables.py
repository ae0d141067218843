"""The tables behind a report's charts: JSON-ready columns, of a bounded size whatever the traffic."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lepton_jupyter.formats.monitor import ColumnReport
from lepton_jupyter.formats.profile import cells
from lepton_jupyter.stages.monitor.compare import Compared
from lepton_jupyter.stages.monitor.drift import kolmogorov_smirnov
from lepton_jupyter.stages.monitor.window import MonitorWindow

Table = dict[str, list[Any]]

N_STEPS = 60  # of time
MOST_COLUMNS = 6  # shown cell by cell, beside the predictions
MOST_CELLS = 30
MOST_ERRORS = 20
STEPS_S = (1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400)


def tables(window: MonitorWindow, compared: Compared | None, columns: tuple[ColumnReport, ...]) -> dict[str, Table]:
    """Return ``traffic``, ``latency``, ``errors``, ``drift`` and ``column:NAME`` of those that changed most.

    Returns
    -------
    dict of dict of list
        Empty tables are left out.
    """
    found = {"traffic": _traffic(window), "latency": _latency(window), "errors": _errors(window)}
    if compared is not None:
        found["drift"] = _drift(compared, columns)
        inputs = [column.name for column in columns if column.kind != "prediction"][:MOST_COLUMNS]
        predictions = [column.name for column in columns if column.kind == "prediction"][:MOST_COLUMNS]
        for name in (*predictions, *inputs):
            found[f"column:{name}"] = _cells(compared, name)
    return {name: table for name, table in found.items() if any(table.values())}


def _step_s(window: MonitorWindow) -> int:
    asked = window.requests["at"]
    first, last = (asked.min(), asked.max()) if len(asked) else (window.start, window.end)
    wanted = (float(last) - float(first)) / N_STEPS  # type: ignore[arg-type]  # of a column of floats
    return next((step for step in STEPS_S if step >= wanted), STEPS_S[-1])


def _by_time(window: MonitorWindow) -> Any:
    step = _step_s(window)
    at = (pl.col("at") // step * step).alias("step")
    return window.requests.with_columns(at).group_by("step", maintain_order=True)


def _traffic(window: MonitorWindow) -> Table:
    is_failed = pl.col("status") >= 400
    frame = _by_time(window).agg(
        requests=pl.col("weight").filter(~is_failed).sum().round().cast(pl.Int64),
        failed=is_failed.sum().cast(pl.Int64),
        rows=(pl.col("rows") * pl.col("weight")).sum().round().cast(pl.Int64),
    )
    return _table(frame)


def _latency(window: MonitorWindow) -> Table:
    answered = pl.col("latency_ms").filter(pl.col("status") < 400)
    frame = _by_time(window).agg(
        **{f"p{share}": answered.quantile(share / 100, interpolation="linear") for share in (50, 95, 99)}
    )
    return _table(frame.drop_nulls())


def _errors(window: MonitorWindow) -> Table:
    frame = (
        window.requests.filter(pl.col("status") >= 400)
        .group_by("status", "error")
        .agg(requests=pl.len().cast(pl.Int64))
        .sort("requests", "status", "error", descending=[True, False, False])
    )
    return frame.head(MOST_ERRORS).to_dict(as_series=False)


def _table(frame: pl.DataFrame) -> Table:
    """Return columns with moments as text that plotly reads."""
    moments = pl.from_epoch(pl.col("step").cast(pl.Int64), time_unit="s").dt.strftime("%Y-%m-%d %H:%M:%S")
    return frame.sort("step").with_columns(moments).rename({"step": "at"}).to_dict(as_series=False)


def _drift(compared: Compared, columns: tuple[ColumnReport, ...]) -> Table:
    """Return one line a column; distances that judge nothing stand here only."""
    table: Table = {
        "column": [column.name for column in columns],
        "drifted": [column.has_drifted for column in columns],
        "psi": [column.psi for column in columns],
        "noise": [column.noise for column in columns],
        "p": [column.p for column in columns],
        "ks": [],
        "mean": [],
        "mean_before": [],
        "missing": [column.missing for column in columns],
        "missing_before": [column.missing_before for column in columns],
        "unseen": [column.unseen for column in columns],
        "outside": [column.n_outside for column in columns],
        "effective_rows": [_effective_rows(compared, column.name) for column in columns],
    }
    for column in columns:
        before, now = compared.sides(column.name)
        is_number = column.name in before.numbers
        table["ks"].append(
            kolmogorov_smirnov(before.numbers[column.name], now.numbers[column.name]) if is_number else None
        )
        table["mean"].append(now.numbers[column.name].mean if is_number else None)
        table["mean_before"].append(before.numbers[column.name].mean if is_number else None)
    return table


def _effective_rows(compared: Compared, name: str) -> float:
    _, now = compared.sides(name)
    return now.n_rows / compared.dependence.by_column.get(name, compared.dependence.deff)


def _cells(compared: Compared, name: str) -> Table:
    before, now = compared.sides(name)
    names, ours, theirs = cells(before, now, name)
    shares = [np.asarray(side) / max(1, sum(side)) for side in (ours, theirs)]
    kept = [place for place in range(len(names)) if ours[place] or theirs[place]]
    kept = sorted(sorted(kept, key=lambda place: -max(shares[0][place], shares[1][place]))[:MOST_CELLS])
    return {
        "cell": [names[place] for place in kept],
        "training": [float(shares[0][place]) for place in kept],
        "window": [float(shares[1][place]) for place in kept],
    }
