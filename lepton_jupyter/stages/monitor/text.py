"""What a report says to a person: short sentences with their figures. Light: no numpy, no plotly."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lepton_jupyter.formats.monitor import ColumnReport, MonitorRecord, Window

if TYPE_CHECKING:
    from lepton_jupyter.stages.monitor.compare import Compared

ENOUGH = 300  # effective rows
MOST_NAMED = 5
WORTH_SAYING = 1.1  # design effect; independent rows show up to about so much by chance
FEW_ROWS_SHARE = 0.01  # outside of the range of training: fewer are said in the table only

MEANING = {
    "OK": "nothing that matters has changed",
    "DRIFT": "the rows are not what the model was trained on",
    "NOT ENOUGH DATA": "too few independent rows to say; this is not 'no drift'",
    "NO TRAFFIC": "no row was scored; this is not 'no drift'",
}


def headline(record: MonitorRecord) -> str:
    """Return one sentence without the endpoint's name: what a mail's subject says behind the verdict."""
    window = record.window
    match record.verdict:
        case "NO TRAFFIC":
            refused = f"; {_count(window.n_failed, 'request')} refused or failed" if window.n_failed else ""
            return f"no row was scored in {span(window)}{refused}"
        case "NOT ENOUGH DATA":
            if window.n_effective >= ENOUGH:
                return f"{_count(window.n_rows, 'row')}, but no column could be judged"
            return f"{window.n_effective:,.0f} independent rows of the {ENOUGH} that a verdict needs"
        case "DRIFT":
            return _what_changed(record)
    return f"no drift in {_count(window.n_rows, 'row')}"


def _what_changed(record: MonitorRecord) -> str:
    drifted = [column.name for column in record.columns if column.has_drifted and column.kind != "prediction"]
    missing = [column.name for column in record.columns if column.has_more_missing and not column.has_drifted]
    parts = [f"{_named(drifted)} drifted"] if drifted else []
    parts += [f"more values of {_named(missing)} are missing"] if missing else []
    if any(column.has_drifted and column.kind == "prediction" for column in record.columns):
        parts.append("the predictions changed" if not parts else "so did the predictions")
    return ", ".join(parts)


def sentences(
    record: MonitorRecord, *, n_other: int, has_predicted: bool, withheld: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return what changed, most important first, then what limits the answer, then traffic.

    Parameters
    ----------
    record : MonitorRecord
    n_other : int
        Rows of a version with other columns.
    has_predicted : bool
        Whether the version has a profile of its predictions.
    withheld : sequence of str
        Columns whose values the log has not.
    """
    window = record.window
    told = [c for c in record.columns if c.text and (c.has_drifted or c.has_more_missing)]
    rest = [c for c in record.columns if c.text and not (c.has_drifted or c.has_more_missing)]
    said = [column.text for column in told]
    if record.verdict in ("NO TRAFFIC", "NOT ENOUGH DATA"):
        said.append(_not_enough(record))
    said += [column.text for column in rest[:MOST_NAMED]]
    if len(rest) > MOST_NAMED:
        said.append(f"{len(rest) - MOST_NAMED} more columns are in the table.")
    if window.n_rows:
        said.append(_traffic(window))
    said.append(_service(record))
    if len(record.versions) > 1:
        said.append("Answered by " + ", ".join(f"{name} ({n:,} rows)" for name, n in record.versions.items()) + ".")
    if n_other:
        said.append(f"{_count(n_other, 'row')} of a version with other columns could not be compared.")
    if withheld:
        is_one = len(withheld) == 1
        said.append(
            f"{_named(list(withheld))} {'is' if is_one else 'are'} personal and kept out of the log: "
            f"whether {'it' if is_one else 'they'} changed is not known."
        )
    if record.window.n_rows and not has_predicted:
        said.append(f"{record.version} keeps no profile of its predictions: whether they changed is not known.")
    return tuple(said)


def of_share(log_share: float) -> str:
    """Return what it means that a share of the requests is logged."""
    if log_share == 0:
        return "No rows are logged (--log-share 0): requests that were answered are not seen here."
    return f"{share(log_share)} of the requests are logged: counts of what was answered are estimates."


def of_column(
    column: ColumnReport, compared: Compared, *, positive: str | None = None, prose: Collection[str] = ()
) -> str:
    """Return one sentence on a column; empty where there is nothing to say. Of prose, words are counted."""
    name = column.name
    before, now = compared.sides(name)
    parts = []
    if column.has_drifted and column.psi is not None and column.noise is not None:
        size = f"PSI {column.psi + column.noise:.2f} where chance gives {column.noise:.2f}"
        if column.kind == "prediction":
            return f"{_of_predictions(compared, name, positive)} ({size})."
        parts.append(f"{name} drifted: {size}{'' if column.has_more_missing else _moved(compared, name, prose)}.")
    if column.has_more_missing:
        parts.append(
            f"{name} is missing in {share(column.missing)} of rows, {share(column.missing_before)} in training."
        )
    if column.unseen:
        parts.append(f"{name}: {share(column.unseen)} of rows have a category that training had not.")
    if column.n_outside >= max(1, FEW_ROWS_SHARE * now.n_rows) and not column.has_drifted:
        low, high = before.numbers[name].minimum, before.numbers[name].maximum
        parts.append(
            f"{name}: {_count(column.n_outside, 'row')} outside the range of training ({low:.4g} to {high:.4g})."
        )
    return " ".join(parts)


def _moved(compared: Compared, name: str, prose: Collection[str]) -> str:
    """Return how a column moved: its mean, or the category that changed most."""
    before, now = compared.sides(name)
    if name in before.numbers:
        old, new = before.numbers[name].mean, now.numbers[name].mean
        unit = " words" if name in prose else ""
        return "" if old is None or new is None else f"; its mean is {new:.4g}{unit}, {old:.4g} in training"
    label, old_share, new_share = _largest_change(compared, name)
    return f"; {label} is {share(new_share)} of rows, {share(old_share)} in training"


def _of_predictions(compared: Compared, name: str, positive: str | None) -> str:
    before, now = compared.sides(name)
    if name in before.numbers:
        about = name.strip("()").capitalize()
        return f"{about}: the mean is {now.numbers[name].mean:.4g}, {before.numbers[name].mean:.4g} on known rows"
    label, old_share, new_share = _largest_change(compared, name, positive)
    return f"Predicted {label} {share(new_share)}, {share(old_share)} on known rows"


def _largest_change(compared: Compared, name: str, wanted: str | None = None) -> tuple[str, float, float]:
    """Return the cell whose share changed most (or the wanted one), its share before and now."""
    before, now = compared.sides(name)
    ours, theirs = before.texts[name], now.texts[name]
    sides = zip(
        [*ours.categories, "another value", "missing"],
        [count / max(1, before.n_rows) for count in (*ours.counts, ours.other, ours.missing)],
        [count / max(1, now.n_rows) for count in (*theirs.counts, theirs.other, theirs.missing)],
        strict=True,
    )
    return max(sides, key=lambda cell: (cell[0] == wanted, abs(cell[2] - cell[1]), cell[2]))


def _not_enough(record: MonitorRecord) -> str:
    window = record.window
    if record.verdict == "NO TRAFFIC":
        return "No row was scored. This is not 'no drift'."
    if window.n_effective >= ENOUGH:
        why = "each one's rows depend on each other too much" if record.n_reference else "the version has no profile"
        return f"No column could be judged: {why}. This is not 'no drift'."
    return f"{window.n_effective:,.0f} effective rows of {ENOUGH}. This is not 'no drift'."


def _traffic(window: Window) -> str:
    if window.deff < WORTH_SAYING:
        return f"{_count(window.n_rows, 'prediction')}."
    worth = f"worth {window.n_effective:,.0f} independent ones ({window.deff_from})"
    return f"{_count(window.n_rows, 'prediction')}, {worth}."


def _service(record: MonitorRecord) -> str:
    window, p95 = record.window, record.checks.get("p95_latency_ms")
    n_asked = window.n_requests + window.n_failed
    if not n_asked:
        return f"No request came in {span(window)}."
    latency = f"p95 {p95:.3g} ms, " if p95 is not None else ""
    failed = f"{share(window.n_failed / n_asked)} refused or failed" if window.n_failed else "none refused or failed"
    return f"{_count(n_asked, 'request')}: {latency}{failed}."


def share(value: float) -> str:
    """Return a share as a person reads it: ``12 %``, ``0.4 %``, ``under 0.1 %``."""
    if 0 < value < 0.001:
        return "under 0.1 %"
    return f"{100 * value:.1f} %" if 0 < value < 0.1 else f"{100 * value:.0f} %"


def span(window: Window) -> str:
    """Return how long a window is: ``5 minutes``, ``3.5 hours``."""
    seconds = max(0.0, window.end - window.start)
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            amount = f"{seconds / size:.1f}".removesuffix(".0")
            return f"{amount} {name}{'' if amount == '1' else 's'}"
    return f"{seconds:.0f} seconds"


def moment(at: float) -> str:
    """Return a moment in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _named(names: list[str]) -> str:
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]} and {len(names) - 1} other columns"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
