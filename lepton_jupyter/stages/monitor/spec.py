"""The verbs of monitoring: ``monitor``, ``schedule``, ``schedules``, ``alerts``, ``tick``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, field

from lepton_jupyter.stages.verbs import Help, Verb


class Repeated(Verb, kw_only=True, frozen=True):
    """What every verb with a clock takes."""

    every: Annotated[
        str | None, Help("interval (30s, 5m, 1h), hourly, daily, weekly, monthly, or a cron expression in quotes")
    ] = None
    tz: Annotated[str | None, Help("IANA zone of a cron expression, such as Europe/Berlin; else this machine's")] = None
    catch_up: Annotated[
        Literal["skip", "latest", "all"], Help("which of the times that were missed fire afterwards")
    ] = "latest"
    overlap: Annotated[Literal["skip", "queue"], Help("what a due time does while the run before is still going")] = (
        "skip"
    )
    timeout: Annotated[str | None, Help("a run that takes longer, such as 30m, is ended and has failed")] = None
    retries: Annotated[int, Help("how often a failed run is tried again", ge=0, le=10)] = 0
    notify: Annotated[tuple[str, ...], Help("channel by name: env:VAR or keyring:SERVICE/USER; repeat it")] = ()


class Watched(Repeated, kw_only=True, frozen=True):
    """What every verb with alerts takes."""

    alert: Annotated[tuple[str, ...], Help('rule over a check, such as "psi > 0.2"; repeat it')] = ()
    for_reports: Annotated[int, Help("reports in a row that must meet a rule before its alert fires", ge=1, le=100)] = 2
    notify_on: Annotated[Literal["alert", "report"], Help("send only what alerts say, or every report")] = "alert"


class Monitor(Watched, kw_only=True, frozen=True):
    """Report on an endpoint, once or on a schedule."""

    verb: ClassVar[str] = "monitor"
    does: ClassVar[str] = "Report on an endpoint's traffic, errors, latency and drift: once, or on a schedule."
    positional: ClassVar[tuple[str, ...]] = ("endpoint",)
    examples: ClassVar[tuple[str, ...]] = (
        "monitor diagnosis",
        'monitor diagnosis --every 5m --alert "psi > 0.2" --notify env:OPS_WEBHOOK',
    )

    endpoint: Annotated[str, Help("the endpoint")]
    window: Annotated[str | None, Help("how far back a report looks, such as 1h; else since the last one")] = None
    notebook: Annotated[str | None, Help("your own report; lepton.window() and lepton.check() are its words")] = None
    eject: Annotated[str | None, Help("write our report to this path, for editing, and do nothing else")] = None
    on_alert: Annotated[Literal["retrain"] | None, Help("what a firing alert starts: retrain")] = None


class Feedback(Verb, kw_only=True, frozen=True):
    """Say what turned out to be true of rows that an endpoint was asked for."""

    verb: ClassVar[str] = "feedback"
    does: ClassVar[str] = "Give late labels: a table of row ids and the target. They are kept, and joined with the log."
    positional: ClassVar[tuple[str, ...]] = ("endpoint", "labels")
    examples: ClassVar[tuple[str, ...]] = ("feedback diagnosis biopsies.csv",)

    endpoint: Annotated[str, Help("the endpoint that was asked")]
    labels: Annotated[
        str, Help("path or a variable of the notebook: the id column, or row_id as predict gave it, and the target")
    ]


class Schedule(Watched, kw_only=True, frozen=True):
    """Execute a notebook on a schedule."""

    verb: ClassVar[str] = "schedule"
    does: ClassVar[str] = "Execute a notebook on a schedule, in its own folder, by the interpreter that scheduled it."
    positional: ClassVar[tuple[str, ...]] = ("notebook",)
    examples: ClassVar[tuple[str, ...]] = (
        'schedule weekly_report.ipynb --every "0 7 * * mon" --tz Europe/Berlin -p region=north',
    )

    notebook: Annotated[str, Help("path of the notebook")]
    name: Annotated[str | None, Help("name of the schedule; else the notebook's")] = None
    params: Annotated[dict[str, Any], Help("KEY=VALUE for the cell tagged 'parameters'; JSON, else text")] = field(
        default_factory=dict
    )


class Schedules(Verb, kw_only=True, frozen=True):
    """List schedules."""

    verb: ClassVar[str] = "schedules"
    does: ClassVar[str] = "List schedules: when each fires next, when it last did, what came of it."
    examples: ClassVar[tuple[str, ...]] = ("schedules",)


class Alerts(Verb, kw_only=True, frozen=True):
    """List alerts; acknowledge or silence one."""

    verb: ClassVar[str] = "alerts"
    does: ClassVar[str] = "List alerts, those that fire first; acknowledge or silence one, with a reason."
    examples: ClassVar[tuple[str, ...]] = (
        "alerts",
        'alerts --ack 3 --why "new clinic since Monday"',
        'alerts --silence 3 --hours 2 --why "deploying"',
    )

    ack: Annotated[Annotated[int, Meta(ge=1)] | None, Help("number of the alert that you have seen")] = None
    silence: Annotated[Annotated[int, Meta(ge=1)] | None, Help("number of the alert to send nothing about")] = None
    hours: Annotated[float, Help("for how long", gt=0, le=24 * 30)] = 1.0
    why: Annotated[str | None, Help("the reason; it is recorded with your name")] = None


class Tick(Verb, kw_only=True, frozen=True):
    """Fire what is due, once."""

    verb: ClassVar[str] = "tick"
    does: ClassVar[str] = (
        "Fire what is due and wait for it: for cron or a Kubernetes CronJob. With a name: that one, now."
    )
    positional: ClassVar[tuple[str, ...]] = ("schedule",)
    examples: ClassVar[tuple[str, ...]] = ("tick", "tick weekly_report")

    schedule: Annotated[str | None, Help("the schedule to fire now, due or not")] = None
    detach: Annotated[bool, Help("return at once")] = False
