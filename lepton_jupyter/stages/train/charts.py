"""Curves of a training: a table of epochs in, a plotly figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

COLOURS = {"train": "#5c6bc0", "val": "#ef6c00"}
NOT_DRAWN = ("epoch", "lr", "rows_per_s")


def curves(history: Mapping[str, Sequence[float]], *, metric: str = "loss", best_epoch: int | None = None) -> go.Figure:
    """Return a metric over the epochs, training beside validation.

    Parameters
    ----------
    history : mapping of str to sequence
        ``epoch`` and ``train_loss``, ``val_loss`` …, one value an epoch.
    metric : str
        Without ``train_`` and ``val_``.
    best_epoch : int, optional
        Is marked.
    """
    figure = go.Figure()
    for split, label in (("train", "training"), ("val", "validation")):
        values = history.get(f"{split}_{metric}")
        if values:
            mode = "lines" if len(values) > 1 else "markers"
            figure.add_scatter(
                x=list(history["epoch"]), y=list(values), name=label, mode=mode, line={"color": COLOURS[split]}
            )
    if best_epoch is not None:
        figure.add_vline(x=best_epoch, line_dash="dot", line_color="#777", annotation_text=f"best: epoch {best_epoch}")
    figure.update_layout(
        template="plotly_white",
        height=320,
        title=f"{metric.replace('_', ' ').capitalize()} over the epochs",
        margin={"l": 60, "r": 20, "t": 60, "b": 40},
        xaxis_title="epoch",
        yaxis_title=metric.replace("_", " "),
        legend={"orientation": "h", "y": 1.02, "x": 1, "xanchor": "right", "yanchor": "bottom"},
    )
    return figure


def metrics_of(history: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the metrics that can be drawn, the loss first."""
    names = {
        name.removeprefix("train_").removeprefix("val_") for name in history if name not in NOT_DRAWN and history[name]
    }
    return sorted(names, key=lambda name: (name != "loss", name))


def figures(history: Mapping[str, Sequence[float]], *, best_epoch: int | None = None) -> list[go.Figure]:
    """Return one figure for each metric of a training; none where there were no epochs."""
    return [curves(history, metric=metric, best_epoch=best_epoch) for metric in metrics_of(history)]
