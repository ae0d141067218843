"""A search at work: what whoever trains trials asks and tells."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import Trial

from lepton_jupyter.core.session import Session
from lepton_jupyter.stages.train.job import Outcome
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.tune.kept import Keeper
from lepton_jupyter.stages.tune.space import Space, settled
from lepton_jupyter.stages.tune.spec import Tune
from lepton_jupyter.stages.tune.study import Study
from lepton_jupyter.stages.tune.trial import Question

FIRST_FAILURES = 3  # so many failed trials, and none that was completed: then it is not the values that are wrong


@dataclass(frozen=True)
class Begun:
    """A trial that is being trained.

    Attributes
    ----------
    training : Train
        With its values put in.
    """

    number: int
    values: dict[str, Any]
    training: Train


class Asked(Protocol):
    """What whoever trains trials is given: the search itself, or in another process a line to it."""

    session: Session
    question: Question
    training: Train
    space: Space

    @property
    def spec(self) -> Tune:
        """What was asked."""

    @property
    def n_left(self) -> int:
        """How many trials are still to be begun."""

    def begin(self) -> Begun | None:
        """Begin a trial; None where no further one is wanted."""

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Note a trial's value after an epoch; return whether it is to end here."""

    def keep(self, number: int, value: float, outcome: Outcome, folder: Path) -> None:
        """Take over the weights below a folder, where the trial is the best so far."""

    def end(self, number: int, state: str, value: float | None = None, *, reason: str = "") -> None:
        """End a trial as ``complete``, ``pruned`` or ``failed``."""

    def fail(self, number: int, error: Exception) -> None:
        """End a trial by its error. Where every trial fails from the first on, the error is the search's."""

    def has_best(self) -> bool:
        """Whether a trial was completed."""


@dataclass
class Searching:
    """A search at work; its methods may be called from any thread.

    Attributes
    ----------
    training : Train
        What all trials share.
    on_end : callable
        Called when a trial has ended.
    """

    session: Session
    question: Question
    training: Train
    space: Space
    study: Study
    keeper: Keeper
    on_end: Callable[[], None]
    is_given_up: bool = False
    _running: dict[int, tuple[Trial, dict[str, Any]]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def spec(self) -> Tune:
        """What was asked."""
        return self.study.spec

    @property
    def n_left(self) -> int:
        """How many trials are still to be begun."""
        return self.study.n_left

    def begin(self) -> Begun | None:
        """Begin a trial; None where no further one is wanted."""
        with self._lock:
            if not self.study.n_left or self.is_given_up or self.session.should_stop():
                return None
            trial = self.study.ask()
            values = {one.name: one.suggest(trial) for one in self.space}
            self._running[trial.number] = trial, values
            return Begun(trial.number, values, settled(self.training, self.space, values))

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Note a trial's value after an epoch; return whether it is to end here."""
        with self._lock:
            trial, _ = self._running[number]
            self.study.report(trial, epoch, value)
            return self.study.should_prune(trial)

    def keep(self, number: int, value: float, outcome: Outcome, folder: Path) -> None:
        """Take over the weights below a folder, where the trial is the best so far."""
        with self._lock:
            self.keeper.keep(self._running[number][1], value, outcome, folder)

    def end(self, number: int, state: str, value: float | None = None, *, reason: str = "") -> None:
        """End a trial, and write it."""
        with self._lock:
            trial, _ = self._running.pop(number)
            self.study.tell(trial, state, value, reason=reason)
            self.study.keep()
            self.on_end()

    def fail(self, number: int, error: Exception) -> None:
        """End a trial by its error. Where every trial fails from the first on, the error is the search's."""
        __tracebackhide__ = True
        with self._lock:
            self.end(number, "failed", reason=reason_of(error))
            is_hopeless = self.study.best is None and self.study.n_ended >= min(FIRST_FAILURES, self.spec.trials)
            self.is_given_up |= is_hopeless
        if is_hopeless:
            raise error

    def has_best(self) -> bool:
        """Whether a trial was completed."""
        with self._lock:
            return self.study.best is not None


def reason_of(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {error}".removeprefix("LeptonError: ")
