"""Schedules: what was defined (``schedule.json``), what fired, how both are shown."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

ScheduleKind = Literal["monitor", "notebook", "retrain"]
CatchUp = Literal["skip", "latest", "all"]
Overlap = Literal["skip", "queue"]
NotifyOn = Literal["alert", "report"]
FiringState = Literal["claimed", "fired", "waiting", "skipped", "missed", "failed"]


class ScheduleRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``schedule.json``: everything that a firing needs. Written once by the client; defining again writes another one.

    Attributes
    ----------
    name : str
        ``monitor-ENDPOINT``, ``retrain-MODEL``, or the notebook's.
    subject : str
        The endpoint, the model, or the notebook's file name.
    every : str
        Interval (``30s``, ``5m``, ``1h``), nickname (``hourly``, ``daily``, ``weekly``, ``monthly``) or cron
        expression. Empty: it fires only when an alert or a person asks.
    tz : str
        IANA zone in which a cron expression or a nickname is read.
    python, cwd : str
        Interpreter and folder of its runs.
    notebook : str or None
        Absolute path of the user's notebook; None: the stage's own.
    source_hash : str
        sha256 of that notebook when the schedule was defined; a change is shown.
    kernel : str or None
        Kernelspec, where it is not `python`'s own.
    parameters : dict
        For the cell tagged ``parameters``.
    window_s : float or None
        Of a monitor: how far back a report looks; None: since the last report.
    timeout_s : float or None
        A run that takes longer is ended and has failed.
    retries : int
        How often a failed run is tried again.
    alerts : tuple of str
        Rules as typed, such as ``psi > 0.2``.
    for_reports : int
        How many reports in a row must meet a rule before its alert fires.
    notify : tuple of str
        Channels by name: ``env:VAR`` or ``keyring:SERVICE/USER``, never a secret.
    on_alert : str or None
        ``retrain``: what a firing alert starts.
    environment : not here
        The environment of whoever defined it lies beside, in ``environment.json`` (mode 0600).
    """

    name: str
    kind: ScheduleKind
    subject: str
    python: str
    cwd: str
    created_at: float
    every: str = ""
    tz: str = "UTC"
    catch_up: CatchUp = "latest"
    overlap: Overlap = "skip"
    timeout_s: float | None = None
    retries: int = 0
    notebook: str | None = None
    source_hash: str = ""
    kernel: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    window_s: float | None = None
    alerts: tuple[str, ...] = ()
    for_reports: int = 2
    notify: tuple[str, ...] = ()
    notify_on: NotifyOn = "alert"
    on_alert: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    who: str = ""
    lepton_version: str = ""


class FiringView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One due time and what became of it.

    Attributes
    ----------
    due_at : float
        When it was due, seconds since 1970, UTC; `at` when it was acted upon.
    state : str
        ``claimed`` (its run is being made), ``fired``, ``waiting`` (for the run before, or for its next try),
        ``skipped`` (the run before was still going), ``missed`` (nobody was there), ``failed`` (no run could be made).
    n_missed : int
        Earlier due times that were passed over together with it.
    why : str
    """

    due_at: float
    at: float
    state: FiringState
    run_id: str | None = None
    run_state: str = ""
    verdict: str = ""
    attempt: int = 0
    n_missed: int = 0
    why: str = ""


class ScheduleView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One schedule, as it stands.

    Attributes
    ----------
    state : str
        ``active`` or ``paused``.
    next_due_at : float or None
    last : FiringView or None
        The newest firing.
    firings : tuple of FiringView
        The newest twenty, newest first.
    n_fired, n_missed : int
        Of its whole life.
    is_source_changed : bool
        Whether the notebook is not what it was when the schedule was defined.
    n_alerts : int
        Alerts that are pending or firing.
    error : str
        What is wrong with it now, such as that its notebook is gone.
    """

    name: str
    kind: ScheduleKind
    subject: str
    every: str
    tz: str
    state: Literal["active", "paused"]
    created_at: float
    next_due_at: float | None = None
    last: FiringView | None = None
    firings: tuple[FiringView, ...] = ()
    n_fired: int = 0
    n_missed: int = 0
    alerts: tuple[str, ...] = ()
    n_alerts: int = 0
    notify: tuple[str, ...] = ()
    on_alert: str | None = None
    catch_up: CatchUp = "latest"
    overlap: Overlap = "skip"
    notebook: str | None = None
    command: str = ""
    is_source_changed: bool = False
    error: str = ""


class TickResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``POST /v1/tick``: what was fired.

    Attributes
    ----------
    run_ids : tuple of str
    next_due_at : float or None
        Of all schedules.
    """

    run_ids: tuple[str, ...] = ()
    next_due_at: float | None = None
