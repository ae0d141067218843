"""Pictures of an evaluation, drawn from its record's tables alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from lepton_jupyter.formats.evaluation import EvaluationRecord
from lepton_jupyter.stages.evaluate.summary import figure_of

# M. Okabe and K. Ito, 2008, "Color universal design": told apart by the colour-blind. Their blue is made
# lighter here, so that it is seen on a dark page too.
COLOURS = ("#1F86C7", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#7a7a7a"  # contrast over 4 to 1 on white and on JupyterLab's dark #111111
GRID = "rgba(128,128,128,0.25)"
CLEAR = "rgba(0,0,0,0)"
MOST_CURVES = len(COLOURS)
LARGEST_MATRIX = 20  # classes
PLOTLY = "application/vnd.plotly.v1+json"

Table = dict[str, list[Any]]
Chart = Callable[[EvaluationRecord, Table], go.Figure]


def figures(record: EvaluationRecord) -> list[go.Figure]:
    """Return the charts of an evaluation, the most telling first; those whose table it does not have are left out."""
    return [
        draw(record, record.tables[name]) for name, draw in CHARTS if name in record.tables and _has_rows(record, name)
    ]


class Drawn:
    """A chart as a notebook shows it: plotly's JSON, and its title where plotly is not drawn."""

    def __init__(self, figure: go.Figure) -> None:
        self.figure = figure

    def __repr__(self) -> str:
        return f"[chart: {self.figure.layout.title.text}]"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {PLOTLY: json.loads(self.figure.to_json()), "text/plain": repr(self)}


def roc(record: EvaluationRecord, table: Table) -> go.Figure:
    """Draw the ROC curve; of several classes each against the rest, the first six classes."""
    figure = new_figure(_title(record, "roc_auc", "ROC"), "False positive rate", "True positive rate (recall)")
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": INK, "dash": "dot"}, hoverinfo="skip", showlegend=False
    )
    names = table.get("class", [record.positive or ""] * len(table["fpr"]))
    for place, name in enumerate(list(dict.fromkeys(names))[:MOST_CURVES]):
        rows = [row for row, of in enumerate(names) if of == name]
        figure.add_scatter(
            x=[table["fpr"][row] for row in rows], y=[table["tpr"][row] for row in rows], mode="lines", name=str(name),
            line={"color": COLOURS[place]}, customdata=[table["threshold"][row] for row in rows],
            hovertemplate="false positive rate %{x:.3f}<br>recall %{y:.3f}<br>threshold %{customdata:.3f}",
        )  # fmt: skip
    return _square(figure.update_layout(showlegend="class" in table))


def precision_recall(record: EvaluationRecord, table: Table) -> go.Figure:
    """Draw precision over recall."""
    figure = new_figure(_title(record, "average_precision", "Precision and recall"), "Recall", "Precision")
    figure.add_scatter(
        x=table["recall"], y=table["precision"], mode="lines", line={"color": COLOURS[0], "shape": "hv"},
        customdata=table["threshold"],
        hovertemplate="recall %{x:.3f}<br>precision %{y:.3f}<br>threshold %{customdata:.3f}<extra></extra>",
    )  # fmt: skip
    return _square(figure)


def confusion(record: EvaluationRecord, table: Table) -> go.Figure:
    """Draw rows by actual and predicted class; of more than twenty classes the most frequent mistakes."""
    title = _title(record, "accuracy", "Confusion")
    if len(record.classes) > LARGEST_MATRIX:
        return _mistakes(title, table)
    rows = {(actual, predicted): n for actual, predicted, n in zip(*table.values(), strict=True)}
    counts = [[rows.get((actual, predicted), 0) for predicted in record.classes] for actual in record.classes]
    shares = [[n / max(1, sum(line)) for n in line] for line in counts]
    names = [f"{name} " for name in record.classes]  # a blank: a label such as "1" is no number on an axis
    figure = new_figure(title, "Predicted", "Actual")
    figure.add_heatmap(
        x=names, y=names, z=shares, text=counts, texttemplate="%{text}", zmin=0, zmax=1, showscale=False,
        colorscale=[[0, "#EAF2F8"], [1, "#56B4E9"]], textfont={"color": "#111"}, xgap=2, ygap=2,
        hovertemplate="actual %{y}<br>predicted %{x}<br>%{text} rows, %{z:.1%} of the class<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(type="category", showgrid=False)
    return figure.update_yaxes(type="category", autorange="reversed", showgrid=False)


def calibration(record: EvaluationRecord, table: Table) -> go.Figure:
    """Draw observed against predicted shares of the positive class, with 90 % intervals."""
    figure = new_figure(
        _title(record, "brier", "Calibration"), "Predicted probability", f"Share that is {record.positive}"
    )
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": INK, "dash": "dot"}, hoverinfo="skip")
    up, down = (
        [abs(end - seen) for end, seen in zip(table[name], table["observed"], strict=True)] for name in ("high", "low")
    )
    figure.add_scatter(
        x=table["predicted"], y=table["observed"], mode="markers", marker={"color": COLOURS[0], "size": 8},
        error_y={"array": up, "arrayminus": down, "color": COLOURS[0], "thickness": 1}, customdata=table["rows"],
        hovertemplate="predicted %{x:.3f}<br>observed %{y:.3f}<br>%{customdata} rows<extra></extra>",
    )  # fmt: skip
    return _square(figure)


def scores(record: EvaluationRecord, table: Table) -> go.Figure:
    """Draw how the probabilities of the positive class are spread over both classes."""
    negative = next((name for name in record.classes if name != record.positive), "other")
    title = f"Predicted probability of {record.positive}, {record.n_rows} rows"
    figure = new_figure(title, f"Probability of {record.positive}", "Rows")
    middles = [(low + high) / 2 for low, high in zip(table["low"], table["high"], strict=True)]
    for place, (name, column) in enumerate(((negative, "negative"), (record.positive, "positive"))):
        figure.add_bar(x=middles, y=table[column], name=str(name), marker={"color": COLOURS[place]}, opacity=0.75)
    return figure.update_layout(barmode="overlay", bargap=0.05, showlegend=True)


def predicted_vs_actual(record: EvaluationRecord, table: Table) -> go.Figure:
    """Draw predictions over the truth; on the dotted line they are right."""
    figure = new_figure(_title(record, "r2", "Predicted and actual"), "Actual", "Predicted")
    ends = [min(table["actual"] + table["predicted"]), max(table["actual"] + table["predicted"])]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": INK, "dash": "dot"}, hoverinfo="skip", showlegend=False
    )
    return _by_target(figure, table, "actual", "predicted")


