"""End what a run's kernel has left behind: its children outlive it in its session."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lepton_jupyter.core.processes import Identity, boot_id


def sweep_session(kernel: Identity) -> int:
    """Kill the kernel, its process group and whatever else is of its session; return how many were signalled.

    For the supervisor at its end, and for the backend once it finds a supervisor dead. A process that left the
    session on purpose (a daemon) is left alone.
    """
    kernel.send_group(signal.SIGKILL)
    if kernel.boot_id != boot_id():
        return 0
    leader = Identity.of(kernel.pid)
    if leader is not None and leader != kernel:  # the number was given away: the session is long gone
        return 0
    n_signalled = 0
    for pid in _members(kernel.pid):
        try:
            os.kill(pid, signal.SIGKILL)
            n_signalled += 1
        except (ProcessLookupError, PermissionError):
            continue
    return n_signalled


def _members(session: int) -> list[int]:
    found: list[int] = []
    proc = Path("/proc")
    if not proc.is_dir():
        return found
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in ("Z", "X"):
            found.append(int(entry.name))
    return found
