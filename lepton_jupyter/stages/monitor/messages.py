"""What an alert or a report says to a channel: a title with the verdict, a body of plain text. No markup, no code."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lepton_jupyter.formats.alerts import AlertView

MAX_TITLE = 180
MAX_SENTENCES = 12
MAX_SENTENCE = 400
MAX_TEXT = 2000


def figure(value: float | None) -> str:
    """Return a value as people read it.

    Examples
    --------
    >>> figure(0.41237), figure(12410.0), figure(None)
    ('0.412', '12410', 'not measured')
    """
    if value is None:
        return "not measured"
    return f"{value:.0f}" if value == round(value, 0) and abs(value) < 1e12 else f"{value:.3g}"


def clock(at: float) -> str:
    """Return a time as ``2026-03-01 12:30 UTC``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def alert_title(alert: AlertView, result: Mapping[str, Any]) -> str:
    """Return ``[FIRING] diagnosis: psi > 0.2 (0.41), DRIFT``; the report's verdict is left out where there is none."""
    value = f" ({figure(alert.value)})" if alert.value is not None else ""
    verdict = f", {result['verdict']}" if result.get("verdict") else ""
    return _one_line(f"[{alert.state.upper()}] {alert.subject}: {alert.rule}{value}{verdict}")


def report_title(subject: str, result: Mapping[str, Any]) -> str:
    """Return ``[REPORT] diagnosis: DRIFT: age drifted``."""
    said = [subject, *(str(result[key]) for key in ("verdict", "headline") if result.get(key))]
    return _one_line(f"[REPORT] {': '.join(said)}")


def alert_body(alert: AlertView, result: Mapping[str, Any], *, where: str) -> str:
    """Return the text of an alert's message: what is met, since when, what the report says, what to do.

    Parameters
    ----------
    alert : AlertView
    result : mapping
        What the run found: ``verdict``, ``headline``, ``sentences``; empty where it found nothing.
    where : str
        The report's path.
    """
    parts = [_cut(alert.text, MAX_TEXT), *_findings(result)]
    if where:
        parts.append(f"Report: {where}")
    about = f"Alert {alert.id} of schedule {alert.schedule}, since {clock(alert.since)}."
    parts.append(
        about if alert.state == "resolved" else f"{about}\nTo be told no more of it, acknowledge alert {alert.id}."
    )
    return "\n\n".join(part for part in parts if part)


def report_body(result: Mapping[str, Any], *, schedule: str, where: str) -> str:
    """Return the text of a report's message."""
    parts = [*_findings(result), f"Report: {where}" if where else "", f"Sent by schedule {schedule}."]
    return "\n\n".join(part for part in parts if part)


def _findings(result: Mapping[str, Any]) -> list[str]:
    said = [str(result[key]) for key in ("verdict", "headline") if result.get(key)]
    sentences = result.get("sentences") or ()
    listed = [sentences] if isinstance(sentences, str) else list(sentences)
    shown = [f"- {_cut(' '.join(str(sentence).split()), MAX_SENTENCE)}" for sentence in listed[:MAX_SENTENCES]]
    if len(listed) > MAX_SENTENCES:
        shown.append(f"- and {len(listed) - MAX_SENTENCES} more in the report")
    return [_cut(": ".join(said), MAX_SENTENCE), "\n".join(shown)]


def _one_line(text: str) -> str:
    return _cut(" ".join(text.split()), MAX_TITLE)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