def residuals(record: EvaluationRecord, table: Table) -> go.Figure:
    """Draw residuals (actual less predicted) over predictions; no pattern is a good sign."""
    figure = new_figure(_title(record, "rmse", "Residuals"), "Predicted", "Actual less predicted")
    figure.add_hline(y=0, line={"color": INK, "dash": "dot"})
    return _by_target(figure, table, "predicted", "residual")


def residual_bars(record: EvaluationRecord, table: Table) -> go.Figure:
    """Draw how the residuals are spread."""
    figure = new_figure(_title(record, "mae", "Spread of the residuals"), "Actual less predicted", "Rows")
    names = list(dict.fromkeys(table["target"]))
    for place, name in enumerate(names[:MOST_CURVES]):
        rows = [row for row, of in enumerate(table["target"]) if of == name]
        figure.add_bar(
            x=[(table["low"][row] + table["high"][row]) / 2 for row in rows], y=[table["rows"][row] for row in rows],
            width=[table["high"][row] - table["low"][row] for row in rows], name=str(name),
            marker={"color": COLOURS[place]}, opacity=0.75,
        )  # fmt: skip
    return figure.update_layout(barmode="overlay", showlegend=len(names) > 1)


CHARTS: tuple[tuple[str, Chart], ...] = (
    ("roc", roc),
    ("precision_recall", precision_recall),
    ("confusion", confusion),
    ("calibration", calibration),
    ("scores", scores),
    ("predicted_vs_actual", predicted_vs_actual),
    ("residuals", residuals),
    ("residual_bars", residual_bars),
)


def _has_rows(record: EvaluationRecord, name: str) -> bool:
    return all(len(column) > 0 for column in record.tables[name].values())


def _title(record: EvaluationRecord, metric: str, otherwise: str) -> str:
    return figure_of(record, metric) if metric in record.metrics else otherwise


def new_figure(title: str, x: str, y: str) -> go.Figure:
    """Return an empty chart that reads well on a light and on a dark page."""
    figure = go.Figure()
    figure.update_layout(
        template="none", paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, font={"color": INK, "size": 12}, colorway=COLOURS,
        title={"text": title, "font": {"size": 13, "color": INK}, "x": 0, "xref": "paper", "y": 0.96, "yanchor": "top"},
        legend={"bgcolor": CLEAR, "orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}, showlegend=False,
        width=460, height=380, margin={"l": 64, "r": 32, "t": 72, "b": 56},
        modebar={"orientation": "v", "bgcolor": CLEAR, "color": INK},
    )  # fmt: skip
    figure.update_xaxes(title=x, gridcolor=GRID, zeroline=False, linecolor=GRID, automargin=True)
    figure.update_yaxes(title=y, gridcolor=GRID, zeroline=False, linecolor=GRID, automargin=True)
    return figure


def _square(figure: go.Figure) -> go.Figure:
    figure.update_xaxes(range=[-0.02, 1.02], tickvals=[0, 0.25, 0.5, 0.75, 1])
    return figure.update_yaxes(range=[-0.02, 1.02], tickvals=[0, 0.25, 0.5, 0.75, 1])


def _by_target(figure: go.Figure, table: Table, x: str, y: str) -> go.Figure:
    names = list(dict.fromkeys(table["target"]))
    for place, name in enumerate(names[:MOST_CURVES]):
        rows = [row for row, of in enumerate(table["target"]) if of == name]
        figure.add_scatter(
            x=[table[x][row] for row in rows], y=[table[y][row] for row in rows], mode="markers", name=str(name),
            marker={"color": COLOURS[place], "size": 6, "opacity": 0.7},
            hovertemplate=f"{x} %{{x:.4g}}<br>{y} %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    return figure.update_layout(showlegend=len(names) > 1)


def _mistakes(title: str, table: Table) -> go.Figure:
    wrong = [row for row in zip(*table.values(), strict=True) if row[0] != row[1]]
    worst = sorted(wrong, key=lambda row: -row[2])[:LARGEST_MATRIX]
    figure = new_figure(f"{title}; {'most frequent mistakes' if worst else 'no mistakes'}", "Rows", "")
    names = [f"{actual} taken for {predicted}" for actual, predicted, _ in worst]
    figure.add_bar(x=[row[2] for row in worst], y=names, orientation="h", marker={"color": COLOURS[1]})
    return figure.update_yaxes(autorange="reversed")
