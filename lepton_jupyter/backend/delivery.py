"""Messages that wait for their channels: each is tried by a process of its own, again after growing pauses."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from sqlalchemy import Engine

from lepton_jupyter.backend.alert_store import AlertStore, DeliveryRow
from lepton_jupyter.backend.schedule_store import ScheduleStore
from lepton_jupyter.core.paths import Home, ScheduleFolder
from lepton_jupyter.core.processes import kept_environment

log = logging.getLogger("lepton.backend")

PAUSES_S = (5.0, 15.0, 60.0, 300.0, 600.0, 900.0, 1200.0)  # eight tries within an hour
LIMIT_S = 60.0  # a try that takes longer has failed
LONGEST_S = max(*PAUSES_S, LIMIT_S)  # what lies further off comes from a clock that was set back
MAX_AT_ONCE = 4
LOOK_S = 0.1  # how often the end of a try is looked for
IDLE_S = 60.0
NOT_PASSED_ON = ("PYTHON", "LD_", "LEPTON_RUN")  # of the schedule's environment: the interpreter is the backend's


@dataclass
class _Try:
    row: DeliveryRow
    child: subprocess.Popen[bytes]
    since: float  # monotonic


class Delivery:
    """Sends what waits. One thread calls `tick`.

    Where a backend is killed in the middle of a try, the message may arrive twice; it is never forgotten.

    Parameters
    ----------
    home : Home
    engine : Engine
    now : callable
    pauses_s : sequence of float
        Between the tries; after the last one it gives up, and the alert stays.
    """

    def __init__(
        self,
        home: Home,
        engine: Engine,
        now: Callable[[], float] = time.time,
        *,
        pauses_s: tuple[float, ...] = PAUSES_S,
    ) -> None:
        self.home = home
        self.store = AlertStore(engine)
        self._schedules = ScheduleStore(engine)
        self._now = now
        self._pauses_s = pauses_s
        self._tries: dict[int, _Try] = {}

    def tick(self) -> float:
        """Collect the tries that have ended, start those that are due; return in how many seconds to look again."""
        for delivery_id, each in list(self._tries.items()):
            if self._has_ended(each):
                del self._tries[delivery_id]
                self._finish(each)
        waiting = self.store.waiting()
        for row in waiting:
            if len(self._tries) >= MAX_AT_ONCE:
                break
            is_later = self._now() < (row.next_at or 0.0) <= self._now() + LONGEST_S
            if row.id not in self._tries and not is_later:
                self._start(row)
        if self._tries:
            return LOOK_S
        times = [row.next_at or 0.0 for row in waiting]
        return min(max(min(times) - self._now(), LOOK_S), IDLE_S) if times else IDLE_S

    def close(self) -> None:
        """End the tries that are going; a later backend tries again."""
        for each in self._tries.values():
            each.child.kill()
            each.child.wait()
            _read_answer(each.child)
        self._tries.clear()

    # -- one try

    def _start(self, row: DeliveryRow) -> None:
        """Start a try. It is counted first: a backend that is killed now goes on after the pause."""
        attempts = row.attempts + 1
        pause_s = self._pauses_s[min(attempts, len(self._pauses_s)) - 1] if self._pauses_s else 0.0
        self.store.save_delivery(row.id, attempts=attempts, next_at=self._now() + max(pause_s, LIMIT_S))
        row = msgspec.structs.replace(row, attempts=attempts)
        message = {"channel": row.channel, "title": row.title, "body": row.body, "picture": row.picture}
        try:
            child = subprocess.Popen(  # not `spawn`: it is given its message by a pipe, and ends with its try
                [sys.executable, "-m", "lepton_jupyter.backend.send"],
                env=self._environment(row), cwd=self.home.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            self._note(row, f"no process could be started: {error.strerror}")
            return
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(message).encode())
            child.stdin.close()
        except OSError:
            pass  # it has ended already: `_finish` says why
        self._tries[row.id] = _Try(row, child, time.monotonic())

    def _has_ended(self, each: _Try) -> bool:
        if each.child.poll() is None and time.monotonic() - each.since > LIMIT_S:
            each.child.kill()
            each.child.wait()
        return each.child.returncode is not None

    def _finish(self, each: _Try) -> None:
        content = _read_answer(each.child)
        try:
            why = str(json.loads(content)["error"])
        except (ValueError, KeyError, TypeError):
            is_slow = time.monotonic() - each.since > LIMIT_S
            why = f"no answer within {LIMIT_S:.0f} s" if is_slow else f"its process ended with {each.child.returncode}"
        self._note(each.row, why)

    def _note(self, row: DeliveryRow, why: str) -> None:
        """Write down how a try ended."""
        now = self._now()
        if not why:
            self.store.save_delivery(row.id, state="delivered", delivered_at=now, next_at=None, last_error="")
        elif row.attempts > len(self._pauses_s):
            log.warning("message '%s' to %s: given up after %d tries: %s", row.title, row.channel, row.attempts, why)
            self.store.save_delivery(row.id, state="gave up", next_at=None, last_error=why)
        else:
            log.info("message '%s' to %s: try %d failed: %s", row.title, row.channel, row.attempts, why)
            pause_s = self._pauses_s[row.attempts - 1]
            self.store.save_delivery(row.id, next_at=now + pause_s, last_error=why)

    def _environment(self, row: DeliveryRow) -> dict[str, str]:
        """Return the environment in which a channel's name is looked up: that of whoever defined the schedule last."""
        schedule = self._schedules.row(row.schedule)
        generations = [schedule.generation if schedule is not None else row.generation, row.generation]
        folders = [self.home.schedule(row.schedule, each) for each in generations]
        said = next((found for found in map(_read, folders) if found is not None), {})
        passed_on = {name: value for name, value in said.items() if not name.startswith(NOT_PASSED_ON)}
        return {**passed_on, **kept_environment()}


def _read_answer(child: subprocess.Popen[bytes]) -> bytes:
    """Return what a process that has ended has printed: less than a pipe holds."""
    assert child.stdout is not None
    with child.stdout:
        return child.stdout.read()


def _read(folder: ScheduleFolder) -> dict[str, str] | None:
    try:
        return msgspec.json.decode(folder.environment.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return None
