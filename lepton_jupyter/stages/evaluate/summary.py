"""An evaluation in words: plain text, and HTML without a script. Light: no numpy, no plotly."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from lepton_jupyter.formats.evaluation import Comparison, EvaluationRecord, Requirement
from lepton_jupyter.stages.evaluate.metrics import METRICS

_MEANING = {
    "PASS": "the interval's near end meets every requirement",
    "FAIL": "a measured value misses a requirement",
    "INCONCLUSIVE": "too few rows to say",
    "NONE": "nothing was required",
}
_MARK = {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?", "NONE": "·"}  # never by colour alone
_COLOUR = {"PASS": "#009E73", "FAIL": "#D55E00", "INCONCLUSIVE": "#B07700", "NONE": "#7a7a7a"}


def number(value: float) -> str:
    """Return a value with four digits that matter: ``0.9931``, ``53.21``, ``1.234e+06``."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 1 or value in (0, 1) else f"{value:.4g}"


def figure_of(record: EvaluationRecord, metric: str) -> str:
    """Return a metric's title, value and interval: ``ROC AUC 0.9931 (90 %: 0.9812 to 0.9975)``."""
    span = record.intervals.get(metric)
    inside = f" (90 %: {number(span.low)} to {number(span.high)})" if span else ""
    return f"{title_of(record, metric)} {number(record.metrics[metric])}{inside}"


def title_of(record: EvaluationRecord, metric: str) -> str:
    """Return what a table calls a metric."""
    return next((one.title for one in METRICS if one.name == metric and one.task == record.task), metric)


def describe_requirement(requirement: Requirement) -> str:
    """Return a requirement with what was measured and, where it is open, what would settle it."""
    text = f"{requirement.text}: {requirement.verdict}, measured {number(requirement.value)}"
    if requirement.verdict != "INCONCLUSIVE":
        return text
    rows = requirement.rows_needed
    return f"{text}; about {rows:,} rows would settle it" if rows else f"{text}; more rows are needed"


def describe_comparison(comparison: Comparison) -> str:
    """Return a comparison in one sentence."""
    if comparison.difference is None or comparison.low is None or comparison.high is None:
        return f"Against {comparison.against}: {comparison.verdict}, {comparison.reason}."
    return (
        f"Against {comparison.against}: {comparison.verdict}; {comparison.metric} better by "
        f"{comparison.difference:+.4g} ({comparison.low:+.4g} to {comparison.high:+.4g}, {comparison.method}) "
        f"on {comparison.n_rows:,} rows that neither was trained on."
    )


def as_text(record: EvaluationRecord) -> str:
    """Return the verdict, the requirements, every metric with its interval, and the comparison as plain text."""
    lines = [f"{_MARK[record.verdict]} {record.verdict}: {_MEANING[record.verdict]}", _subject(record)]
    lines += [f"  {describe_requirement(requirement)}" for requirement in record.requirements]
    rows = [("metric", "value", "90 % interval", "method"), *_rows(record)]
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    lines += [
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
    if record.comparison is not None:
        lines += ["", describe_comparison(record.comparison)]
    return "\n".join(lines)


def as_html(record: EvaluationRecord) -> str:
    """Return the same as HTML: no script, no style outside of the elements, every text escaped."""
    colour = _COLOUR[record.verdict]
    cell = "padding:2px 12px 2px 0;text-align:left"
    parts = [
        f'<p><strong style="color:{colour}">{_MARK[record.verdict]} {record.verdict}</strong> '
        f"<span>{escape(_MEANING[record.verdict])}</span></p>",
        f"<p>{escape(_subject(record))}</p>",
    ]
    if record.requirements:
        items = "".join(f"<li>{escape(describe_requirement(one))}</li>" for one in record.requirements)
        parts.append(f"<ul>{items}</ul>")
    head = "".join(
        f'<th scope="col" style="{cell}">{name}</th>' for name in ("Metric", "Value", "90 % interval", "Method")
    )
    body = "".join(_html_row(row, cell) for row in _rows(record))
    parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if record.comparison is not None:
        parts.append(f"<p>{escape(describe_comparison(record.comparison))}</p>")
    return f"<div>{''.join(parts)}</div>"


class Summary:
    """An evaluation as a notebook shows it: `as_html`, or `as_text` where there is no browser."""

    def __init__(self, record: EvaluationRecord) -> None:
        self.record = record

    def __repr__(self) -> str:
        return as_text(self.record)

    def _repr_html_(self) -> str:
        return as_html(self.record)


def _subject(record: EvaluationRecord) -> str:
    rows = f"{record.n_rows:,} row{'' if record.n_rows == 1 else 's'}"
    positive = f", positive class {record.positive}" if record.positive is not None else ""
    return f"{record.version} on {record.dataset}, {rows}{positive}." + (
        f" Mind: {record.remark}." if record.remark else ""
    )


def _rows(record: EvaluationRecord) -> Iterable[tuple[str, str, str, str]]:
    for metric, value in record.metrics.items():
        span = record.intervals.get(metric)
        ends = f"{number(span.low)} to {number(span.high)}" if span else "–"
        yield title_of(record, metric), number(value), ends, span.method if span else ""


def _html_row(row: tuple[str, str, str, str], cell: str) -> str:
    first, *others = (escape(text) for text in row)
    return f'<tr><th scope="row" style="{cell};font-weight:normal">{first}</th>' + "".join(
        f'<td style="{cell}">{text}</td>' for text in others
    ) + "</tr>"  # fmt: skip
