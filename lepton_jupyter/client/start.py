"""Start keeper and backend where they are not there: many clients at once start one."""

from __future__ import annotations

import json
import time

from lepton_jupyter.backend.heartbeat import check_host
from lepton_jupyter.backend.keeper import answers, failure_path, spawn_keeper
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import tail
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Lock, is_held, reap

POLL_S = 0.01
START_S = 60.0
KEEPER_S = 2.0  # a keeper that was started has its lock by then


def ensure_backend(home: Home) -> None:
    """Return when the backend answers; start it where it does not.

    Raises
    ------
    LeptonError
        If it does not start; the last lines of its log come along. If another host has the home.
    """
    home.make()
    runtime = home.runtime()
    if answers(runtime.socket):
        return
    check_host(home)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        runtime.make()
        try:
            lock = Lock.take(runtime.start_lock)
        except OSError:
            continue  # swept between two lines
        if lock is not None:
            try:
                _start(home, deadline)
            finally:
                lock.release()
            return
        if answers(runtime.socket):
            return
        _raise_failure(home)
        time.sleep(POLL_S)
    raise _too_slow(home)


def _start(home: Home, deadline: float) -> None:
    """Spawn a keeper and wait; the start lock is ours."""
    runtime = home.runtime()
    if answers(runtime.socket):
        return
    failure_path(runtime).unlink(missing_ok=True)
    spawned_at = float("-inf")
    while time.monotonic() < deadline:
        if answers(runtime.socket):
            reap()
            return
        _raise_failure(home)
        if not is_held(runtime.keeper_lock) and time.monotonic() - spawned_at > KEEPER_S:
            runtime.make()
            spawn_keeper(home)
            spawned_at = time.monotonic()
        time.sleep(POLL_S)
    raise _too_slow(home)


def _raise_failure(home: Home) -> None:
    """Raise what a backend that does not start has left."""
    try:
        said = json.loads(failure_path(home.runtime()).read_bytes())
    except (OSError, ValueError):
        return
    raise LeptonError.from_dict(said)


def _too_slow(home: Home) -> LeptonError:
    return LeptonError(
        f"The backend of '{home.root}' did not answer within {START_S:.0f} s.",
        f"Its log is {home.backend_log}.",
        code="unavailable",
        detail=tail(home.backend_log),
    )
