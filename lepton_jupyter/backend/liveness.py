"""Whether a run's supervisor lives, and what to say about one that does not: locks are the proof of life."""

from __future__ import annotations

import logging
import shutil
import time
from signal import SIGKILL
from subprocess import Popen

from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import tail
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import boot_id, is_held
from lepton_jupyter.formats.views import Failure

log = logging.getLogger("lepton.backend")

START_GRACE_S = 30.0  # between its start and its lock, a supervisor is known by pid, start ticks and boot id


def is_dead(home: Home, run: FollowedRun, child: Popen[bytes] | None) -> bool:
    """Whether nobody holds the lock of a run that was started, and nobody is about to take it."""
    path = home.runtime().run_lock(run.view.run_id)
    if is_held(path):
        return False
    if child is not None and child.poll() is None:
        return False
    if run.supervisor is None or not run.supervisor.is_alive():
        # looked at once more: it may have taken the lock and written its end between the two looks
        return not is_held(path)
    if not path.exists():
        return False  # the runtime folder was swept; the supervisor sees it within a second
    return time.time() - run.begun_at > START_GRACE_S


def died(run: FollowedRun, *, was_watched: bool) -> tuple[str, Failure]:
    """Return the state of a run whose supervisor is gone without a word, and the reason.

    Parameters
    ----------
    run : FollowedRun
    was_watched : bool
        Whether this backend saw it alive: then it is `failed`; else backend and run went together: `lost`.
    """
    run_id, last_lines = run.view.run_id, tail(run.folder.log)
    where = f"Its log is {run.folder.log}."
    if run.stop_asked is not None:
        message = f"Run {run_id} was stopped: {run.stop_asked or 'asked'}."
        return "stopped", Failure(message=message, code="stopped", detail=last_lines)
    if run.supervisor is not None and run.supervisor.boot_id != boot_id():
        message = f"Run {run_id} was lost: the machine was restarted while it was running."
        return "lost", Failure(message=message, hint="Start it again.", code="failed", detail=last_lines)
    if not was_watched:
        message = f"Run {run_id} was lost: it ended together with the backend (host, container or session stopped)."
        return "lost", Failure(message=message, hint=f"Start it again. {where}", code="failed", detail=last_lines)
    message = f"Run {run_id} failed: its supervisor was killed while the notebook was running."
    return "failed", Failure(message=message, hint=where, code="failed", detail=last_lines)


def sweep(home: Home, run: FollowedRun) -> None:
    """End what outlived the supervisor, and remove its sockets."""
    from lepton_jupyter.runner.sweep import sweep_session  # the runner is needed for the dead only

    if run.kernel is not None:
        sweep_session(run.kernel)
    if run.supervisor is not None:
        run.supervisor.send_group(SIGKILL)
    for path in home.runtime().kernels.glob(f"{run.view.run_id[:12]}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def tidy(run: FollowedRun) -> None:
    """Remove what only a living run needs: room that it reserved, files that it was in the middle of writing."""
    run.folder.reserve.unlink(missing_ok=True)
    for path in run.folder.root.glob("**/.*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def correct_notebook(run: FollowedRun, state: str, failure: Failure) -> None:
    """Make the executed notebook of a run whose supervisor is dead tell the truth."""
    if not run.folder.notebook.exists():
        return
    from lepton_jupyter.runner.truth import repair_notebook

    try:
        repair_notebook(run.folder.notebook, state=state, message=failure.message)
    except (OSError, ValueError, LeptonError):
        log.exception("the notebook of run %s could not be repaired", run.view.run_id)
