"""Who may start: slots of devices, their leases, and the order."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lepton_jupyter.core.paths import Runtime
from lepton_jupyter.core.processes import Lock, is_held
from lepton_jupyter.formats.views import RunView


def n_cpu_slots() -> int:
    """Return how many computing runs this machine takes at once: ``LEPTON_CPU_SLOTS``, else its cores."""
    said = os.environ.get("LEPTON_CPU_SLOTS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_scheduled_slots() -> int:
    """Return how many scheduled runs go on at once: ``LEPTON_SCHEDULED_SLOTS``, else two a core and at least four.

    They hold no device, so nothing else would keep two hundred daily reports from starting at midnight together.
    """
    said = os.environ.get("LEPTON_SCHEDULED_SLOTS", "")
    return int(said) if said.isdigit() and int(said) > 0 else max(4, 2 * n_cpu_slots())


@dataclass(frozen=True)
class Lease:
    """The devices that a run was given: a lock on each one's file, inherited by whatever uses them.

    Attributes
    ----------
    names : tuple of str
        ``cpu-0``, or a GPU's UUID.
    locks : tuple of Lock
    """

    names: tuple[str, ...]
    locks: tuple[Lock, ...]

    @property
    def descriptors(self) -> list[int]:
        """What a process must inherit to hold it."""
        return [lock.descriptor for lock in self.locks]

    def release(self) -> None:
        """Let go; whoever inherited it holds it on."""
        for lock in self.locks:
            lock.release()


class Slots:
    """The devices of this machine. A lease is a lock on a device's file: it ends with its last user.

    Attributes
    ----------
    names : tuple of str
        ``cpu-0``, ``cpu-1`` …
    """

    def __init__(self, runtime: Runtime, n_slots: int | None = None) -> None:
        self.runtime = runtime
        self.names = tuple(f"cpu-{index}" for index in range(n_slots or n_cpu_slots()))

    def take(self, taken: Collection[str]) -> Lease | None:
        """Take the lease of a free device, or return None.

        Parameters
        ----------
        taken : collection of str
            Devices that runs have which are still there: after a sweep of the runtime folder their locks tell nothing.
        """
        for name in self.names:
            if name in taken or is_held(self.runtime.lease(name)):
                continue
            lock = Lock.take(self.runtime.lease(name))
            if lock is not None:
                return Lease((name,), (lock,))
        return None


def waits_for_device(view: RunView, needs: Mapping[str, bool], parents: Mapping[str, str | None]) -> bool:
    """Whether a run must hold a lease of its own.

    A run inside a run that holds one uses that one's: it waits for nobody, so that nested runs cannot deadlock.

    Parameters
    ----------
    view : RunView
    needs : mapping
        Whether each active run asked for a device, by run id.
    parents : mapping
        Parent of each active run, by run id.
    """
    if not needs.get(view.run_id, False):
        return False
    above, seen = view.parent, set[str]()
    while above is not None and above not in seen:
        if needs.get(above, False):
            return False
        seen.add(above)
        above = parents.get(above)
    return True


def descendants(run_id: str, parents: Mapping[str, str | None]) -> Sequence[str]:
    """Return the active runs that were asked for inside a run, the deepest first."""
    below = [child for child, parent in parents.items() if parent == run_id and child != run_id]
    return [name for child in below for name in (*descendants(child, parents), child)]
