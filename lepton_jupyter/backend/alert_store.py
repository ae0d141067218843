"""Alerts, their history and their messages in ``state.db``. What must hold together is written in one `write` block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Engine, and_, delete, insert, select, update

from lepton_jupyter.backend.tables import alert_changes, alerts, deliveries
from lepton_jupyter.formats.alerts import AlertChange, AlertState, AlertView, DeliveryState, DeliveryView

OPEN = ("pending", "firing")
KEPT_REPORTS = 200  # messages about reports that are remembered, a schedule
MAX_SHOWN = 20  # lines of an alert's history, and of its messages

_in_order = {"firing": 0, "pending": 1, "resolved": 2}


class AlertRow(Struct, kw_only=True, frozen=True):
    """An alert, as it lies in its table."""

    id: int
    schedule: str
    subject: str
    rule: str
    state: AlertState
    since: float
    changed_at: float
    n_met: int
    value: float | None
    run_id: str | None
    text: str
    acked_by: str
    acked_why: str
    silenced_until: float | None
    silenced_by: str
    silenced_why: str

    def is_muted(self, now: float) -> bool:
        """Whether nothing is sent about it."""
        return bool(self.acked_by) or (self.silenced_until or 0.0) > now

    def view(self, history: Iterable[AlertChange] = (), messages: Iterable[DeliveryView] = ()) -> AlertView:
        """Return it as clients see it."""
        values = {name: getattr(self, name) for name in self.__struct_fields__ if name != "n_met"}
        return AlertView(**values, history=tuple(history), deliveries=tuple(messages))


class DeliveryRow(Struct, kw_only=True, frozen=True):
    """A message for a channel, as it lies in its table."""

    id: int
    alert_id: int | None
    run_id: str | None
    schedule: str
    generation: str
    channel: str
    title: str
    body: str
    picture: str | None
    state: DeliveryState
    created_at: float
    attempts: int
    next_at: float | None
    delivered_at: float | None
    last_error: str


class AlertStore:
    """Reads and writes. Its methods may be called from any thread; those that take a connection belong to `write`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction."""
        with self.engine.begin() as connection:
            yield connection

    def _rows(self, statement: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(statement).mappings())

    # -- alerts

    def open_alerts(self, schedule: str | None = None) -> list[AlertRow]:
        """Return the alerts that are pending or firing."""
        statement = select(alerts).where(alerts.c.state.in_(OPEN)).order_by(alerts.c.id)
        if schedule is not None:
            statement = statement.where(alerts.c.schedule == schedule)
        return [AlertRow(**row) for row in self._rows(statement)]

    def alert(self, alert_id: int) -> AlertRow | None:
        """Return one alert, or None."""
        found = self._rows(select(alerts).where(alerts.c.id == alert_id))
        return AlertRow(**found[0]) if found else None

    def newest(self, schedule: str, rule: str) -> AlertRow | None:
        """Return the newest alert of a rule, whatever its state, or None."""
        which = and_(alerts.c.schedule == schedule, alerts.c.rule == rule)
        found = self._rows(select(alerts).where(which).order_by(alerts.c.id.desc()).limit(1))
        return AlertRow(**found[0]) if found else None

    def add(self, connection: Connection, **values: Any) -> AlertRow:
        """Write a new alert."""
        statement = insert(alerts).values(**values).returning(*alerts.c)
        return AlertRow(**connection.execute(statement).mappings().one())

    def change(self, connection: Connection, alert_id: int, **values: Any) -> AlertRow:
        """Write how an alert stands."""
        statement = update(alerts).where(alerts.c.id == alert_id).values(**values).returning(*alerts.c)
        return AlertRow(**connection.execute(statement).mappings().one())

    def note(self, connection: Connection, alert_id: int, change: AlertChange) -> None:
        """Add a line to an alert's history."""
        values = {name: getattr(change, name) for name in change.__struct_fields__}
        connection.execute(insert(alert_changes).values(alert_id=alert_id, **values))

    def has_change(self, alert_id: int, words: Iterable[str]) -> bool:
        """Whether an alert's history has a line that says one of these."""
        which = and_(alert_changes.c.alert_id == alert_id, alert_changes.c.what.in_(tuple(words)))
        return bool(self._rows(select(alert_changes.c.id).where(which).limit(1)))

    def views(self, schedule: str | None = None, *, n_resolved: int = 50) -> list[AlertView]:
        """Return alerts with history and messages: those that fire, those that are pending, the newest resolved."""
        resolved = select(alerts).where(alerts.c.state == "resolved").order_by(alerts.c.changed_at.desc())
        if schedule is not None:
            resolved = resolved.where(alerts.c.schedule == schedule)
        rows = [*self.open_alerts(schedule), *(AlertRow(**row) for row in self._rows(resolved.limit(n_resolved)))]
        rows.sort(key=lambda row: (_in_order[row.state], -row.changed_at))
        return self._with_history(rows)

    def view(self, alert_id: int) -> AlertView | None:
        """Return one alert with history and messages, or None."""
        row = self.alert(alert_id)
        return self._with_history([row])[0] if row is not None else None

    def _with_history(self, rows: list[AlertRow]) -> list[AlertView]:
        ids = [row.id for row in rows]
        history: dict[int, list[AlertChange]] = {}
        of_changes = select(alert_changes).where(alert_changes.c.alert_id.in_(ids)).order_by(alert_changes.c.id)
        for line in self._rows(of_changes):
            said = AlertChange(**{name: line[name] for name in AlertChange.__struct_fields__})
            history.setdefault(line["alert_id"], []).append(said)
        messages: dict[int, list[DeliveryView]] = {}
        of_messages = select(deliveries).where(deliveries.c.alert_id.in_(ids)).order_by(deliveries.c.id)
        for line in self._rows(of_messages):
            sent = DeliveryView(**{name: line[name] for name in DeliveryView.__struct_fields__})
            messages.setdefault(line["alert_id"], []).append(sent)
        return [row.view(history.get(row.id, [])[-MAX_SHOWN:], messages.get(row.id, [])[-MAX_SHOWN:]) for row in rows]

    # -- messages

    def queue(self, connection: Connection, *, now: float, **values: Any) -> None:
        """Add a message. One that waits for the same channel gets another try: the new one comes behind it."""
        lane = and_(deliveries.c.schedule == values["schedule"], deliveries.c.channel == values["channel"])
        waiting = and_(lane, deliveries.c.state == "waiting")
        connection.execute(update(deliveries).where(waiting).values(next_at=now))
        connection.execute(
            insert(deliveries).values(**values, state="waiting", created_at=now, next_at=now, attempts=0, last_error="")
        )
        is_report = and_(lane, deliveries.c.alert_id.is_(None))
        kept = select(deliveries.c.id).where(is_report).order_by(deliveries.c.id.desc()).limit(KEPT_REPORTS)
        old = and_(is_report, deliveries.c.state != "waiting", deliveries.c.id.not_in(kept))
        connection.execute(delete(deliveries).where(old))

    def told(self, connection: Connection, alert_id: int, state: str) -> set[str]:
        """Return the channels for which there is a message that an alert has a state."""
        which = and_(deliveries.c.alert_id == alert_id, deliveries.c.title.startswith(f"[{state.upper()}]"))
        return set(connection.execute(select(deliveries.c.channel).where(which)).scalars())

    def is_report_told(self, connection: Connection, run_id: str) -> bool:
        """Whether there is a message about a run's report."""
        which = and_(deliveries.c.run_id == run_id, deliveries.c.alert_id.is_(None))
        return connection.execute(select(deliveries.c.id).where(which).limit(1)).first() is not None

    def take_back(self, connection: Connection, alert_id: int) -> None:
        """Forget the messages about an alert that nobody has got yet."""
        which = and_(deliveries.c.alert_id == alert_id, deliveries.c.state == "waiting")
        connection.execute(delete(deliveries).where(which))

    def take_back_all(self, connection: Connection, schedule: str) -> None:
        """Forget the messages of a schedule that nobody has got yet."""
        which = and_(deliveries.c.schedule == schedule, deliveries.c.state == "waiting")
        connection.execute(delete(deliveries).where(which))

    def waiting(self) -> list[DeliveryRow]:
        """Return the messages that wait, at most one a schedule and channel: the oldest."""
        statement = select(deliveries).where(deliveries.c.state == "waiting").order_by(deliveries.c.id)
        first: dict[tuple[str, str], DeliveryRow] = {}
        for row in self._rows(statement):
            first.setdefault((row["schedule"], row["channel"]), DeliveryRow(**row))
        return list(first.values())

    def save_delivery(self, delivery_id: int, **values: Any) -> None:
        """Write how a message stands; one that was taken back stays so."""
        with self.write() as connection:
            connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(**values))

    def messages(self, schedule: str | None = None) -> list[DeliveryRow]:
        """Return messages, oldest first."""
        statement = select(deliveries).order_by(deliveries.c.id)
        if schedule is not None:
            statement = statement.where(deliveries.c.schedule == schedule)
        return [DeliveryRow(**row) for row in self._rows(statement)]
