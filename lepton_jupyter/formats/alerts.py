"""Alerts as clients see them: what is met, since when, who was told."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

AlertState = Literal["pending", "firing", "resolved"]
DeliveryState = Literal["waiting", "delivered", "gave up"]

REPORT_FAILED = "report failed"  # rules that nobody types: they hold for every schedule
DID_NOT_FIRE = "schedule did not fire"


class AlertChange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of an alert's history: a new state, an acknowledgement, a silence."""

    at: float
    what: str
    value: float | None = None
    run_id: str | None = None
    who: str = ""
    why: str = ""


class DeliveryView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message to one channel."""

    channel: str
    title: str
    state: DeliveryState
    created_at: float
    attempts: int = 0
    delivered_at: float | None = None
    next_at: float | None = None
    last_error: str = ""


class AlertView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One alert: a rule of a schedule, from the first report that met it until one does not.

    Attributes
    ----------
    rule : str
        As typed, such as ``psi > 0.2``; or `REPORT_FAILED`, `DID_NOT_FIRE`.
    subject : str
        The endpoint, model or notebook that is watched.
    since : float
        When it was first met; `changed_at` when its state changed last.
    value : float or None
        Newest value of what the rule looks at.
    text : str
        One sentence for a person, with the figures.
    acked_by, acked_why : str
        Who has seen it; it is not sent again.
    silenced_until : float or None
        Nothing is sent until then.
    """

    id: int
    schedule: str
    subject: str
    rule: str
    state: AlertState
    since: float
    changed_at: float
    value: float | None = None
    run_id: str | None = None
    text: str = ""
    acked_by: str = ""
    acked_why: str = ""
    silenced_until: float | None = None
    silenced_by: str = ""
    silenced_why: str = ""
    history: tuple[AlertChange, ...] = ()
    deliveries: tuple[DeliveryView, ...] = ()
