"""A home has one host at a time: ``backend.json`` names it, and says until when that is sure."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity

BEAT_S = 5.0
STALE_S = 30.0
GOING_S = 5.0  # a backend whose runtime folder was swept sees it within a second


def host_name() -> str:
    """Return the name by which this machine is known to the others."""
    return socket.gethostname()


def read_heartbeat(home: Home) -> dict[str, Any]:
    """Return ``backend.json``, or an empty record where there is none that can be read."""
    try:
        record = json.loads(home.backend_record.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def beat(home: Home, *, is_last: bool = False) -> None:
    """Say that this backend has the home (with `is_last`: that it has left it).

    Raises
    ------
    OSError
        If the home cannot be written to.
    """
    me = Identity.of(os.getpid())
    record = {
        "host": host_name(),
        "at": 0.0 if is_last else time.time(),
        "python": sys.executable,
        "runtime": str(home.runtime().root),
        "process": me.to_dict() if me is not None else None,
    }
    write_atomic(home.backend_record, json.dumps(record).encode(), is_durable=False)


def check_host(home: Home) -> None:
    """Refuse a home that another host has.

    Raises
    ------
    LeptonError
        If another host's heartbeat is younger than 30 s; the message names the host.
    """
    record = read_heartbeat(home)
    host, age_s = record.get("host"), time.time() - float(record.get("at") or 0.0)
    if host and host != host_name() and age_s < STALE_S:
        raise LeptonError(
            f"LEPTON_HOME '{home.root}' is in use by host '{host}' (heard of {max(age_s, 0):.0f} s ago); "
            f"this is '{host_name()}', and a home has one host at a time.",
            f"Work on '{host}', or run `jupyter lepton backend stop` there, or set LEPTON_HOME to another folder.",
            code="unavailable",
        )


def wait_for_predecessor(home: Home) -> None:
    """Wait until no other backend of this host has the home: two would write the same files.

    Raises
    ------
    LeptonError
        If one serves the home from another runtime folder.
    """
    record = read_heartbeat(home)
    who = Identity(**record["process"]) if isinstance(record.get("process"), dict) else None
    if who is None or who.pid == os.getpid() or not who.is_alive():
        return
    if record.get("runtime") != str(home.runtime().root):
        raise LeptonError(
            f"LEPTON_HOME '{home.root}' has a backend already, with the runtime folder '{record.get('runtime')}'; "
            f"here it would be '{home.runtime().root}'.",
            "Use the same XDG_RUNTIME_DIR in both places.",
            code="unavailable",
        )
    deadline = time.monotonic() + GOING_S
    while who.is_alive():  # its lock was swept, else we would not hold the new one
        if time.monotonic() > deadline:
            who.send(signal.SIGKILL)
        time.sleep(0.05)
