"""A report in words: plain text, and HTML without a script. Light: no numpy, no plotly."""

from __future__ import annotations

from html import escape

from lepton_jupyter.formats.monitor import ColumnReport, MonitorRecord
from lepton_jupyter.stages.monitor.text import MEANING, moment, share

MOST_COLUMNS = 20

_MARK = {"OK": "✓", "DRIFT": "✗", "NOT ENOUGH DATA": "?", "NO TRAFFIC": "·"}  # never by colour alone
_COLOUR = {"OK": "#009E73", "DRIFT": "#D55E00", "NOT ENOUGH DATA": "#B07700", "NO TRAFFIC": "#7a7a7a"}
_HEAD = ("Column", "PSI", "By chance", "p", "Missing", "in training", "Unseen", "Outside", "")


def as_text(record: MonitorRecord) -> str:
    """Return the verdict, what changed, and the columns as plain text."""
    lines = [f"{_MARK[record.verdict]} {record.verdict}: {record.headline}", _subject(record), ""]
    lines += [f"  {sentence}" for sentence in record.sentences]
    rows = [_HEAD, *(_row(column) for column in record.columns[:MOST_COLUMNS])]
    if len(rows) == 1:
        return "\n".join(lines)
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *table, *_more(record)])


def as_html(record: MonitorRecord) -> str:
    """Return the same as HTML: no script, no style outside of the elements, every text escaped."""
    cell = "padding:2px 12px 2px 0;text-align:left"
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in record.sentences)
    parts = [
        f'<p><strong style="color:{_COLOUR[record.verdict]}">{_MARK[record.verdict]} {record.verdict}</strong> '
        f"<span>{escape(record.headline)}</span></p>",
        f"<p>{escape(_subject(record))} <em>{escape(MEANING[record.verdict].capitalize())}.</em></p>",
        f"<ul>{items}</ul>",
    ]
    if record.columns:
        head = "".join(f'<th scope="col" style="{cell}">{escape(name)}</th>' for name in _HEAD)
        body = "".join(_html_row(_row(column), cell) for column in record.columns[:MOST_COLUMNS])
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        parts += [f"<p>{escape(line)}</p>" for line in _more(record)]
    return f"<div>{''.join(parts)}</div>"


class Summary:
    """A report as a notebook shows it: `as_html`, or `as_text` where there is no browser."""

    def __init__(self, record: MonitorRecord) -> None:
        self.record = record

    def __repr__(self) -> str:
        return as_text(self.record)

    def _repr_html_(self) -> str:
        return as_html(self.record)


def _subject(record: MonitorRecord) -> str:
    window = record.window
    start = f"{moment(window.start)} to " if window.start else "everything until "
    against = f", against {record.n_reference:,} training rows" if record.n_reference else ""
    return f"{record.endpoint} with {record.version}, {start}{moment(window.end)} UTC{against}."


def _row(column: ColumnReport) -> tuple[str, ...]:
    is_judged = column.psi is not None and column.noise is not None and column.p is not None
    return (
        column.name,
        f"{column.psi + column.noise:.3f}" if is_judged else "–",  # type: ignore[operator]  # judged: both are there
        f"{column.noise:.3f}" if is_judged else "",
        _p(column.p) if column.p is not None else "",
        share(column.missing),
        share(column.missing_before),
        share(column.unseen) if column.unseen else "",
        f"{column.n_outside:,}" if column.n_outside else "",
        "drifted" if column.has_drifted else "more missing" if column.has_more_missing else "",
    )


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _more(record: MonitorRecord) -> list[str]:
    hidden = len(record.columns) - MOST_COLUMNS
    return [f"{hidden} more columns, closer to training, are in result.json."] if hidden > 0 else []


def _html_row(row: tuple[str, ...], cell: str) -> str:
    first, *others = (escape(text) for text in row)
    return f'<tr><th scope="row" style="{cell};font-weight:normal">{first}</th>' + "".join(
        f'<td style="{cell}">{text}</td>' for text in others
    ) + "</tr>"  # fmt: skip


class Checks:
    """The checks with their values, as a notebook shows them; those of single columns are in the table of columns."""

    def __init__(self, record: MonitorRecord) -> None:
        self.record = record

    def __repr__(self) -> str:
        lines = [f"{name}  {_value(value)}" for name, value in self._checks()]
        failed = [f"{status} {error}: {n:,}" for status, error, n in self._errors()]
        return "\n".join([*lines, *failed])

    def _repr_html_(self) -> str:
        cell = "padding:2px 12px 2px 0;text-align:left"
        body = "".join(_html_row((name, _value(value)), cell) for name, value in self._checks())
        parts = [f"<table><tbody>{body}</tbody></table>"]
        if self._errors():
            rows = "".join(_html_row((str(status), error, f"{n:,}"), cell) for status, error, n in self._errors())
            parts.append(f"<h3>Requests that were refused or failed</h3><table><tbody>{rows}</tbody></table>")
        return f"<div>{''.join(parts)}</div>"

    def _checks(self) -> list[tuple[str, float | None]]:
        return [(name, value) for name, value in self.record.checks.items() if "(" not in name]

    def _errors(self) -> list[tuple[int, str, int]]:
        table = self.record.tables.get("errors", {"status": [], "error": [], "requests": []})
        return list(zip(table["status"], table["error"], table["requests"], strict=True))


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value == int(value) else f"{value:.4g}"
