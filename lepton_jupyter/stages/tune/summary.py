"""A search in words: what it found, its trials as a table."""

from __future__ import annotations

from typing import Any

from lepton_jupyter.formats.tuning import TrialRecord, TuningRecord

N_SHOWN = 10


def ranked(record: TuningRecord) -> list[TrialRecord]:
    """Return the trials that have a value, the best first; completed ones before pruned ones."""
    sign = -1.0 if record.direction == "maximize" else 1.0
    with_value = [trial for trial in record.trials if trial.value is not None]
    return sorted(with_value, key=lambda trial: (trial.state != "complete", sign * (trial.value or 0.0)))


def rows_of(record: TuningRecord, n_shown: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of trials, the best first."""
    names = list(record.space)
    head = ["trial", record.metric, *names, "epochs", "state"]
    rows = [
        [f"{trial.number}", short(trial.value), *(short(trial.params.get(name)) for name in names), f"{trial.epochs}",
         trial.state]
        for trial in ranked(record)[:n_shown]
    ]  # fmt: skip
    return head, rows


def counted(record: TuningRecord) -> str:
    """Return ``50 trials (12 completed, 38 pruned)``."""
    words = (("complete", "completed"), ("pruned", "pruned"), ("failed", "failed"))
    parts = [f"{record.count(state)} {word}" for state, word in words if record.count(state)]
    return f"{len(record.trials)} trials ({', '.join(parts)})"


def as_text(record: TuningRecord) -> str:
    """Return the best trial, the table of the first ten, and what mattered."""
    lines = [counted(record) + (f", {record.how}" if record.how else "")]
    best = record.best_trial
    if best is not None:
        settings = "  ".join(f"{name}={short(value)}" for name, value in best.params.items())
        lines.append(f"best: trial {best.number}, {record.metric} {short(best.value)} with {settings}")
    head, rows = rows_of(record, N_SHOWN)
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    if record.importance:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in record.importance.items())
        lines.append(f"what mattered: {shares}")
    return "\n".join(lines)


def short(value: Any) -> str:
    """Return a number with four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
