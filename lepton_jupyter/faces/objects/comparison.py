"""Runs and versions side by side: what differs, what came out, their curves over each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.curve import Points, curve
from lepton_jupyter.faces.objects.table import Table

MAX_CURVES = 3  # metrics whose curves are drawn
NOT_CURVES = ("lr", "rows_per_s", "epoch")  # they are no result
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 40


@dataclass
class Side:
    """One column of a comparison.

    Attributes
    ----------
    label : str
        ``TumorNet@3``, or ``run ID``.
    thing : object
        The run or the version.
    settings : dict
        What was asked, and where it ran; shown where it differs.
    metrics : dict
    curves : dict
        Points (step, value) by metric.
    """

    label: str
    thing: Any
    settings: dict[str, Any]
    metrics: dict[str, Any]
    curves: Mapping[str, Points] = field(default_factory=dict)


class Comparison(Table[Any]):
    """The sides' table, and below it one picture a metric with a line a side.

    Attributes
    ----------
    curves : dict
        By metric, then by side: points (step, value).
    """

    def __init__(self, sides: Sequence[Side]) -> None:
        labels = _distinct([side.label for side in sides])
        settings = _rows([side.settings for side in sides], is_setting=True)
        metrics = _rows([side.metrics for side in sides], is_setting=False)
        super().__init__("compare", [side.thing for side in sides], columns=("", *labels), rows=[*settings, *metrics])
        self.curves = overlaid(sides, labels)

    def _html(self) -> str:
        pictures = [html.lines([metric]) + curve(lines, unit="step") for metric, lines in self.curves.items()]
        return html.card("compare", html.table(self._columns, self._rows), *pictures)

    def _text(self) -> str:
        lines = [super()._text()]
        for metric, drawn in self.curves.items():
            width = max(map(len, drawn))
            lines += ["", metric, *(f"  {name:<{width}}  {_spark(points)}" for name, points in drawn.items())]
        return "\n".join(lines)


def overlaid(sides: Sequence[Side], labels: Sequence[str]) -> dict[str, dict[str, Points]]:
    """Return the curves to draw: metrics that most sides have, losses first, each with a line a side."""
    counts: dict[str, int] = {}
    for side in sides:
        for metric, points in side.curves.items():
            if sum(math.isfinite(y) for _, y in points) > 1:
                counts[metric] = counts.get(metric, 0) + 1
    order = sorted(counts, key=lambda metric: (-counts[metric], "val_loss" not in metric, "loss" not in metric))
    chosen = [metric for metric in order if metric not in NOT_CURVES][:MAX_CURVES]
    return {
        metric: {label: side.curves[metric] for label, side in zip(labels, sides, strict=True) if metric in side.curves}
        for metric in chosen
    }


def _distinct(labels: Sequence[str]) -> list[str]:
    """Return the labels; one that was named twice gets a number."""
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: at + 1].count(label)})"
        for at, label in enumerate(labels)
    ]


def _rows(sides: Sequence[Mapping[str, Any]], *, is_setting: bool) -> list[tuple[Any, ...]]:
    """Return a row a key; of settings those that differ."""
    keys = dict.fromkeys(key for side in sides for key in side)
    rows = [(key.replace("_", " ") if is_setting else key, *(_cell(side.get(key)) for side in sides)) for key in keys]
    return [row for row in rows if not is_setting or len({str(value) for value in row[1:]}) > 1]


def _cell(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _spark(points: Points) -> str:
    """Return a curve as a line of text, from its first to its last finite point."""
    values = [y for _, y in points if math.isfinite(y)]
    if not values:
        return ""
    step = max(1.0, len(values) / SPARK_WIDTH)
    shown = [values[min(int(at * step), len(values) - 1)] for at in range(min(len(values), SPARK_WIDTH))]
    shown[-1] = values[-1]
    low, high = min(shown), max(shown)
    blocks = "".join(SPARKS[round((value - low) / ((high - low) or 1.0) * (len(SPARKS) - 1))] for value in shown)
    return f"{blocks}  {html.number(values[0])} → {html.number(values[-1])}"
