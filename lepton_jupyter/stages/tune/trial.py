"""One trial: a training like any other, which reports its epochs and may be ended early."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.session import Session
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.construct import construct, is_free_factory
from lepton_jupyter.stages.train.frameworks.registry import framework_of
from lepton_jupyter.stages.train.job import Fitted, Job, Outcome
from lepton_jupyter.stages.train.judged import full_name
from lepton_jupyter.stages.train.preflight import is_estimator
from lepton_jupyter.stages.train.spec import Train

OnEpoch = Callable[[int, float], bool]  # an epoch and its value; whether the trial shall end here


class TrialSession:
    """What a trial's engine talks to: epochs go to the study, the rest is of no interest to anybody.

    Attributes
    ----------
    is_pruned : bool
    """

    def __init__(self, run: Session, folder: Path, *, metric: str, on_epoch: OnEpoch) -> None:
        self.run_id = run.run_id
        self.folder = folder
        self.devices = run.devices[:1]
        self.is_pruned = False
        self.notes: dict[str, Any] = {}
        self._run, self._metric, self._on_epoch = run, metric, on_epoch

    def log(self, *, step: int | None = None, **metrics: float) -> None:
        """Report an epoch."""
        value = metrics.get(self._metric, metrics.get("train_loss", math.nan))
        if step is not None and not self.is_pruned:
            self.is_pruned = self._on_epoch(step, float(value))

    def note(self, key: str, value: Any) -> None:
        """Keep a fact."""
        self.notes[key] = value

    def result(self, **summary: Any) -> None:
        """Do nothing: the search has its own result."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Do nothing: progress is counted in trials."""

    def telemetry(self, **values: float) -> None:
        """Do nothing: many trials' telemetry would be nobody's."""

    def should_stop(self) -> bool:
        """Whether the run is to stop, or this trial was pruned."""
        return self.is_pruned or self._run.should_stop()


class OnOneDevice:
    """A run's session, for a training that has one of the run's devices."""

    def __init__(self, run: Session) -> None:
        self._run = run
        self.devices = run.devices[:1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)


def copied(model: Any) -> Any:
    """Return a copy of an instance, with whose weights each trial begins; a class or factory as it is."""
    return copy.deepcopy(model) if hasattr(model, "parameters") and not inspect.isclass(model) else model


@dataclass(frozen=True)
class Question:
    """What is trained in every trial, and how it is judged.

    Attributes
    ----------
    metric : str
        In full: ``val_loss``.
    """

    model: Any
    dataset: Dataset
    metric: str
    names: Mapping[str, object]

    def fit(self, session: Session, spec: Train, *, is_finishing: bool = False) -> Fitted:
        """Train once, or with `is_finishing` take the weights below the session's folder."""
        __tracebackhide__ = True
        model = copied(self.model)
        if is_estimator(model):
            spec = msgspec.structs.replace(spec, metric="val_loss")  # it knows of no epochs to choose from
        if is_free_factory(model):
            from lepton_jupyter.stages.train.randomness import seed_everything

            seed_everything(spec.seed)
            model = construct(model, {}, spec.params, name=spec.model, data=self.dataset.record.name)
            spec = msgspec.structs.replace(spec, params={})
        job = Job(session, spec, self.dataset, spec.model, self.names, is_finishing, is_trial=not is_finishing)
        return framework_of(model, spec.model).fit(model, job)

    def value_of(self, outcome: Outcome) -> float:
        """Return the value by which a trial is judged."""
        found = outcome.metrics
        return float(found.get(self.metric, found.get("train_loss", math.nan)))


def metric_of(model: Any, spec: Train, task: str) -> str:
    """Return the metric in full: ``val_loss``, and of an estimator, which has no loss, what is read first."""
    name = full_name(spec.metric)
    if is_estimator(model) and name == "val_loss":
        return "val_rmse" if task == "regression" else "val_accuracy"
    return name
