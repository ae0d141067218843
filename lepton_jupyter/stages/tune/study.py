"""Optuna's study: in memory while it works, and in ``study.db`` for the next one and for optuna-dashboard.

Trials are asked and pruned in memory, where that takes no time, and each is written when it has ended: a search that
is killed goes on without repeating one of them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from lepton_jupyter.formats.tuning import TrialRecord
from lepton_jupyter.stages.tune.spec import Tune
from lepton_jupyter.stages.tune.study_file import StudyFile

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
REDUCTION = 3  # of how many trials one goes on to the next rung (L. Li et al., 2020, "Massively parallel tuning", ASHA)
REASON = "reason"


class Study:
    """The trials of a search.

    Parameters
    ----------
    folder : Path
        The run's: ``study.db`` in it is gone on from where it is there.
    spec : Tune
    is_maximized : bool
    name : str
        Of the study, for optuna-dashboard.
    """

    def __init__(self, folder: Path, spec: Tune, *, is_maximized: bool, name: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.spec = spec
        self.is_maximized = is_maximized
        direction: Any = "maximize" if is_maximized else "minimize"
        with _quiet():
            self._file = StudyFile(folder, name, direction)
            before = [trial for trial in self._file.trials() if trial.state in STATES]
            self._study = optuna.create_study(
                direction=direction, sampler=_sampler(spec, len(before)), pruner=_pruner(spec)
            )
            self._study.add_trials(before)
        self.n_before = len(before)
        self._written = {trial.number for trial in self.trials()}

    def trials(self) -> list[FrozenTrial]:
        """Return the trials that have ended, by their numbers."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state in STATES]

    @property
    def n_ended(self) -> int:
        """How many trials have ended."""
        return len(self.trials())

    @property
    def n_left(self) -> int:
        """How many trials are still to be begun."""
        begun = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state is not TrialState.WAITING]
        return max(0, self.spec.trials - len(begun))

    @property
    def best(self) -> FrozenTrial | None:
        """The best of the completed trials."""
        done = [trial for trial in self.trials() if trial.state is TrialState.COMPLETE]
        if not done:
            return None
        return (max if self.is_maximized else min)(done, key=lambda trial: trial.value or 0.0)

    def ask(self) -> Trial:
        """Begin a trial."""
        return self._study.ask()

    def enqueue(self, params: dict[str, Any]) -> None:
        """Let the next trial have these values."""
        with _quiet():
            self._study.enqueue_trial(params)

    def report(self, trial: Trial, epoch: int, value: float) -> None:
        """Note a trial's value after an epoch; a value that is none is passed over."""
        if math.isfinite(value):
            trial.report(value, epoch)

    def should_prune(self, trial: Trial) -> bool:
        """Whether the trial does so badly that it is ended here."""
        return trial.should_prune()

    def tell(self, trial: Trial, state: str, value: float | None = None, *, reason: str = "") -> None:
        """End a trial as ``complete``, ``pruned`` or ``failed``; `keep` writes it."""
        if reason:
            trial.set_user_attr(REASON, reason)
        if state == "complete" and (value is None or not math.isfinite(value)):
            state = "failed"
            trial.set_user_attr(REASON, f"the metric became {value}")
        chosen = next(one for one, word in STATES.items() if word == state)
        self._study.tell(trial, value if state == "complete" else None, state=chosen)

    def keep(self) -> None:
        """Write the trials that have ended since, by their numbers."""
        for trial in self.trials():
            if trial.number not in self._written:
                self._file.add(trial)
                self._written.add(trial.number)

    def importance(self) -> dict[str, float]:
        """Return the share of each name in the metric's variation; empty where too few trials tell."""
        done = [trial for trial in self.trials() if trial.state is TrialState.COMPLETE]
        values = {trial.value for trial in done}
        names = set.intersection(*(set(trial.params) for trial in done)) if done else set()
        varied = [name for name in names if len({trial.params[name] for trial in done}) > 1]
        if len(done) < 4 or len(values) < 2 or not varied:
            return {}
        if len(varied) == 1:
            return {varied[0]: 1.0}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        with _quiet():
            found = optuna.importance.get_param_importances(self._study, evaluator=evaluator, params=sorted(varied))
        return {name: float(share) for name, share in found.items()}


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Return a trial as a record."""
    began, ended = trial.datetime_start, trial.datetime_complete
    took = (ended - began).total_seconds() if began is not None and ended is not None else 0.0
    steps = trial.intermediate_values
    value = trial.value if trial.value is not None else steps[max(steps)] if steps else None
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        params=dict(trial.params),
        value=value,
        epochs=max(steps, default=0),
        took_s=took,
        reason=str(trial.user_attrs.get(REASON, "")),
    )


def _sampler(spec: Tune, n_before: int) -> BaseSampler:
    # one that went on with the first one's seed would draw the first one's values once more
    seed = int(np.random.SeedSequence([abs(spec.seed), n_before]).generate_state(1)[0])
    if spec.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if spec.sampler == "qmc":
        return optuna.samplers.QMCSampler(seed=seed, scramble=True)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _pruner(spec: Tune) -> optuna.pruners.BasePruner:
    first = max(1, spec.epochs // REDUCTION**2)
    if spec.pruner == "asha" and spec.epochs > 1:
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION)
    if spec.pruner == "hyperband" and spec.epochs > 1:
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=spec.epochs, reduction_factor=REDUCTION)
    return optuna.pruners.NopPruner()


@contextmanager
def _quiet() -> Iterator[Any]:
    """Keep Optuna's remarks about what it calls experimental to ourselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
