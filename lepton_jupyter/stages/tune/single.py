"""Trials one after the other, in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from optuna.trial import Trial

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.session import Session
from lepton_jupyter.stages.train.job import Outcome
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.tune.kept import Keeper
from lepton_jupyter.stages.tune.space import Space, settled
from lepton_jupyter.stages.tune.study import Study
from lepton_jupyter.stages.tune.trial import Question, TrialSession

PARAMS = "params.json"
FIRST_FAILURES = 3  # so many failed trials, and none that was completed: then it is not the values that are wrong


@dataclass
class Searching:
    """A search at work.

    Attributes
    ----------
    training : Train
        What all trials share.
    on_end : callable
        Called when a trial has ended.
    last_error : Exception or None
        Of the last trial that failed.
    """

    session: Session
    question: Question
    training: Train
    space: Space
    study: Study
    keeper: Keeper
    on_end: Callable[[], None]
    last_error: Exception | None = None
    unfinished: list[tuple[dict[str, Any], Path]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether no further trial is to be begun."""
        return not self.study.n_left or self.session.should_stop()

    def begin(self) -> tuple[Trial, dict[str, Any], Train]:
        """Begin a trial; return it, its values, and its training."""
        trial = self.study.ask()
        values = {one.name: one.suggest(trial) for one in self.space}
        return trial, values, settled(self.training, self.space, values)

    def end(self, trial: Trial, state: str, value: float | None = None, *, reason: str = "") -> None:
        """End a trial, and write it."""
        self.study.tell(trial, state, value, reason=reason)
        self.study.keep()
        self.on_end()

    def fail(self, trial: Trial, error: Exception) -> None:
        """End a trial by its error. Where every trial fails from the first on, the error is the search's."""
        __tracebackhide__ = True
        self.last_error = error
        self.end(trial, "failed", reason=f"{type(error).__name__}: {error}".removeprefix("LeptonError: "))
        if self.study.best is None and self.study.n_ended >= min(FIRST_FAILURES, self.study.spec.trials):
            raise error

    def find_unfinished(self) -> None:
        """Ask first for what an earlier process had begun: its engine goes on from its checkpoint."""
        for path in sorted((self.session.folder / "trials").glob(f"*/{PARAMS}")):
            params = msgspec.json.decode(path.read_bytes())
            if {one.name for one in self.space} == set(params):
                self.unfinished.append((params, path.parent))
                self.study.enqueue(params)

    def folder_for(self, values: dict[str, Any], slot: str) -> Path:
        """Return the folder of a trial: a fresh one, or that in which it was begun before."""
        for place, (params, found) in enumerate(self.unfinished):
            if params == msgspec.to_builtins(values):
                del self.unfinished[place]
                return found
        taken = {found for _, found in self.unfinished}
        folder = self.session.folder / "trials" / slot
        while folder in taken:
            folder = folder.with_name(f"{folder.name}-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        write_atomic(folder / PARAMS, msgspec.json.encode(values), is_durable=False)
        return folder


def run_here(search: Searching) -> None:
    """Train trials one after the other until there are enough, or the run is to stop."""
    __tracebackhide__ = True
    search.find_unfinished()
    while not search.is_over:
        trial, values, training = search.begin()
        folder = search.folder_for(values, "here")

        def on_epoch(epoch: int, value: float, trial: Trial = trial) -> bool:
            search.study.report(trial, epoch, value)
            return search.study.should_prune(trial)

        session = TrialSession(search.session, folder, metric=search.question.metric, on_epoch=on_epoch)
        try:
            fitted = search.question.fit(session, training)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            if isinstance(error, LeptonError) and error.code == "stopped":
                return
            search.fail(trial, error)
            continue
        if not settle_end(search, trial, values, fitted.outcome, folder, is_pruned=session.is_pruned):
            return  # stopped in the middle: it is begun again when the search goes on


def settle_end(
    search: Searching, trial: Trial, values: dict[str, Any], outcome: Outcome, folder: Path, *, is_pruned: bool
) -> bool:
    """End a trial that has left an outcome; False where it was stopped before its end."""
    value = search.question.value_of(outcome)
    if outcome.stopped_at is not None and not is_pruned:
        if search.study.best is None:  # better than nothing at all
            search.keeper.keep(values, value, outcome, folder)
            search.end(trial, "complete", value)
        return False
    if not is_pruned:
        search.keeper.keep(values, value, outcome, folder)
    search.end(trial, "pruned" if is_pruned else "complete", value)
    shutil.rmtree(folder, ignore_errors=True)
    return True
