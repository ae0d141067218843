"""Follow a run live: one card that is updated in place, or lines in a terminal; ■ stops the run, a restart does not."""

from __future__ import annotations

import queue
import re
import threading
import time
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import tail
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.progress import Progress, progress_of
from lepton_jupyter.faces.objects.run import ROLES
from lepton_jupyter.formats.views import RunView

UPDATE_S = 0.2  # five pictures a second
LOOK_S = 0.5  # after ■: whether the kernel is being shut down
STOPPING_S = 180.0
LOG_LINES = 20

_NOISE = re.compile(  # what ipykernel and papermill print into every log
    r"\s*\Z|NOTE: When using the|To exit, you will|\"quit\" from a client|To read more about|To connect another client"
    r"|\s+--existing |Passed unknown parameter|Black is not installed"
)


class _Listener(threading.Thread):
    """Reads events beside the cell, so that the cell itself waits in short plain calls and ■ is heard at once."""

    def __init__(self, asker: Asker, run_id: str) -> None:
        super().__init__(name=f"lepton-follow-{run_id}", daemon=True)
        self.client = asker.client
        self.run_id = run_id
        self.inbox: queue.SimpleQueue[dict[str, Any] | LeptonError] = queue.SimpleQueue()
        self.is_wanted = True

    def run(self) -> None:
        try:
            for event in self.client.events(self.run_id):
                if not self.is_wanted:
                    return
                self.inbox.put(event)
        except LeptonError as error:
            self.inbox.put(error)


def follow(asker: Asker, view: RunView) -> RunView:
    """Show a run until it has ended, and return it as it then stands.

    Raises
    ------
    LeptonError
        If it failed or was lost; or with the code ``stopped`` where ■ was pressed, after the run has come to its end.
    """
    listener = _Listener(asker, view.run_id)
    progress = progress_of(asker, view)
    try:
        listener.start()
        ended = _watch(asker, listener, progress)
    except KeyboardInterrupt:
        if _is_shutting_down(asker):
            listener.is_wanted = False
            raise
        ended = _stop(asker, listener, progress)
        progress.end(ended)
        raise _stopped(asker, ended) from None
    finally:
        listener.is_wanted = False
    progress.end(ended)
    raise_if_failed(asker, ended)
    return ended


def wait_for(asker: Asker, run_id: str) -> RunView:
    """Wait for the end of a run without a card. ■ ends the waiting, not the run."""
    view = asker.client.run(run_id)
    while view.state not in ENDED:
        time.sleep(UPDATE_S)
        view = asker.client.run(run_id)
    return view


def _watch(asker: Asker, listener: _Listener, progress: Progress, *, deadline: float | None = None) -> RunView:
    while deadline is None or time.monotonic() < deadline:
        try:
            event = listener.inbox.get(timeout=UPDATE_S)
        except queue.Empty:
            progress.tick()
            continue
        if isinstance(event, LeptonError):
            raise event
        if event.get("kind") == "end":
            return _view_of(asker, listener.run_id, event)
        progress.add(event)
    return asker.client.run(listener.run_id)


def _view_of(asker: Asker, run_id: str, event: dict[str, Any]) -> RunView:
    told = event.get("run")
    return msgspec.convert(told, RunView) if told else asker.client.run(run_id)


def _is_shutting_down(asker: Asker) -> bool:
    """Whether the signal was the first word of a restart, shutdown or culling: then the run must go on.

    All of them begin with the signal of ■. ipykernel 7 notes a shutdown request within 50 ms; the kernel ends only when
    its cell has, so the cell that sees one must end at once.
    """
    kernel = getattr(asker.shell, "kernel", None)
    until = time.monotonic() + LOOK_S
    while kernel is not None and time.monotonic() < until:
        if getattr(kernel, "_shutdown_message", None) is not None:
            return True
        time.sleep(0.02)
    return False


def _stop(asker: Asker, listener: _Listener, progress: Progress) -> RunView:
    progress.remark("stopping: the best checkpoint is kept")
    asker.client.stop_run(listener.run_id, "its cell was interrupted")
    return _watch(asker, listener, progress, deadline=time.monotonic() + STOPPING_S)


def _stopped(asker: Asker, view: RunView) -> LeptonError:
    name = f"{view.model}@{view.version}" if view.model and view.version is not None else ""
    done = view.progress.get("done")
    where = f" after {view.progress.get('unit', 'step')} {done}" if done is not None else ""
    if view.state != "stopped":
        return LeptonError(
            f"Run {view.run_id} of {view.title} was interrupted and is {view.state}.",
            f"See it: {asker.type_next(f'show run/{view.run_id}')}",
            code="stopped",
        )
    kept = f" Its best checkpoint is {name}." if name else " There was no checkpoint yet: no version was made."
    last = RunFolder(asker.home.run(view.run_id).root).checkpoints / "last.safetensors"
    again = f"add --resume {view.run_id} to train on" if last.exists() else "run the cell again"
    hint = f"Go on with {asker.type_next(f'evaluate {name}')}, or {again}." if name else f"{again.capitalize()}."
    return LeptonError(f"Run {view.run_id} of {view.title} stopped{where}.{kept}", hint, code="stopped")


def raise_if_failed(asker: Asker, view: RunView) -> None:
    """Raise what a failed or lost run has to say: id, reason, the user's frames or the last log lines."""
    if view.state not in ("failed", "lost"):
        return
    folder = RunFolder(asker.home.run(view.run_id).root)
    failure = view.error
    log = "\n".join(line for line in tail(folder.log, LOG_LINES).splitlines() if not _NOISE.match(line))
    detail = failure.detail if failure and failure.detail else ""
    if not detail and log:
        detail = f"Last lines of the log:\n{log}"
    where = f"Log: {folder.log}\nNotebook: {folder.notebook}"
    reason = failure.message if failure else "no reason was recorded"
    role = ROLES.get(view.kind, view.kind)
    raise LeptonError(
        f"{role} {view.title} {view.state} (run {view.run_id}): {reason}",
        (failure.hint if failure else "") or f"See it in place: {asker.type_next(f'open run/{view.run_id}')}",
        code="failed",
        detail="\n".join(part for part in (detail, where) if part),
    )
