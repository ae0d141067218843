"""Who may start: slots of devices, their leases, and the order."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lepton_jupyter.backend.devices import Devices, n_cpu_slots
from lepton_jupyter.backend.turns import Turns
from lepton_jupyter.core.devices import Choice, choose
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.leases import LeaseFolder, sign
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Lock
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import RunView

RANKS = {"high": 0, "normal": 1, "low": 2}


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

    def sign(self, pid: int, run_id: str) -> None:
        """Say for whom it is held."""
        for lock in self.locks:
            sign(lock, pid, run_id)

    def release(self) -> None:
        """Let go; whoever inherited it holds it on."""
        for lock in self.locks:
            lock.release()


class Slots:
    """The devices of this machine, and which of them may be taken now.

    Parameters
    ----------
    home : Home
        Whose backend asks.
    folder : LeaseFolder, optional
        Where the host's lock files lie.
    """

    def __init__(self, home: Home, folder: LeaseFolder | None = None) -> None:
        self.folder = folder or LeaseFolder.current()
        self.devices = Devices()
        self._turns = Turns(self.folder, home)
        self._is_checked = False

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.devices.names

    def choose(self, said: str) -> Choice:
        """Return which devices would do for ``--devices``.

        Raises
        ------
        LeptonError
            If this machine can never have them.
        """
        return choose(said, self.names)

    def ahead(self) -> set[str]:
        """Return the devices for which other backends of this host have waited longer."""
        return self._turns.ahead()

    def settle(self, waited_for: Collection[str], *, has_taken: bool) -> None:
        """Tell other backends what is waited for; who has just taken something goes behind them."""
        if has_taken or not waited_for:
            self._turns.end()
        if waited_for:
            self._turns.wait(waited_for)

    def take(self, choice: Choice, taken: Collection[str]) -> Lease | None:
        """Take all the devices of a choice, or none.

        Parameters
        ----------
        choice : Choice
        taken : collection of str
            Devices that this time are not to be had.

        Raises
        ------
        LeptonError
            If none of them can be leased, because of what lies in their place.
        """
        if not self._is_checked or not self.folder.root.is_dir():
            self.folder.check()
            self._is_checked = True
        locks: dict[str, Lock] = {}
        refused: list[LeptonError] = []
        for name in choice.names:
            if len(locks) == choice.n:
                break
            try:
                lock = None if name in taken or self.folder.is_held(name) else self.folder.take(name)
            except LeptonError as error:
                refused.append(error)
                continue
            if lock is not None:
                locks[name] = lock
        if len(locks) == choice.n:
            return Lease(tuple(locks), tuple(locks.values()))
        for lock in locks.values():
            lock.release()
        if len(choice.names) - len(refused) < choice.n:
            raise refused[0]
        return None


def in_order(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return runs in the order in which they may start: by priority, inside one as they were asked for."""
    return sorted(records, key=lambda record: RANKS.get(record.priority, RANKS["normal"]))


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
