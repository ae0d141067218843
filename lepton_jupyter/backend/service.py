"""The backend as a whole: its parts put together, and the clocks that drive them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version as installed_version

import msgspec

from lepton_jupyter.backend import heartbeat
from lepton_jupyter.backend.alerts import Alerts
from lepton_jupyter.backend.beside import asked_of
from lepton_jupyter.backend.deletion import Deletion
from lepton_jupyter.backend.delivery import Delivery
from lepton_jupyter.backend.endpoints import Endpoints
from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.backend.journal import Journal
from lepton_jupyter.backend.keeper import holder, spawn_keeper
from lepton_jupyter.backend.queue import Slots
from lepton_jupyter.backend.recorder import Recorder
from lepton_jupyter.backend.runs import Runs
from lepton_jupyter.backend.schedules import Schedules
from lepton_jupyter.backend.signing import check_where_asked
from lepton_jupyter.backend.store import Store
from lepton_jupyter.backend.tabling import Tabling
from lepton_jupyter.backend.tracking import Tracking
from lepton_jupyter.backend.versions import Versions
from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.names import parse
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import is_held
from lepton_jupyter.formats.alerts import AlertView
from lepton_jupyter.formats.schedule import ScheduleRecord
from lepton_jupyter.formats.views import PROTOCOL, DeployRequest, EndpointView, Health, RunView, VersionView
from lepton_jupyter.stages.deploy.gate import decide

log = logging.getLogger("lepton.backend")

RUNS_TICK_S = 0.05
RUNNING_TICK_S = 0.2  # while all runs do nothing but run: on two cores ours would be in the way of their steps
ENDPOINTS_TICK_S = 0.5
KEEPER_TICK_S = 1.0
WARMING_TICK_S = 1.0
TABLING_TICK_S = 10.0
SCHEDULES_LOOK_S = 0.1  # costs nothing while nothing is due


class Service:
    """What a client may ask for. Its methods may be called from any thread."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.runtime = home.runtime()
        self.store = Store(home)
        self.recorder = Recorder(home, self.store, Tracking(home))
        self.versions = Versions(home, self.store)
        self.journal = Journal(home, self.store)
        self.endpoints = Endpoints(home, self.store)
        self._tabling = Tabling(home)
        self.runs = Runs(home, self.store, on_end=self._on_end, slots=Slots(home))
        self._deletion = Deletion(home, self.store, self.runs, self.versions, self.endpoints)
        self.schedules = Schedules(home, self.store.engine, self.runs)
        self.alerts = Alerts(home, self.store.engine)
        self.alerts.on_firing = self._on_alert
        self.schedules.listeners.append(self.alerts)
        self.delivery = Delivery(home, self.store.engine)
        self._deliver_in_s = 0.0
        self._is_closed = threading.Event()
        self._clocks: list[threading.Thread] = []

    def start(self) -> None:
        """Adopt what an earlier backend left, and let the clocks run."""
        heartbeat.beat(self.home)
        self.runs.adopt()
        self.schedules.sweep_folders()
        for name, tick, pause_s in (
            ("runs", self._tick_runs, 0.0),
            ("endpoints", self.endpoints.tick, ENDPOINTS_TICK_S),
            ("keeper", self._tick_keeper, KEEPER_TICK_S),
            ("schedules", self._tick_schedules, SCHEDULES_LOOK_S),
            ("alerts", self._tick_alerts, 0.0),
            ("tabling", self._tabling.tick, TABLING_TICK_S),
            ("warming", lambda: self.runs.warming.tick(self.runs.active()), WARMING_TICK_S),
        ):
            clock = threading.Thread(target=self._every, args=(tick, pause_s), name=name, daemon=True)
            clock.start()
            self._clocks.append(clock)
        self.recorder.start()

    def close(self) -> None:
        """Let go of everything; runs and endpoints go on."""
        self._is_closed.set()
        self.runs.wake.set()
        self.alerts.wake.set()
        for clock in self._clocks:
            clock.join(5.0)
        self.runs.warming.close()
        self.delivery.close()
        self.recorder.close()
        for run in self.runs.active():
            self.store.save_run(run.view)
            run.close()
        heartbeat.beat(self.home, is_last=True)
        self.store.close()

    def stop_clocks(self) -> None:
        """Begin nothing more: no run, no endpoint, and no keeper that would have this backend back."""
        self._is_closed.set()

    def _every(self, tick: Callable[[], None], pause_s: float) -> None:
        while not self._is_closed.is_set():
            try:
                tick()
            except Exception:
                log.exception("a clock of the backend stumbled")
                time.sleep(1.0)
            self._is_closed.wait(pause_s)

    def _tick_runs(self) -> None:
        self.runs.wake.wait((RUNNING_TICK_S if self.runs.is_steady else RUNS_TICK_S) if self.runs.n_active else 0.5)
        self.runs.wake.clear()
        self.runs.tick()

    def _tick_schedules(self) -> None:
        if self.schedules.is_due():
            self.schedules.tick()

    def _tick_alerts(self) -> None:
        """Start what alerts are to start, and send what waits: nothing else of the backend waits for a channel."""
        if self.alerts.wake.wait(self._deliver_in_s):
            self.alerts.wake.clear()
            if self._is_closed.is_set():
                return
            self.alerts.tick()
        self._deliver_in_s = self.delivery.tick()

    def _on_alert(self, alert: AlertView, record: ScheduleRecord) -> str:
        """Fire the retrain of the model that an endpoint serves; return its run's id."""
        model = self.endpoints.row(record.subject).model
        return self.schedules.fire_now(f"retrain-{model}", f"alert {alert.id} of {alert.schedule}: {alert.text}")

    def _tick_keeper(self) -> None:
        """Say that this host has the home, and have the keeper back."""
        if time.time() - heartbeat.read_heartbeat(self.home).get("at", 0.0) > heartbeat.BEAT_S:
            heartbeat.beat(self.home)
        if self.runtime.root.exists() and not is_held(self.runtime.keeper_lock):
            self._is_closed.wait(KEEPER_TICK_S)  # one that is just starting has its lock by now
            if not self._is_closed.is_set() and self.runtime.root.exists() and not is_held(self.runtime.keeper_lock):
                spawn_keeper(self.home)

    # -- runs

    def _on_end(self, run: FollowedRun, state: str) -> int | None:
        """Register what a run leaves, before anybody sees that it has ended."""
        made = self.versions.register(run, state)
        if run.record.kind == "evaluate" and state == "completed":
            self.versions.judge(run)
        if run.record.kind == "retrain":
            self._end_inside(run)
        self.schedules.on_run_end(run)
        self.recorder.wake()
        return self.recorder.wait_for_number(made.run_id) if made is not None else None

    def _end_inside(self, retrain: FollowedRun) -> None:
        """Stop what a retrain asked for and does not wait for any more: it failed, was lost or took too long."""
        for inner in self.runs.active():
            # one that is stopping keeps its best just now: to ask again would mean to kill it
            if inner.record.parent == retrain.view.run_id and inner.stop_asked is None:
                self.runs.stop(inner.view.run_id, f"retrain {retrain.view.run_id}, which asked for it, has ended")

    def run(self, text: str) -> RunView:
        """Return the run that a reference means: an id, a unique prefix, a version, or a model's name (its newest).

        Raises
        ------
        LeptonError
            If there is none, or several.
        """
        reference = parse(text)
        if reference.may_be_run:
            ids = self.store.run_ids(reference.name)
            if len(ids) > 1 and reference.name not in ids:
                raise LeptonError(f"'{text}' is the beginning of {len(ids)} run ids. Type more of it.")
            if ids:
                return self._view(reference.name if reference.name in ids else ids[0])
        if not reference.is_latest:
            return self._view(self.versions.resolve(text).run_id)
        run_id = self.store.newest_run_of(reference.name)
        if run_id is None:
            recent = [view.run_id for view in self.store.runs(limit=6)]
            raise unknown("run", text, [*self.store.run_models(), *recent], "List them with `%lepton runs`.")
        return self._view(run_id)

    def list_runs(self, kind: str | None, limit: int) -> list[RunView]:
        """Return runs as they stand, newest first."""
        numbers = self.store.numbers()
        return [self._fresh(view, numbers) for view in self.store.runs(kind, limit)]

    def _view(self, run_id: str) -> RunView:
        saved = self.store.run(run_id)
        if saved is None:
            raise unknown("run", run_id, [view.run_id for view in self.store.runs(limit=6)])
        return self._fresh(saved, self.store.numbers())

    def _fresh(self, saved: RunView, numbers: dict[str, int]) -> RunView:
        followed = self.runs.followed(saved.run_id)
        view = followed.view if followed is not None else saved
        return _with_version(view, numbers.get(view.run_id))

    def stop_run(self, run_id: str, why: str) -> RunView:
        """Ask a run to stop, and return it as it stands."""
        view = self.run(run_id)
        self.runs.stop(view.run_id, why)
        return self.run(view.run_id)

    # -- versions and endpoints

    def promote(self, ref: str, alias: str, why: str = "") -> VersionView:
        """Move an alias; endpoints that follow it swap.

        Raises
        ------
        LeptonError
            If an endpoint follows the alias and cannot serve the version.
        """
        version = self.versions.resolve(ref)
        followers = [row.name for row in self.store.endpoints() if (row.model, row.follows) == (version.model, alias)]
        if followers and not version.is_deployable:
            raise LeptonError(
                f"{version.ref} cannot be {alias}: endpoint '{followers[0]}' follows it, and this version is not "
                f"deployable ({version.why_not}).",
                code="refused",
            )
        if followers:
            check_where_asked(version)
        promoted = self.versions.promote(ref, alias, why=why)
        self.recorder.wake()
        self.endpoints.follow(promoted, alias)
        return promoted

    def deploy(self, request: DeployRequest) -> EndpointView:
        """Serve a version under a name, if its evaluation lets it; or have it beside what is served there.

        Raises
        ------
        LeptonError
            If there is no such version, its evaluation failed, its signature is wanted and not there, the port is in
            use, or it cannot stand beside what is served.
        """
        version = self.versions.resolve(request.model)
        decision = decide(version, force=request.force)
        if decision.refused is not None:
            raise decision.refused
        if decision.needs_evaluation:
            raise LeptonError(
                f"{version.ref} was never evaluated.",
                f"Evaluate it first: %lepton evaluate {version.ref}",
                code="refused",
            )
        check_where_asked(version)
        follows, why = parse(request.model).alias, f"forced: {request.force}" if request.force else ""
        beside = asked_of(request, version, follows=follows, warning=decision.warning)
        if beside is not None:
            return self.endpoints.deploy_beside(
                request.name, version, beside, port=request.port, why=why, options=request.options
            )
        return self.endpoints.deploy(
            request.name,
            version,
            follows=follows,
            port=request.port,
            who=request.who,
            why=why,
            warning=decision.warning,
            options=request.options,
        )

    def delete(self, ref: str) -> str:
        """Remove what a reference means, and return what that was; what is in use is refused."""
        reference = parse(ref)
        if reference.kind == "schedule":
            self.schedules.delete(reference.name)
            return f"schedule '{reference.name}'"
        if reference.kind == "endpoint" and self.endpoints.row(reference.name):
            self.schedules.delete_of_endpoint(reference.name)
        what = self._deletion.delete(ref)
        self.recorder.wake()
        return what

    # -- itself

    def health(self) -> Health:
        """Return what a client must know first; who asks for it begins to work."""
        self.runs.warming.want()
        return Health(
            protocol=PROTOCOL,
            version=installed_version("lepton_jupyter"),
            python=sys.executable,
            pid=os.getpid(),
            host=heartbeat.host_name(),
            home=str(self.home.root),
            n_active=self.runs.n_active,
            tracking=self.recorder.tracking.uri,
            is_tracking_up=self.recorder.is_up,
        )

    def dismiss_keeper(self, timeout_s: float = 3.0) -> None:
        """End the keeper, so that nobody has this backend back."""
        self.stop_clocks()
        keeper = holder(self.runtime.keeper_lock)
        deadline = time.monotonic() + timeout_s
        while keeper is not None and keeper.send(signal.SIGTERM) and time.monotonic() < deadline:
            time.sleep(0.05)


def _with_version(view: RunView, number: int | None) -> RunView:
    return msgspec.structs.replace(view, version=number) if number is not None else view
