"""Cards as HTML: no script, styles inline, colours that can be read on light and dark, everything escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

GOOD, WARN, BAD, BUSY, PLAIN = "#16a34a", "#d97706", "#dc2626", "#3b82f6", "#808080"
LINE = "rgba(128,128,128,.35)"
COLOURS = {
    "completed": GOOD, "ready": GOOD, "PASS": GOOD, "champion": GOOD, "ok": GOOD, "promoted": GOOD, "resolved": GOOD,
    "OK": GOOD, "active": GOOD, "paused": WARN,
    "failed": BAD, "lost": BAD, "error": BAD, "FAIL": BAD, "problem": BAD, "firing": BAD, "DRIFT": BAD,
    "stopped": WARN, "waits for you": WARN, "INCONCLUSIVE": WARN, "warning": WARN, "pending": WARN,
    "queued": BUSY, "starting": BUSY, "running": BUSY, "updating": BUSY,
}  # fmt: skip

_MUTED = "opacity:.7"
_MONO = "font-family:ui-monospace,Menlo,Consolas,monospace"


def escape(value: Any) -> str:
    """Return text that shows as it is."""
    return html.escape(str(value), quote=True)


def card(title: str, *parts: str, badge: str = "", subtitle: str = "") -> str:
    """Return a framed card. `title`, `badge` and `subtitle` are text; `parts` are HTML made by this module."""
    head = f'<span style="font-weight:600;font-size:1.05em">{escape(title)}</span>'
    if badge:
        head += " " + pill(badge)
    if subtitle:
        head += f' <span style="{_MUTED}">{escape(subtitle)}</span>'
    body = "".join(part for part in parts if part)
    return (
        f'<div style="border:1px solid {LINE};border-radius:6px;padding:10px 14px;margin:4px 0;max-width:980px;'
        f'color:inherit;background:transparent;line-height:1.45"><div>{head}</div>{body}</div>'
    )


def pill(text: str) -> str:
    """Return a word in its colour."""
    colour = COLOURS.get(text, PLAIN)
    return (
        f'<span style="border:1px solid {colour};color:{colour};border-radius:9px;padding:0 7px;'
        f'font-size:.85em;font-weight:600">{escape(text)}</span>'
    )


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Return small facts on one line that wraps; empty values are left out."""
    shown = [
        f'<span style="margin-right:16px;white-space:nowrap"><span style="{_MUTED}">{escape(key)}</span> '
        f"{escape(value)}</span>"
        for key, value in pairs
        if value not in (None, "")
    ]
    return f'<div style="margin-top:6px">{" ".join(shown)}</div>' if shown else ""


def lines(texts: Iterable[str], *, colour: str = "", is_code: bool = False) -> str:
    """Return lines of text, one below the other."""
    style = (f"color:{colour};" if colour else "") + (
        f"{_MONO};font-size:.9em;white-space:pre-wrap;" if is_code else ""
    )
    return "".join(f'<div style="margin-top:4px;{style}">{escape(text)}</div>' for text in texts if text)


def pictures(named: Mapping[str, bytes]) -> str:
    """Return PNG files, each under its name."""
    return "".join(
        f'<div style="margin-top:4px"><div style="font-size:.9em">{escape(name)}</div>'
        f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}"></div>'
        for name, content in named.items()
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, pills: Sequence[str] = ()) -> str:
    """Return a table. Cells are text (numbers right), except columns named in `pills`, which show coloured words."""
    head = "".join(
        f'<th style="text-align:left;padding:3px 12px 3px 0;border-bottom:1px solid {LINE};font-weight:600">'
        f"{escape(column)}</th>"
        for column in columns
    )
    body = "".join(
        "<tr>" + "".join(_cell(value, column in pills) for column, value in zip(columns, row, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        '<div style="overflow-x:auto;margin-top:6px"><table style="border-collapse:collapse;color:inherit;'
        f'background:transparent;font-size:.95em"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(value: Any, is_pill: bool) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    inner = " ".join(pill(word) for word in str(value).split()) if is_pill and value else escape(number(value))
    align = "right" if is_number else "left"
    return f'<td style="text-align:{align};padding:3px 12px 3px 0;background:transparent">{inner}</td>'


def number(value: Any) -> str:
    """Return a figure as people read it: four significant digits of a float, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 or value != int(value) else f"{value:.0f}"
    return str(value)


def bar(share: float) -> str:
    """Return a progress bar."""
    width = max(0.0, min(1.0, share)) * 100
    return (
        f'<div style="height:6px;border-radius:3px;background:{LINE};margin-top:8px;max-width:480px">'
        f'<div style="height:6px;border-radius:3px;background:{BUSY};width:{width:.1f}%"></div></div>'
    )


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return the same table as text."""
    cells = [[str(column) for column in columns], *([number(value) for value in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
