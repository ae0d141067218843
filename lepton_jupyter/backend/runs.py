"""Runs from their submission to their end: started in order, followed, stopped, adopted by the next backend."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from signal import SIGTERM
from subprocess import Popen
from typing import Any

import msgspec

from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.backend.liveness import correct_notebook, died, is_dead, sweep, tidy
from lepton_jupyter.backend.queue import Lease, Slots, descendants, in_order, n_scheduled_slots, waits_for_device
from lepton_jupyter.backend.restarts import after_restarts, may_go_on
from lepton_jupyter.backend.starting import SUPERVISOR, Starter
from lepton_jupyter.backend.store import Store
from lepton_jupyter.backend.warming import Warming
from lepton_jupyter.core.devices import Choice, is_cpu
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, is_held, reap
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import DeviceView, Failure, RunView

log = logging.getLogger("lepton.backend")

STEADY_S = 5.0
PROBE_S = 0.5  # how often an active run's lock is looked at, and its view saved
SECOND_STOP_S = 2.0  # requests closer than this are one
HOLDERS_S = 1.0  # how often a waiting run says who holds what it waits for
N_RECENT = 100

OnEnd = Callable[[FollowedRun, str], int | None]


class Runs:
    """Every run that has not ended, and the few that just have. Its methods may be called from any thread.

    Parameters
    ----------
    home : Home
    store : Store
    on_end : callable
        Given a run and the state in which it ends: registers what it leaves, returns the version's number.
    slots : Slots
    supervisor : sequence of str
        The program that is started with the run's folder as its argument.
    """

    def __init__(
        self, home: Home, store: Store, *, on_end: OnEnd, slots: Slots, supervisor: Sequence[str] = SUPERVISOR
    ) -> None:
        self.home = home
        self.store = store
        self.slots = slots
        self.is_accepting = True
        self._on_end = on_end
        self._starter = Starter(home, supervisor)
        self._active: dict[str, FollowedRun] = {}
        self._recent: dict[str, FollowedRun] = {}
        self._children: dict[str, Popen[bytes]] = {}
        self._finishing: set[str] = set()
        self._probed_at: dict[str, float] = {}
        self._stopped_at: dict[str, float] = {}
        self._holders: list[DeviceView] = []
        self._looked_at = -HOLDERS_S
        self._lock = threading.RLock()
        self.wake = threading.Event()

    @property
    def n_active(self) -> int:
        """How many runs have not ended."""
        return len(self._active)

    @property
    def is_steady(self) -> bool:
        """Whether every run has been running for a while, and nobody has asked one to stop."""
        until = time.time() - STEADY_S
        return all(
            run.view.state == "running" and (run.view.started_at or until) < until and run.stop_asked is None
            for run in self.active()
        )

    @property
    def warming(self) -> Warming:
        """Who keeps a supervisor that waits for a training."""
        return self._starter.warming

    def active(self) -> list[FollowedRun]:
        """Return the runs that have not ended, in the order of their submission."""
        with self._lock:
            return list(self._active.values())

    def followed(self, run_id: str) -> FollowedRun | None:
        """Return a run that is active or has just ended."""
        return self._active.get(run_id) or self._recent.get(run_id)

    # -- in

    def submit(self, run_id: str) -> RunView:
        """Take a run whose folder the client has written; once more is no harm.

        Raises
        ------
        LeptonError
            If there is no such folder, or the run that asks is itself being stopped.
        """
        folder = self.home.run(run_id)
        try:
            record = msgspec.json.decode(folder.record.read_bytes(), type=RunRecord)
        except (OSError, msgspec.DecodeError) as error:
            raise LeptonError(
                f"There is no run '{run_id}' in '{self.home.runs}': {error}.", code="not_found"
            ) from error
        with self._lock:
            known = self.followed(run_id)
            saved = known.view if known is not None else self.store.run(run_id)
            if saved is not None:
                return saved
            self._check_accepts(record)
            run = FollowedRun(folder, record)
            self.store.add_run(run.view)
            run.add("state", state="queued")
            if record.kind == "save":  # its bundle is already there: nothing is executed
                self._finishing.add(run_id)
                run.add("state", state="starting")
                self.store.save_run(run.view)
            self._active[run_id] = run
        if record.kind == "save":
            self._finish(run, "completed", None)
        self.wake.set()
        return run.view

    def _check_accepts(self, record: RunRecord) -> None:
        if not self.is_accepting:
            raise LeptonError("The backend is being stopped.", "Try again in a moment.", code="unavailable")
        parent = self._active.get(record.parent or "")
        if parent is not None and parent.stop_asked is not None:
            raise LeptonError(f"Run {record.parent}, inside which this was asked, is being stopped.", code="stopped")

    def adopt(self) -> None:
        """Take over the runs that an earlier backend left: the living go on, the dead are told about."""
        for saved in self.store.active_runs():
            folder = self.home.run(saved.run_id)
            try:
                run = FollowedRun(folder, msgspec.json.decode(folder.record.read_bytes(), type=RunRecord))
            except (OSError, msgspec.DecodeError) as error:
                failure = Failure(message=f"The folder of run {saved.run_id} cannot be read: {error}.", code="failed")
                self.store.save_run(msgspec.structs.replace(saved, state="lost", error=failure, ended_at=time.time()))
                continue
            with self._lock:
                self._active[saved.run_id] = run
            run.pull()
            if run.is_ended:  # seen by everybody, but the row was not saved any more
                self._retire(run)
            elif run.view.state != "queued" and run.ending is None and is_dead(self.home, run, None):
                self._bury(run, was_watched=False)

    # -- the clock

    def tick(self) -> None:
        """Look at every active run once, and start those that may."""
        reap()
        for run in self.active():
            if run.view.run_id in self._finishing:
                continue
            run.pull()
            if run.ending is not None:
                self._end_or_go_on(run, run.ending)
            elif time.monotonic() - self._probed_at.get(run.view.run_id, 0.0) > PROBE_S:
                self._probe(run)
        if self.is_accepting:
            self._start_queued()

    def _probe(self, run: FollowedRun) -> None:
        run_id = run.view.run_id
        self._probed_at[run_id] = time.monotonic()
        self.store.save_run(run.view)
        if run.view.state == "queued" or not is_dead(self.home, run, self._children.get(run_id)):
            return
        run.pull()  # what it wrote before it died
        if run.ending is None:
            self._bury(run, was_watched=True)

    def _bury(self, run: FollowedRun, *, was_watched: bool) -> None:
        """End a run whose supervisor is gone without a word, or let it go on."""
        state, failure = died(run, was_watched=was_watched)
        sweep(self.home, run)
        tidy(run)
        if not self._goes_on(run, failure.message.partition(": ")[2], is_counted=state != "lost"):
            correct_notebook(run, state, failure)
            self._finish_soon(run, state, after_restarts(failure, run.n_restarts))

    def _end_or_go_on(self, run: FollowedRun, ending: dict[str, Any]) -> None:
        """End a run as its supervisor says; one whose kernel was killed may go on."""
        if ending.get("died"):
            tidy(run)
        failure = _failure(ending.get("error"))
        if ending.get("died") and self._goes_on(run, failure.message if failure else "its kernel was killed"):
            return
        bad = after_restarts(failure, run.n_restarts) if ending.get("died") else failure
        self._finish_soon(run, str(ending["state"]), bad)

    def _goes_on(self, run: FollowedRun, why: str, *, is_counted: bool = True) -> bool:
        """Put a dead run back into the queue where it can go on from a checkpoint; return whether it does."""
        with self._lock:
            if run.view.run_id in self._finishing or not may_go_on(run, is_counted=is_counted):
                return False
            log.warning("run %s goes on from its checkpoint: %s", run.view.run_id, why)
            shutil.rmtree(run.folder.bundle, ignore_errors=True)  # made when it was killed: it makes one again
            run.go_on(why, is_counted=is_counted)
            self.store.save_run(run.view)
        self.wake.set()
        return True

    # -- the queue

    def _start_queued(self) -> None:
        """Start what may start, in order. What one waits for is kept free from those behind it."""
        with self._lock:
            active = {run.view.run_id: run for run in self.active()}
            started = [run for run in active.values() if run.view.state != "queued"]
            queued = [
                run
                for run in active.values()
                if run.view.state == "queued" and run.view.run_id not in self._finishing and not self._is_leaving(run)
            ]
            needs = {run_id: run.record.needs_device for run_id, run in active.items()}
            parents = {run_id: run.view.parent for run_id, run in active.items()}
            n_free = n_scheduled_slots() - sum(run.record.schedule is not None for run in started)
            held = {name for run in started for name in run.devices}
            wanted: set[str] = set()
            has_taken = False
            kept = self.slots.ahead() if queued else set()
            for record in in_order([run.record for run in queued]):
                run = active[record.run_id]
                if record.schedule is not None:
                    n_free -= 1
                    if n_free < 0:
                        _say(run, f"other scheduled runs to end; {n_scheduled_slots()} go on at once")
                        continue
                if not waits_for_device(run.view, needs, parents):
                    self._start(run, None)
                    continue
                try:
                    choice = self.slots.choose(record.devices)
                    lease = self.slots.take(choice, held | kept | wanted)
                except LeptonError as error:  # it can never start
                    self._finish_soon(run, "failed", Failure(**{**error.to_dict(), "code": "failed"}))
                    continue
                if lease is None:
                    wanted.update(choice.names)
                    self._say_waiting(run, choice)
                    continue
                has_taken = True
                held.update(lease.names)
                self._start(run, lease)
            self.slots.settle(wanted, has_taken=has_taken)

    def _is_leaving(self, run: FollowedRun) -> bool:
        """Whether the supervisor that a run had before is still there: no run is executed twice at once."""
        child = self._children.get(run.view.run_id)
        return (child is not None and child.poll() is None) or is_held(self.home.runtime().run_lock(run.view.run_id))

    def _say_waiting(self, run: FollowedRun, choice: Choice) -> None:
        many = f"{choice.n} free devices" if choice.n > 1 else "a free device"
        now = time.monotonic()
        if now - self._looked_at > HOLDERS_S:
            self._looked_at, self._holders = now, [view for view in self.devices() if view.run_id or view.holder]
        held = [
            f"{view.name} by {f'{view.title} ({view.run_id})' if view.title else view.holder}"
            for view in self._holders
            if view.name in choice.names
        ]
        _say(run, f"{many}; held: {', '.join(held)}" if held else f"{many}: others have waited longer")

    def _start(self, run: FollowedRun, lease: Lease | None) -> None:
        try:
            child = self._starter.start(run, lease)
            if lease is not None:
                lease.sign(child.pid, run.view.run_id)
        except OSError as error:
            failure = Failure(message=f"Run {run.view.run_id} cannot be started: {error}.", code="failed")
            self._finish_soon(run, "failed", failure)
            return
        finally:
            if lease is not None:
                lease.release()  # the supervisor has it now
        self._children[run.view.run_id] = child
        self._looked_at = -HOLDERS_S
        who = Identity.of(child.pid)
        told = {"process": who.to_dict()} if who is not None else {}
        run.add("state", state="starting", device=",".join(lease.names) if lease else None, **told)

    # -- out

    def _finish_soon(self, run: FollowedRun, state: str, failure: Failure | None) -> None:
        """End a run in a thread of its own: a registry that is slow holds up no other run."""
        with self._lock:
            if run.view.run_id in self._finishing:
                return
            self._finishing.add(run.view.run_id)
        threading.Thread(target=self._finish, args=(run, state, failure), daemon=True).start()

    def _finish(self, run: FollowedRun, state: str, failure: Failure | None) -> None:
        number: int | None = None
        at = run.ending.get("at") if run.ending is not None else None
        try:
            number = self._on_end(run, state)
        except LeptonError as error:
            state, failure = "failed", Failure(**error.to_dict())
        except Exception as error:
            log.exception("run %s could not be registered", run.view.run_id)
            message = f"Run {run.view.run_id} ended, but what it left could not be registered: {error}."
            state, failure = "failed", Failure(message=message, code="failed")
        run.end(state, error=failure, at=at, **({"version": number} if number is not None else {}))
        self._retire(run)

    def _retire(self, run: FollowedRun) -> None:
        run_id = run.view.run_id
        self.store.save_run(run.view)
        with self._lock:
            self._recent[run_id] = run
            while len(self._recent) > N_RECENT:
                self._recent.pop(next(iter(self._recent)))
            for known in (self._active, self._children, self._probed_at, self._stopped_at):
                known.pop(run_id, None)
            self._finishing.discard(run_id)
        self.home.runtime().run_lock(run_id).unlink(missing_ok=True)
        self.wake.set()

    def stop(self, run_id: str, why: str) -> None:
        """Ask a run, and those that were asked for inside it, to stop; one that has ended stays as it is."""
        with self._lock:
            parents = {run.view.run_id: run.view.parent for run in self.active()}
            for each in (run_id, *reversed(descendants(run_id, parents))):
                run = self._active.get(each)
                if run is not None and each not in self._finishing:
                    self._stop_one(run, why if each == run_id else f"run {run_id}, which asked for it, was stopped")

    def _stop_one(self, run: FollowedRun, why: str) -> None:
        run_id = run.view.run_id
        if run.view.state == "queued":
            failure = Failure(message=f"Run {run_id} was stopped before it began: {why or 'asked'}.", code="stopped")
            self._finish_soon(run, "stopped", failure)
            return
        if time.monotonic() - self._stopped_at.get(run_id, -SECOND_STOP_S) < SECOND_STOP_S:
            return  # to the supervisor a second signal means: kill the kernel
        self._stopped_at[run_id] = time.monotonic()
        run.add("state", state="stopping", why=why)
        if run.supervisor is not None:
            run.supervisor.send(SIGTERM)

    def devices(self) -> list[DeviceView]:
        """Return the devices and who holds them, whatever user or home that is."""
        ours = {name: run.view for run in self.active() if run.view.state != "queued" for name in run.devices}
        found = []
        for name in self.slots.names:
            kind = "cpu" if is_cpu(name) else "gpu"
            view = DeviceView(name=name, kind=kind, label=self.slots.devices.label(name))
            holder = self.slots.folder.holder(name)
            if name in ours:
                view = msgspec.structs.replace(view, run_id=ours[name].run_id, title=ours[name].title)
            if holder is not None:
                view = msgspec.structs.replace(view, holder=holder.text, run_id=view.run_id or holder.run_id or None)
            found.append(view)
        return found


def _failure(told: object) -> Failure | None:
    return msgspec.convert(told, Failure) if isinstance(told, dict) else None


def _say(run: FollowedRun, needs: str) -> None:
    if run.view.needs != needs:
        run.add("state", state="queued", needs=needs)
