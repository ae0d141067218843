"""Write to MLflow what runs, versions and aliases are, in a thread of its own; what it does not take waits."""

from __future__ import annotations

import logging
import math
import re
import threading
import time

import msgspec

from lepton_jupyter.backend.store import RecordedRun, Store
from lepton_jupyter.backend.tracking import MAX_POINTS, Point, Tracking, Unreachable
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.events import EventReader
from lepton_jupyter.formats.records import RunRecord

log = logging.getLogger("lepton.backend")

INTERVAL_S = 5.0  # a pass takes 15 ms of a core; who waits for one wakes it
FIRST_PAUSE_S = 2.0
LAST_PAUSE_S = 60.0
LOADING_S = 30.0  # importing MLflow and making its file, once
ANSWER_S = 5.0
MAX_KEY_CHARS = 250


class Recorder:
    """Reconciles `state.db` with MLflow. Each pass does only what is missing, so that a pass may end anywhere.

    Attributes
    ----------
    is_up : bool
        Whether MLflow answered last.
    """

    def __init__(self, home: Home, store: Store, tracking: Tracking) -> None:
        self.home = home
        self.store = store
        self.tracking = tracking
        self.is_up = False
        self._loaded_at: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self._down_until = 0.0
        self._wake = threading.Event()
        self._passed = threading.Condition()
        self._n_passes = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def start(self) -> None:
        """Begin; the import of MLflow happens in the thread."""
        self._thread.start()

    def close(self, timeout_s: float = 3.0) -> None:
        """End after the pass that is under way; one that takes longer is left: the next backend goes on from there."""
        self._is_closed = True
        self._wake.set()
        if self._loaded_at is not None:
            self._thread.join(timeout_s)

    def wait_for_number(self, run_id: str) -> int | None:
        """Return the registry's number of a version; None where MLflow does not answer within 5 s."""
        started = time.monotonic()
        while True:
            version = self.store.version(run_id)
            if version is None or version.number is not None or self._is_closed:
                return version.number if version is not None else None
            if time.monotonic() < self._down_until:
                return None
            patience_s = LOADING_S if self._loaded_at is None else ANSWER_S
            if time.monotonic() - max(started, self._loaded_at or 0.0) > patience_s:
                return None
            self._wake.set()
            with self._passed:
                self._passed.wait(0.2)

    def wake(self) -> None:
        """Make a pass soon."""
        self._wake.set()

    def _work(self) -> None:
        try:
            self.tracking.load()
            self.tracking.experiment_id()
            self.is_up = True
        except Exception as error:
            self._fell_silent(error)
        self._loaded_at = time.monotonic()
        while not self._is_closed:
            if time.monotonic() >= self._down_until:
                self._pass()
            with self._passed:
                self._n_passes += 1
                self._passed.notify_all()
            self._wake.wait(max(INTERVAL_S if self.is_up else 0.0, self._down_until - time.monotonic(), 0.05))
            self._wake.clear()
            if time.monotonic() < self._down_until:
                time.sleep(0.05)  # a waker cannot make an absent server answer sooner

    def _pass(self) -> None:
        try:
            if not self.is_up:
                self.tracking.experiment_id()
            elif not self.store.has_unrecorded():
                return
            for row in self.store.unrecorded_runs():
                self._run(row)
            self._moves()
            for run_id, model, number in self.store.deleted_versions():
                if number is not None:
                    self.tracking.delete_version(model, number)
                self.store.drop_version(run_id)
        except Unreachable as error:
            self._fell_silent(error)
        except Exception:
            log.exception("a pass of the recorder failed")
            self._down_until = time.monotonic() + FIRST_PAUSE_S
        else:
            self.is_up, self._pause_s, self._down_until = True, FIRST_PAUSE_S, 0.0

    def _fell_silent(self, error: Exception) -> None:
        if self.is_up or self._pause_s == FIRST_PAUSE_S:
            log.warning("%s Trying again in %.0f s.", error, self._pause_s)
        self.is_up = False
        self._down_until = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)

    def _run(self, row: RecordedRun) -> None:
        folder = self.home.run(row.run_id)
        if row.is_deleted:
            self.tracking.delete_run(row.run_id)
            self.store.drop_run(row.run_id)
            return
        try:
            record = msgspec.json.decode(folder.record.read_bytes(), type=RunRecord)
            mlflow_id = self.tracking.ensure_run(record)
            if mlflow_id != row.mlflow_run_id:  # new, or another MLflow store than before: everything once more
                row = msgspec.structs.replace(row, mlflow_run_id=mlflow_id, mlflow_offset=0)
                self.store.save_recorded(row.run_id, mlflow_run_id=mlflow_id, mlflow_offset=0)
            self._metrics(row, folder, mlflow_id)
            self._version(row.run_id, mlflow_id)
            if row.state in ENDED:
                self._end(row.run_id, mlflow_id)
        except Unreachable:
            raise
        except (LeptonError, OSError, msgspec.DecodeError) as error:
            log.warning("run %s is not recorded: %s", row.run_id, error)
            self.store.save_recorded(row.run_id, is_recorded=True)

    def _metrics(self, row: RecordedRun, folder: RunFolder, mlflow_id: str) -> None:
        """Write the metrics behind the cursor; a repetition adds nothing, so the cursor may follow after."""
        reader = EventReader(folder.events, row.mlflow_offset)
        points: list[Point] = []
        offset = row.mlflow_offset
        for offset, event in reader.read():
            if event.get("kind") == "metric":
                points += _points(event)
            if len(points) >= MAX_POINTS:
                self.tracking.log_points(mlflow_id, points)
                self.store.save_recorded(row.run_id, mlflow_offset=offset)
                points = []
        if points:
            self.tracking.log_points(mlflow_id, points)
        if offset != row.mlflow_offset:
            self.store.save_recorded(row.run_id, mlflow_offset=offset)

    def _version(self, run_id: str, mlflow_id: str) -> None:
        version = self.store.version(run_id)
        if version is not None and version.number is None:
            self.store.save_number(run_id, self.tracking.ensure_version(version, mlflow_id))

    def _end(self, run_id: str, mlflow_id: str) -> None:
        view = self.store.run(run_id)
        if view is None:
            return
        if view.kind == "evaluate" and view.state == "completed":
            found = {
                key: value for key, value in view.result.get("metrics", {}).items() if isinstance(value, int | float)
            }
            at = view.ended_at or view.created_at
            self.tracking.log_points(mlflow_id, [Point(key, float(value), 0, at) for key, value in found.items()])
            judged = self.store.version(view.model_version or "")
            if judged is not None and judged.number is not None and judged.verdict:
                self.tracking.tag_version(judged.model, judged.number, judged.verdict)
        if view.checks:
            at = view.ended_at or view.created_at
            points = [Point(metric_key(key), value, 0, at) for key, value in view.checks.items() if value is not None]
            self.tracking.log_points(mlflow_id, points)
        self.tracking.finish_run(mlflow_id, view.state, ended_at=view.ended_at, notes=view.notes)
        self.store.save_recorded(run_id, is_recorded=True)

    def _moves(self) -> None:
        """Write the moves of aliases, each model's in their order: one waits until its version has a number."""
        waiting: set[str] = set()
        for move in self.store.unrecorded_moves():
            version = self.store.version(move.run_id) if move.run_id is not None else None
            if move.model in waiting or (version is not None and version.number is None):
                waiting.add(move.model)
                continue
            try:
                if move.run_id is None or version is not None:  # else: deleted since
                    self.tracking.set_alias(move.model, move.alias, version.number if version is not None else None)
            except Unreachable:
                raise
            except LeptonError as error:
                log.warning("alias %s of %s is not recorded: %s", move.alias, move.model, error)
            self.store.mark_move_recorded(move.id)


def metric_key(check: str) -> str:
    """Return the name of a check as MLflow takes it: ``missing(age)`` becomes ``missing/age``.

    Examples
    --------
    >>> metric_key("psi(größe in %)")
    'psi/größe in _'
    """
    name, _, column = check.removesuffix(")").partition("(")
    parts = [re.sub(r"[^\w. -]", "_", part) for part in (name, column) if part]
    return "/".join("_" + part if not part.strip(". ") else part for part in parts)[:MAX_KEY_CHARS]


def _points(event: dict[str, object]) -> list[Point]:
    values, step, at = event.get("values"), event.get("step"), event.get("at")
    if not isinstance(values, dict):
        return []
    return [
        Point(
            str(key),
            float(value),
            int(step) if isinstance(step, int) else 0,
            float(at) if isinstance(at, float) else 0.0,
        )
        for key, value in values.items()
        if isinstance(value, int | float) and not math.isnan(value)
    ]
