"""Pictures of a search, drawn from its record alone: how it went, what mattered, which values belong together."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go

from lepton_jupyter.formats.tuning import TrialRecord, TuningRecord
from lepton_jupyter.stages.evaluate.charts import COLOURS, INK, new_figure

SCALE = "Viridis"


def figures(record: TuningRecord) -> list[go.Figure]:
    """Return the charts of a search, the most telling first; what too few trials tell is left out."""
    done = [trial for trial in record.trials if trial.state == "complete" and trial.value is not None]
    found = [history(record)] if done else []
    if record.importance:
        found.append(importance(record))
    if len(done) > 1:
        found.append(parallel(record, done))
    return found


def history(record: TuningRecord) -> go.Figure:
    """Draw every trial's value in its order, and the best up to it."""
    figure = new_figure(f"{record.metric} of {len(record.trials)} trials", "Trial", record.metric)
    for place, state in enumerate(("complete", "pruned")):
        trials = [trial for trial in record.trials if trial.state == state and trial.value is not None]
        if trials:
            figure.add_scatter(
                x=[trial.number for trial in trials], y=[trial.value for trial in trials], mode="markers", name=state,
                marker={"color": (COLOURS[0], INK)[place], "symbol": ("circle", "x")[place]},
                customdata=[_said(trial) for trial in trials],
                hovertemplate="trial %{x}: %{y:.4g}<br>%{customdata}<extra></extra>",
            )  # fmt: skip
    better = max if record.direction == "maximize" else min
    best, steps = math.nan, []
    for trial in record.trials:
        if trial.state == "complete" and trial.value is not None:
            best = trial.value if math.isnan(best) else better(best, trial.value)
        steps.append(best)
    figure.add_scatter(
        x=[trial.number for trial in record.trials], y=steps, mode="lines", name="best so far",
        line={"color": COLOURS[1], "shape": "hv"}, hoverinfo="skip",
    )  # fmt: skip
    return figure


def importance(record: TuningRecord) -> go.Figure:
    """Draw which share of the metric's variation each name explains."""
    names = list(record.importance)[::-1]
    figure = new_figure("What mattered", f"Share of the variation of {record.metric}", "")
    figure.add_bar(
        x=[record.importance[name] for name in names], y=names, orientation="h", marker_color=COLOURS[0],
        hovertemplate="%{y}: %{x:.0%}<extra></extra>",
    )  # fmt: skip
    return figure.update_xaxes(range=[0, 1], tickformat=".0%")


def parallel(record: TuningRecord, done: list[TrialRecord]) -> go.Figure:
    """Draw each completed trial as a line over its values, coloured by the metric."""
    values: list[float] = [float(trial.value) for trial in done if trial.value is not None]
    axes = [{"label": record.metric, "values": values}]
    axes += [_axis(name, done, is_log=name in record.log_names) for name in record.space]
    is_low_better = record.direction == "minimize"
    figure = new_figure("Completed trials, side by side", "", "")
    figure.add_parcoords(
        line={"color": values, "colorscale": SCALE, "reversescale": is_low_better, "showscale": True}, dimensions=axes
    )
    return figure.update_layout(margin={"l": 80, "r": 40, "t": 90, "b": 40})


def _axis(name: str, done: list[TrialRecord], *, is_log: bool) -> dict[str, Any]:
    found = [trial.params.get(name) for trial in done]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in found):
        words = list(dict.fromkeys(map(str, found)))
        places = [words.index(str(value)) for value in found]
        return {"label": name, "values": places, "tickvals": list(range(len(words))), "ticktext": words}
    if not is_log:
        return {"label": name, "values": found}
    powers = [math.log10(value) for value in found if value is not None]
    marks = sorted({min(powers), max(powers), *range(math.ceil(min(powers)), math.floor(max(powers)) + 1)})
    return {"label": name, "values": powers, "tickvals": marks, "ticktext": [f"{10**mark:.2g}" for mark in marks]}


def _said(trial: TrialRecord) -> str:
    return ", ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                     for name, value in trial.params.items())  # fmt: skip
