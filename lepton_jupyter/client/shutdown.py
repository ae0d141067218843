"""End everything of a home: for tests, the demo, and whoever wants nothing left running."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from signal import SIGKILL, SIGTERM

import msgspec

from lepton_jupyter.backend.keeper import failure_path, holder
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, is_held, reap
from lepton_jupyter.core.replicas import own_folders, replica_lock
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.endpoint import EndpointStatus
from lepton_jupyter.formats.events import EventReader

GRACE_S = 8.0
KILLED_S = 3.0


def shut_down(home: Home) -> None:
    """End keeper, backend, runs and endpoints of a home, and remove its sockets and locks.

    What has not gone after 8 s of asking is killed. The files of the home stay.
    """
    runtime = home.runtime()
    for lock in (runtime.keeper_lock, runtime.backend_lock):  # the keeper first: it would have the backend back
        who = holder(lock)
        _end([who] if who is not None else [], is_group=False)
    _end(_run_processes(home), is_group=True)
    _end(_endpoint_processes(home), is_group=True)
    for folder in (runtime.locks, runtime.kernels):
        shutil.rmtree(folder, ignore_errors=True)
    for path in (runtime.socket, failure_path(runtime)):
        path.unlink(missing_ok=True)
    try:
        runtime.root.rmdir()
    except OSError:
        pass  # it is not there, or somebody keeps something of his own in it


def _end(processes: Iterable[Identity], *, is_group: bool) -> None:
    """Ask, wait, kill."""
    living = [process for process in processes if process.send(SIGTERM) or is_group]
    deadline = time.monotonic() + GRACE_S
    while any(process.is_alive() for process in living) and time.monotonic() < deadline:
        reap()
        time.sleep(0.02)
    for process in living:
        process.send(SIGKILL)
        if is_group:  # what it started and left behind
            process.send_group(SIGKILL)
    deadline = time.monotonic() + KILLED_S
    while any(process.is_alive() for process in living) and time.monotonic() < deadline:
        reap()
        time.sleep(0.02)


def _run_processes(home: Home) -> list[Identity]:
    """Return the supervisors, then the kernels, of runs that have not ended; those that are gone do no harm."""
    supervisors: list[tuple[str, Identity]] = []
    kernels: list[tuple[str, Identity]] = []
    for folder in sorted(home.runs.glob("*/run.json")):
        run = home.run(folder.parent.name)
        has_ended = False
        for path in (run.supervisor_events, run.events):
            was_last = False
            for _, event in EventReader(path).read():
                if event.get("kind") != "state":
                    continue
                was_last = event.get("state") in ENDED  # else: it was killed, and has gone on
                for key, found in (("process", supervisors), ("kernel", kernels)):
                    if isinstance(event.get(key), dict):
                        found.append((run.run_id, Identity(**event[key])))
            has_ended = has_ended or was_last
        if has_ended:
            supervisors = [each for each in supervisors if each[0] != run.run_id]
            kernels = [each for each in kernels if each[0] != run.run_id]
    return [identity for _, identity in (*supervisors, *kernels)]


def _endpoint_processes(home: Home) -> list[Identity]:
    found = []
    for path in home.endpoints.glob("*"):
        first = home.runtime().endpoint_lock(path.name)
        for number, own in own_folders(home.endpoint(path.name)).items():
            if not is_held(replica_lock(first, number)):
                continue
            try:
                status = msgspec.json.decode(own.status.read_bytes(), type=EndpointStatus)
            except (OSError, msgspec.DecodeError, json.JSONDecodeError):
                continue
            identity = Identity.of(status.pid)
            if identity is not None:
                found.append(identity)
    return found
