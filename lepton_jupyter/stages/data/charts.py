"""Charts of a dataset, from its record and profile."""

from __future__ import annotations

from itertools import pairwise

import plotly.graph_objects as go

from lepton_jupyter.formats.profile import NumberProfile, Profile, TextProfile
from lepton_jupyter.formats.records import DatasetRecord

MAX_BARS = 20
MAX_HISTOGRAMS = 12
N_BINS = 20


def figures(record: DatasetRecord, profile: Profile) -> list[go.Figure]:
    """Return the charts that say something about a dataset: classes, missing values, the first columns."""
    found = [class_balance(record), missing(profile)]
    names = [column.name for column in record.schema.columns][:MAX_HISTOGRAMS]
    return [figure for figure in found if figure is not None] + [histogram(profile, name) for name in names]


def class_balance(record: DatasetRecord) -> go.Figure | None:
    """Return the rows of each class, None where there are no classes."""
    if not record.class_counts:
        return None
    labels = sorted(record.class_counts, key=lambda label: -record.class_counts[label])[:MAX_BARS]
    figure = go.Figure(go.Bar(x=labels, y=[record.class_counts[label] for label in labels]))
    return _titled(figure, f"Rows of each {record.schema.targets[0]}", "class", "rows")


def missing(profile: Profile) -> go.Figure | None:
    """Return the share of missing values of each column that has some, None where none has."""
    columns: dict[str, NumberProfile | TextProfile] = {**profile.numbers, **profile.texts}
    shares = {name: column.missing / profile.n_rows for name, column in columns.items() if column.missing}
    if not shares:
        return None
    names = sorted(shares, key=lambda name: -shares[name])[:MAX_BARS]
    figure = go.Figure(go.Bar(x=names, y=[shares[name] for name in names]))
    figure.update_yaxes(tickformat=".0%")
    return _titled(figure, "Missing values in the training rows", "column", "share of rows")


def histogram(profile: Profile, name: str) -> go.Figure:
    """Return how one column's values lie in the training rows.

    Raises
    ------
    KeyError
        If the profile has no such column.
    """
    if name in profile.texts:
        figure, unit = _of_text(profile.texts[name]), "rows"
    else:
        figure, unit = _of_numbers(profile.numbers[name])
    return _titled(figure, name, name, unit)


def _of_text(column: TextProfile) -> go.Figure:
    counts = dict(zip(column.categories[:MAX_BARS], column.counts[:MAX_BARS], strict=True))
    rest = column.other + sum(column.counts[MAX_BARS:])
    counts.update({label: n for label, n in (("(other)", rest), ("(missing)", column.missing)) if n})
    return go.Figure(go.Bar(x=list(counts), y=list(counts.values())))


def _of_numbers(column: NumberProfile) -> tuple[go.Figure, str]:
    """Return bars whose areas are rows: quantile bins have equal counts, so that heights must be densities."""
    if column.minimum is None or column.maximum is None:
        return go.Figure(), "rows"
    if len(column.counts) <= N_BINS:  # a few values: each has a bin of its own
        return go.Figure(
            go.Bar(x=[str(edge) for edge in (column.minimum, *column.edges)], y=list(column.counts))
        ), "rows"
    places = column.merged_bins(N_BINS)
    edges = [column.minimum, *(column.edges[place] for place in places), column.maximum]
    starts = [0, *(place + 1 for place in places), len(column.counts)]
    counts = [sum(column.counts[start:end]) for start, end in pairwise(starts)]
    widths = [max(high - low, 1e-12) for low, high in pairwise(edges)]
    centers = [(low + high) / 2 for low, high in pairwise(edges)]
    heights = [count / width for count, width in zip(counts, widths, strict=True)]
    figure = go.Figure(
        go.Bar(x=centers, y=heights, width=widths, customdata=counts, hovertemplate="%{customdata} rows")
    )
    return figure, "rows per unit"


def _titled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    figure.update_layout(title=title, height=320, margin={"l": 60, "r": 20, "t": 50, "b": 50}, showlegend=False)
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure
