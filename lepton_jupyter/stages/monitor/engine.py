"""From a window of requests to a report's record: verdict, checks, columns, tables. Nothing is read or written."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.formats.monitor import ColumnReport, MonitorRecord, MonitorVerdict, Window
from lepton_jupyter.formats.profile import Profile
from lepton_jupyter.stages.monitor import text
from lepton_jupyter.stages.monitor.compare import Compared, compare
from lepton_jupyter.stages.monitor.drift import FEWEST_EFFECTIVE, missing_share, more_missing
from lepton_jupyter.stages.monitor.tables import tables
from lepton_jupyter.stages.monitor.window import MonitorWindow


def report(window: MonitorWindow) -> MonitorRecord:
    """Judge a window.

    Parameters
    ----------
    window : MonitorWindow

    Returns
    -------
    MonitorRecord
        NO TRAFFIC where no row was scored, if rows are logged at all; NOT ENOUGH DATA under 300 effective rows, which
        is not "no drift"; DRIFT where a column or the predictions drifted, or values are missing more often than in
        training; else OK.
    """
    compared = compare(window)
    columns = _columns(window, compared) if compared else ()
    about = _about(window, compared)
    record = MonitorRecord(
        endpoint=window.endpoint,
        version=window.version,
        run_id="",
        verdict=_verdict(about, columns, is_logged=window.log_share > 0),
        headline="",
        window=about,
        n_reference=compared.reference.n_rows if compared else window.reference.n_rows if window.reference else 0,
        checks=_checks(window, about, columns),
        columns=columns,
        versions=_versions(window),
        tables=tables(window, compared, columns),
    )
    said = text.sentences(
        record,
        n_other=window.n_other,
        has_predicted=window.predicted is not None,
        withheld=[column.name for column in window.schema.columns if column.name in window.withheld],
    )
    if window.log_share < 1.0:
        said = (*said, text.of_share(window.log_share))
    return msgspec.structs.replace(record, headline=text.headline(record), sentences=said)


def _about(window: MonitorWindow, compared: Compared | None) -> Window:
    requests = window.requests
    is_answered = requests["status"] < 400
    return Window(
        start=window.start,
        end=window.end,
        n_requests=round(requests["weight"].filter(is_answered).sum()),
        n_failed=int((~is_answered).sum()),
        n_rows=round((requests["rows"] * requests["weight"]).sum()),
        n_effective=compared.n_effective if compared else 0.0,
        deff=compared.dependence.deff if compared else 1.0,
        deff_from=compared.dependence.seen_by if compared else "",
    )


def _verdict(about: Window, columns: tuple[ColumnReport, ...], *, is_logged: bool) -> MonitorVerdict:
    if about.n_rows == 0 and is_logged:
        return "NO TRAFFIC"
    if about.n_effective < FEWEST_EFFECTIVE or not any(column.psi is not None for column in columns):
        return "NOT ENOUGH DATA"
    return "DRIFT" if any(column.has_drifted or column.has_more_missing for column in columns) else "OK"


def _columns(window: MonitorWindow, compared: Compared) -> tuple[ColumnReport, ...]:
    """Return what is said of every column: what drifted first, then by PSI."""
    fuller = more_missing(compared.reference, compared.window, n_effective=compared.n_effective)
    outside = {name: int(rows.sum()) for name, rows in _outside(window).items()}
    found = [
        _column(compared, name, has_more_missing=name in fuller, n_outside=outside.get(name, 0))
        for name in compared.names
    ]
    about: dict[str, Any] = {
        "positive": window.schema.positive,
        "prose": {column.name for column in window.schema.prose},
    }
    found = [msgspec.structs.replace(one, text=text.of_column(one, compared, **about)) for one in found]
    return tuple(sorted(found, key=_rank))


def _rank(column: ColumnReport) -> tuple[bool, bool, float]:
    has_changed = column.has_drifted or column.has_more_missing
    return not column.has_drifted, not has_changed, -1.0 if column.psi is None else -column.psi


def _column(compared: Compared, name: str, *, has_more_missing: bool, n_outside: int) -> ColumnReport:
    judged = compared.judged.get(name)
    before, now = compared.sides(name)
    is_prediction = before is not compared.reference
    return ColumnReport(
        name=name,
        kind="prediction" if is_prediction else "text" if name in before.texts else "number",
        psi=judged.psi if judged else None,
        noise=judged.noise if judged else None,
        p=judged.p if judged else None,
        has_drifted=judged.has_drifted if judged else False,
        missing=missing_share(now, name),
        missing_before=missing_share(before, name),
        has_more_missing=has_more_missing,
        unseen=now.texts[name].other / max(1, now.n_rows) if name in now.texts and _is_closed(before, name) else 0.0,
        n_outside=0 if is_prediction else n_outside,
    )


def _is_closed(reference: Profile, name: str) -> bool:
    """Whether every category of training is among those that were counted."""
    return reference.texts[name].other == 0


def _outside(window: MonitorWindow) -> dict[str, NDArray[np.bool_]]:
    """Return, for each column of numbers, which rows lie below the lowest or above the highest value in training."""
    found = {}
    for place, column in enumerate(window.schema.num):
        before = window.reference.numbers[column.name] if window.reference else None
        if before is not None and before.minimum is not None and before.maximum is not None:
            values = window.packed.num[:, place]
            found[column.name] = (values < before.minimum) | (values > before.maximum)
    return found


def _checks(window: MonitorWindow, about: Window, columns: tuple[ColumnReport, ...]) -> dict[str, float | None]:
    """Return every check by its name, as `rules.KNOWN_CHECKS` says them; None where it could not be measured."""
    n_asked = about.n_requests + about.n_failed
    answered = window.requests.filter(pl.col("status") < 400)["latency_ms"]
    inputs = [column for column in columns if column.kind != "prediction"]
    predictions = [column for column in columns if column.kind == "prediction"]
    is_seen = window.log_share > 0  # else refusals are there, and nothing of what was answered
    checks: dict[str, float | None] = {
        "predictions": float(about.n_rows) if is_seen else None,
        "requests": float(about.n_requests) if is_seen else None,
        "effective_rows": about.n_effective,
        "error_rate": about.n_failed / n_asked if n_asked and is_seen else None,
        **{f"p{share}_latency_ms": _quantile(answered, share / 100) for share in (50, 95, 99)},
        "outside": float(np.any([*_outside(window).values()], axis=0).sum()) if inputs else None,
        "missing": max((c.missing for c in inputs if c.has_more_missing), default=0.0) if inputs else None,
        "unseen": max((c.unseen for c in inputs if c.kind == "text"), default=0.0) if inputs else None,
        "psi": _largest(inputs),
        "drifted_columns": float(sum(c.has_drifted for c in inputs)) if _is_judged(inputs) else None,
        "prediction_drift": _largest(predictions),
    }
    for column in inputs:
        checks[f"psi({column.name})"] = None if column.psi is None else _when_passed(column)
        checks[f"missing({column.name})"] = column.missing
        if column.kind == "text":
            checks[f"unseen({column.name})"] = column.unseen
    return checks


def _is_judged(columns: list[ColumnReport]) -> bool:
    return any(column.psi is not None for column in columns)


def _largest(columns: list[ColumnReport]) -> float | None:
    """Return the largest PSI of those that have drifted, 0 where none has; None where none could be judged."""
    if not _is_judged(columns):
        return None
    return max((column.psi or 0.0 for column in columns if column.has_drifted), default=0.0)


def _when_passed(column: ColumnReport) -> float:
    """Return a column's PSI where chance is ruled out, else 0: a rule of its own may be stricter than 0.1."""
    return max(0.0, column.psi or 0.0) if column.p is not None and column.p < 0.05 else 0.0


def _quantile(values: pl.Series, share: float) -> float | None:
    found = values.quantile(share, interpolation="linear")
    return None if found is None else float(found)


def _versions(window: MonitorWindow) -> dict[str, int]:
    rows = (pl.col("rows") * pl.col("weight")).sum().round().cast(pl.Int64)
    counted = window.requests.filter(pl.col("rows") > 0).group_by("version").agg(rows).sort("version")
    return dict(counted.iter_rows())
