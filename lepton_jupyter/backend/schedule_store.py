"""Schedules and their firings in ``state.db``. Every method is one transaction: two drivers may call it at once,
and either may be killed between any two of its statements.

A firing goes through ``waiting`` → ``claimed`` (with the id of the run that shall be made) → ``fired``, each step only
from the state before. It is *open* until what follows its end was done; what is open after a crash is gone on with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Engine, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from lepton_jupyter.backend.firing import Due
from lepton_jupyter.backend.tables import alerts, checks, endpoints, firings, runs, schedules
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import new_run_id
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.schedule import FiringState, Overlap, ScheduleRecord
from lepton_jupyter.formats.views import RunView

MAX_WAITING = 1000

_is_going = and_(  # its run is being made, or has not ended
    ~firings.c.is_closed,
    or_(
        firings.c.state == "claimed",
        and_(
            firings.c.state == "fired",
            firings.c.run_id.in_(select(runs.c.run_id).where(runs.c.state.not_in(ENDED), ~runs.c.is_deleted)),
        ),
    ),
)


class ScheduleRow(Struct, kw_only=True, frozen=True):
    """A schedule. `anchor_at` is where its intervals are counted from."""

    name: str
    generation: str
    record: ScheduleRecord
    state: str
    created_at: float
    anchor_at: float
    next_due_at: float | None
    n_fired: int = 0
    n_missed: int = 0


class FiringRow(Struct, kw_only=True, frozen=True):
    """One due time (and `n_missed` earlier ones), what became of it, and of its run as it was last saved.

    `run_state` is None where there is no such run, or none any more.
    """

    id: int
    schedule: str
    due_at: float
    at: float
    state: FiringState
    run_id: str | None
    attempt: int
    retry_at: float | None
    n_missed: int
    why: str
    is_closed: bool
    run_state: str | None = None
    verdict: str | None = None


class ScheduleStore:
    """Reads and writes. Its methods may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            yield connection

    def _rows(self, statement: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(statement).mappings())

    # -- schedules

    def rows(self) -> list[ScheduleRow]:
        """Return every schedule, newest first."""
        return [_schedule(row) for row in self._rows(select(schedules).order_by(schedules.c.created_at.desc()))]

    def row(self, name: str) -> ScheduleRow | None:
        """Return one schedule, or None."""
        found = self._rows(select(schedules).where(schedules.c.name == name))
        return _schedule(found[0]) if found else None

    def due(self, now: float) -> list[ScheduleRow]:
        """Return the active schedules of which a due time has come."""
        is_due = and_(schedules.c.state == "active", schedules.c.next_due_at <= now)
        return [_schedule(row) for row in self._rows(select(schedules).where(is_due).order_by(schedules.c.next_due_at))]

    def next_due_at(self) -> float | None:
        """Return the next due time of all schedules."""
        return self._rows(select(func.min(schedules.c.next_due_at).label("at")))[0]["at"]

    def save(self, row: ScheduleRow) -> None:
        """Write a schedule, new or instead of the one of its name; what it has counted stays."""
        values = {**msgspec.structs.asdict(row), "record": msgspec.json.encode(row.record).decode()}
        changed = {name: values[name] for name in ("generation", "record", "state", "anchor_at", "next_due_at")}
        with self._write() as connection:
            statement = upsert(schedules).values(**values)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))

    def pause(self, name: str) -> None:
        """Let nothing be due any more, and nothing wait."""
        with self._write() as connection:
            connection.execute(
                update(schedules).where(schedules.c.name == name).values(state="paused", next_due_at=None)
            )
            is_waiting = and_(firings.c.schedule == name, firings.c.state == "waiting")
            connection.execute(
                update(firings)
                .where(is_waiting, firings.c.run_id.is_(None))
                .values(state="skipped", is_closed=True, why="the schedule was paused")
            )
            connection.execute(update(firings).where(is_waiting).values(state="fired", retry_at=None))

    def drop(self, name: str) -> None:
        """Forget a schedule and its firings; its runs stay."""
        with self._write() as connection:
            connection.execute(delete(firings).where(firings.c.schedule == name))
            connection.execute(delete(schedules).where(schedules.c.name == name))

    def put_back(self, row: ScheduleRow, next_due_at: float) -> None:
        """Let a schedule be due earlier than it was: the clock was set back."""
        with self._write() as connection:
            connection.execute(
                update(schedules)
                .where(schedules.c.name == row.name, schedules.c.next_due_at == row.next_due_at)
                .values(next_due_at=next_due_at)
            )

    # -- firings: in

    def claim(self, row: ScheduleRow, dues: Sequence[Due], *, next_due_at: float, now: float) -> bool:
        """Take the due times of a schedule that have come; False where another driver was quicker.

        The first statement takes SQLite's write lock, so that what is read after it stays true.
        """
        n_missed = sum(due.n_missed + due.is_missed for due in dues)
        with self._write() as connection:
            taken = connection.execute(
                update(schedules)
                .where(
                    schedules.c.name == row.name,
                    schedules.c.state == "active",
                    schedules.c.generation == row.generation,
                    schedules.c.next_due_at == row.next_due_at,
                )
                .values(next_due_at=next_due_at, n_missed=schedules.c.n_missed + n_missed)
            )
            if not taken.rowcount:
                return False
            may_wait = row.record.overlap == "queue" or sum(not due.is_missed for due in dues) > 1
            n_before = self._n_before(connection, row.name, row.record.overlap)
            for due in dues:
                n_before += self._add(connection, row.name, due, now=now, n_before=n_before, may_wait=may_wait)
        return True

    def _n_before(self, connection: Connection, name: str, overlap: Overlap) -> int:
        """Count what a new firing has to wait for. Where none waits in line, a run's next try gives way to it."""
        if overlap == "skip":
            is_retry = and_(firings.c.state == "waiting", firings.c.run_id.is_not(None))
            connection.execute(
                update(firings).where(firings.c.schedule == name, is_retry).values(state="fired", retry_at=None)
            )
        is_before = and_(~firings.c.is_closed, or_(_is_going, firings.c.state == "waiting"))
        counted = select(func.count()).select_from(firings).where(firings.c.schedule == name, is_before)
        return int(connection.execute(counted).scalar_one())

    def _add(self, connection: Connection, name: str, due: Due, *, now: float, n_before: int, may_wait: bool) -> bool:
        """Write a firing; return whether the next one has to wait for it."""
        values: dict[str, Any] = {"state": "skipped", "is_closed": True, "why": "the run before was still going"}
        if due.is_missed:
            values = {"state": "missed", "why": "nobody was there to fire it"}
        elif not n_before:
            values = {"state": "claimed", "run_id": new_run_id()}
        elif may_wait and n_before < MAX_WAITING:
            values = {"state": "waiting", "why": "it waits for the run before"}
        added = connection.execute(
            insert(firings)
            .prefix_with("OR IGNORE")  # it has fired already: the clock was set back
            .values(schedule=name, due_at=due.due_at, at=now, n_missed=due.n_missed, **values)
        )
        return bool(added.rowcount) and values["state"] in ("claimed", "waiting")

    def claim_now(self, name: str, *, now: float, why: str) -> FiringRow:
        """Claim a firing for which no clock has asked.

        Raises
        ------
        LeptonError
            If a run of the schedule is going.
        """
        newest = select(func.coalesce(func.max(firings.c.due_at), 0.0) + 1e-3).where(firings.c.schedule == name)
        run_id = new_run_id()
        with self._write() as connection:
            made = connection.execute(
                insert(firings).values(
                    schedule=name, due_at=func.max(now, newest.scalar_subquery()), at=now, state="claimed",
                    run_id=run_id, why=why,
                )
            )  # fmt: skip
            firing_id = made.lastrowid
            is_other = and_(firings.c.schedule == name, firings.c.id != firing_id)
            going = connection.execute(select(firings.c.run_id).where(is_other, _is_going)).first()
            if going is not None:  # raising takes the firing back
                raise LeptonError(
                    f"Schedule '{name}' is going: run {going.run_id} has not ended.",
                    f"Follow it: %lepton show run/{going.run_id}",
                    code="conflict",
                )
            row = connection.execute(select(firings).where(firings.c.id == firing_id)).mappings().one()
            return FiringRow(**row)

    def release(self, firing: FiringRow, *, now: float) -> bool:
        """Claim a firing that waits, for a new run; False where another run of its schedule is going."""
        is_going = select(firings.c.id).where(firings.c.schedule == firing.schedule, _is_going).correlate(None)
        with self._write() as connection:
            taken = connection.execute(
                update(firings)
                .where(firings.c.id == firing.id, firings.c.state == "waiting", ~exists(is_going))
                .values(
                    state="claimed",
                    run_id=new_run_id(),
                    attempt=firing.attempt + (firing.run_id is not None),
                    retry_at=None,
                    at=now,
                    why="" if firing.run_id is None else firing.why,
                )
            )
            return bool(taken.rowcount)

    # -- firings: out

    def open_firings(self) -> list[FiringRow]:
        """Return the firings that something must still be done about, oldest first, each with how its run stands."""
        return self._firings(~firings.c.is_closed, order=firings.c.due_at)

    def firings(self, name: str, limit: int, offset: int = 0) -> list[FiringRow]:
        """Return the newest firings of a schedule but for `offset` ones, newest first."""
        return self._firings(firings.c.schedule == name, order=firings.c.due_at.desc(), limit=limit, offset=offset)

    def firing(self, firing_id: int) -> FiringRow:
        """Return one firing as it is now."""
        return self._firings(firings.c.id == firing_id, order=firings.c.id)[0]

    def _firings(self, which: Any, *, order: Any, limit: int | None = None, offset: int = 0) -> list[FiringRow]:
        joined = firings.outerjoin(runs, firings.c.run_id == runs.c.run_id)
        verdict = func.json_extract(runs.c.view, "$.result.verdict").label("verdict")
        statement = select(firings, runs.c.state.label("run_state"), verdict).select_from(joined)
        statement = statement.where(which).order_by(order)
        if limit is not None:
            statement = statement.limit(limit).offset(offset)
        return [FiringRow(**row) for row in self._rows(statement)]

    def run_of(self, firing: FiringRow) -> RunView | None:
        """Return the run of a firing as it was last saved, or None."""
        found = self._rows(select(runs.c.view).where(runs.c.run_id == firing.run_id))
        return msgspec.json.decode(found[0]["view"], type=RunView) if found else None

    def mark_fired(self, firing: FiringRow) -> None:
        """The firing's run is submitted."""
        with self._write() as connection:
            marked = connection.execute(
                update(firings)
                .where(firings.c.id == firing.id, firings.c.state == "claimed", firings.c.run_id == firing.run_id)
                .values(state="fired")
            )
            if marked.rowcount and not firing.attempt:
                connection.execute(
                    update(schedules).where(schedules.c.name == firing.schedule).values(n_fired=schedules.c.n_fired + 1)
                )

    def mark_failed(self, firing: FiringRow, why: str) -> None:
        """No run could be made."""
        with self._write() as connection:
            connection.execute(
                update(firings)
                .where(firings.c.id == firing.id, firings.c.state == "claimed")
                .values(state="failed", why=why)
            )

    def wait_for_retry(self, firing: FiringRow, *, retry_at: float) -> None:
        """Let the firing's run be tried again later."""
        with self._write() as connection:
            connection.execute(
                update(firings)
                .where(firings.c.id == firing.id, firings.c.state == "fired", firings.c.run_id == firing.run_id)
                .values(state="waiting", retry_at=retry_at)
            )

    def has_newer(self, firing: FiringRow) -> bool:
        """Whether a later due time of the schedule has fired."""
        is_newer = and_(firings.c.schedule == firing.schedule, firings.c.due_at > firing.due_at)
        has_fired = firings.c.state.in_(("claimed", "fired", "failed"))
        return bool(self._rows(select(firings.c.id).where(is_newer, has_fired).limit(1)))

    def close(self, firing: FiringRow) -> None:
        """Everything that follows from the firing is done."""
        with self._write() as connection:
            connection.execute(update(firings).where(firings.c.id == firing.id).values(is_closed=True))

    # -- what runs found

    def save_checks(self, view: RunView, at: float) -> None:
        """Write the checks of a run, in place of those that were there."""
        about = {"run_id": view.run_id, "schedule": view.schedule, "subject": view.endpoint or view.title, "at": at}
        with self._write() as connection:
            connection.execute(delete(checks).where(checks.c.run_id == view.run_id))
            if view.checks:
                values = [{**about, "name": name, "value": value} for name, value in view.checks.items()]
                connection.execute(insert(checks), values)

    def newest_report(self, endpoint: str, schedule: str | None) -> RunView | None:
        """Return the newest completed report on an endpoint that a schedule (None: a person) asked for."""
        of_schedule = func.json_extract(runs.c.view, "$.schedule")
        statement = (
            select(runs.c.view)
            .where(
                runs.c.kind == "monitor",
                runs.c.state == "completed",
                func.json_extract(runs.c.view, "$.endpoint") == endpoint,
                of_schedule.is_(None) if schedule is None else of_schedule == schedule,
            )
            .order_by(runs.c.submitted_at.desc())
            .limit(1)
        )
        found = self._rows(statement)
        return msgspec.json.decode(found[0]["view"], type=RunView) if found else None

    def endpoint_created_at(self, name: str) -> float | None:
        """Return since when there is an endpoint; None where there is none."""
        found = self._rows(select(endpoints.c.created_at).where(endpoints.c.name == name))
        return found[0]["created_at"] if found else None

    def endpoint_names(self) -> list[str]:
        """Return the names of every endpoint."""
        return [row["name"] for row in self._rows(select(endpoints.c.name))]

    def n_alerts(self) -> dict[str, int]:
        """Count the alerts that are pending or firing, by schedule."""
        statement = select(alerts.c.schedule, func.count().label("n")).where(alerts.c.state.in_(("pending", "firing")))
        return {row["schedule"]: row["n"] for row in self._rows(statement.group_by(alerts.c.schedule))}


def _schedule(row: Any) -> ScheduleRow:
    return ScheduleRow(**{**row, "record": msgspec.json.decode(row["record"], type=ScheduleRecord)})
