"""What a monitoring report found: ``result.json`` of a monitor run."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

MonitorVerdict = Literal["OK", "DRIFT", "NOT ENOUGH DATA", "NO TRAFFIC"]


class Window(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The requests that a report looks at.

    Attributes
    ----------
    start, end : float
        Seconds since 1970, UTC; start is inside, end is not.
    n_requests, n_failed, n_rows : int
        Requests that were answered, requests that were refused or failed, rows that were scored.
    n_effective : float
        Independent rows that the scored ones are worth.
    deff : float
        Design effect: rows divided by effective rows; `deff_from` says what it was seen by.
    """

    start: float
    end: float
    n_requests: int = 0
    n_failed: int = 0
    n_rows: int = 0
    n_effective: float = 0.0
    deff: float = 1.0
    deff_from: str = ""


class ColumnReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column (or the prediction) in the window against the training profile.

    Attributes
    ----------
    psi : float or None
        Less its noise; None where there were not enough rows.
    noise : float or None
        What chance alone gives.
    p : float or None
        Holm's, of the chi-squared test.
    has_drifted : bool
    missing, missing_before : float
        Shares of rows, in the window and in training.
    unseen : float
        Share of rows with a category that training had not.
    n_outside : int
        Rows below the lowest or above the highest value in training.
    text : str
        One sentence for a person, where there is something to say.
    """

    name: str
    kind: Literal["number", "text", "prediction"]
    psi: float | None = None
    noise: float | None = None
    p: float | None = None
    has_drifted: bool = False
    missing: float = 0.0
    missing_before: float = 0.0
    has_more_missing: bool = False
    unseen: float = 0.0
    n_outside: int = 0
    text: str = ""


class MonitorRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Verdict, checks, columns, tables behind the charts.

    Attributes
    ----------
    headline : str
        One sentence: what a mail's subject says behind the verdict.
    sentences : tuple of str
        What changed, most important first.
    checks : dict
        Values by name: ``psi``, ``p95_latency_ms``, ``missing(age)`` …; None where it could not be measured.
    versions : dict
        Rows that each version answered.
    tables : dict of dict of list
        Columns by table: ``traffic``, ``latency``, ``drift``, ``column:NAME`` …
    """

    endpoint: str
    version: str
    run_id: str
    verdict: MonitorVerdict
    headline: str
    window: Window
    n_reference: int
    checks: dict[str, float | None]
    sentences: tuple[str, ...] = ()
    columns: tuple[ColumnReport, ...] = ()
    versions: dict[str, int] = field(default_factory=dict)
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
