"""Whether the system killed a process for memory, and how much it had used."""

from __future__ import annotations

import resource
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


class MemoryWatch:
    """What the system's counters said when a child began; it costs nothing while the child lives."""

    def __init__(self) -> None:
        self._before = oom_kills()

    def text(self) -> str:
        """Return the middle of a sentence about a child that was killed and has been waited for.

        Memory is named as the reason only where a counter of such kills went up since the child began.
        """
        n_kills = sum(max(0, count - self._before.get(name, count)) for name, count in oom_kills().items())
        used = f"it had used {peak_of_children() / 1e6:,.0f} MB at its peak"
        return f"for memory: {used}" if n_kills else f"(SIGKILL), perhaps for memory: {used}"


def peak_of_children() -> int:
    """Return the most memory (RSS, bytes) that one of this process's children had, of those that have ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def oom_kills() -> dict[str, int]:
    """Return how often the system has killed for memory, by counter: of our control group, and of the machine."""
    found: dict[str, int] = {}
    for path in (*_of_group(), Path("/proc/vmstat")):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        found |= {str(path): int(line.split()[1]) for line in lines if line.startswith("oom_kill ")}
    return found


def _of_group() -> list[Path]:
    """Return the files with our control group's counter; in a container its root is ours."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    places: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            places += [CGROUPS / path.lstrip("/") / "memory.events", CGROUPS / "memory.events"]
        elif "memory" in controllers.split(","):
            v1 = CGROUPS / "memory"
            places += [v1 / path.lstrip("/") / "memory.oom_control", v1 / "memory.oom_control"]
    return places
