"""A search by itself: trials, the version of the best, going on after a death."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.tune.engine import Tuned, open_search, run_search, tune
from lepton_jupyter.stages.tune.spec import Tune
from lepton_jupyter.stages.tune.study_file import StudyFile


class Net(nn.Module):
    def __init__(self, n_features: int, n_outputs: int, hidden: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def search(session: Any, dataset: Dataset, *texts: str, model: Any = Net, **flags: Any) -> Tuned:
    flags = {"epochs": 3, "trials": 5, "batched": "no"} | flags
    return tune(session, model, dataset, Tune(model="Net", data=dataset.ref, search=texts, **flags))


def test_a_search_makes_a_version_of_its_best_trial(session: Any, two_blobs: Dataset) -> None:
    tuned = search(session, two_blobs, "lr=loguniform(1e-4,1e-1)", "hidden=choice(4,8)", pruner="none")
    best = tuned.record.best_trial
    assert best is not None
    assert best.value == min(trial.value for trial in tuned.record.trials)  # type: ignore[type-var]
    assert tuned.card.params["lr"] == best.params["lr"]
    assert tuned.card.params["params"] == {"hidden": best.params["hidden"]}
    assert tuned.card.metrics["val_loss"] == best.value
    assert tuned.card.is_deployable
    assert "best of 5 trials" in tuned.card.notes["remark"]
    assert session.results["params"] == best.params


def test_a_study_is_opened_by_optuna_itself(session: Any, two_blobs: Dataset) -> None:
    spec = Tune(
        model="Net", data=two_blobs.ref, search=("lr=loguniform(1e-4,1e-1)", "hidden=choice(4,8)"), epochs=3, trials=5
    )
    searching = open_search(session, Net, two_blobs, spec, {})
    run_search(searching)
    found = optuna.load_study(study_name="Net", storage=f"sqlite:///{session.folder}/study.db")
    for written, known in zip(found.trials, searching.study.trials(), strict=True):
        assert written.state == known.state
        assert (written.params, written.distributions) == (known.params, known.distributions)
        assert (written.value, written.intermediate_values) == (known.value, known.intermediate_values)
        assert (written.user_attrs, written.system_attrs) == (known.user_attrs, known.system_attrs)
        assert (written.datetime_start, written.datetime_complete) == (known.datetime_start, known.datetime_complete)
    found.optimize(lambda trial: trial.suggest_float("lr", 1e-4, 1e-1, log=True), n_trials=1)  # and gone on with
    assert [trial.number for trial in found.trials] == list(range(6))


def test_a_study_with_other_tables_is_written_by_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StudyFile(tmp_path, "Net", "minimize")
    monkeypatch.setattr("lepton_jupyter.stages.tune.study_file.FINITE", None)  # as if a column were another
    file.add(optuna.trial.create_trial(value=1.0))
    assert [trial.value for trial in file.trials()] == [1.0]


def test_a_search_that_was_ended_goes_on_without_repeating_a_trial(session: Any, two_blobs: Dataset) -> None:
    n_calls = 0

    def is_enough() -> bool:
        nonlocal n_calls
        n_calls += 1
        return n_calls > 40

    session.stop_when = is_enough
    first = search(session, two_blobs, "lr=loguniform(1e-4,1e-1)", trials=30, pruner="none")
    assert 0 < len(first.record.trials) < 30
    session.stop_when = lambda: False
    second = search(session, two_blobs, "lr=loguniform(1e-4,1e-1)", trials=30, pruner="none")
    rates = [trial.params["lr"] for trial in second.record.trials]
    assert rates[: len(first.record.trials)] == [trial.params["lr"] for trial in first.record.trials]
    assert len(set(rates)) == 30


def test_trials_that_do_badly_are_pruned(session: Any, wdbc: Dataset) -> None:
    tuned = search(session, wdbc, "lr=loguniform(1e-5,1e-1)", epochs=9, trials=12)
    assert tuned.record.count("pruned") > 0
    assert min(trial.epochs for trial in tuned.record.trials) < 9
    assert tuned.card.epochs == 9


def test_a_trial_that_fails_does_not_end_the_search(session: Any, two_blobs: Dataset) -> None:
    class Picky(Net):
        def __init__(self, n_features: int, n_outputs: int, hidden: int = 8) -> None:
            super().__init__(n_features, n_outputs, hidden)
            if hidden == 5:
                raise ValueError("five is no number")

    tuned = search(session, two_blobs, "hidden=choice(4,5,6)", model=Picky, trials=9, sampler="random")
    failed = [trial for trial in tuned.record.trials if trial.state == "failed"]
    assert failed
    assert "five is no number" in failed[0].reason


def test_where_every_trial_fails_the_search_says_why(session: Any, two_blobs: Dataset) -> None:
    class Broken(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("never works")

    with pytest.raises(Exception, match="never works"):
        search(session, two_blobs, "lr=uniform(0.1,0.2)", model=Broken)


def test_an_estimator_is_searched_by_accuracy(session: Any, two_blobs: Dataset) -> None:
    tuned = search(session, two_blobs, "C=loguniform(1e-3,10)", model=LogisticRegression, epochs=20)
    assert tuned.record.metric == "val_accuracy"
    assert tuned.record.direction == "maximize"
    assert tuned.card.is_deployable


def test_a_search_by_a_metric_takes_its_direction(session: Any, two_blobs: Dataset) -> None:
    tuned = search(session, two_blobs, "lr=loguniform(1e-4,1e-1)", metric="roc_auc", trials=3)
    assert (tuned.record.metric, tuned.record.direction) == ("val_roc_auc", "maximize")


def test_a_search_that_is_stopped_before_a_trial_ended_says_so(session: Any, two_blobs: Dataset) -> None:
    session.stop_when = lambda: True
    with pytest.raises(LeptonError, match="stopped before its first trial"):
        search(session, two_blobs, "lr=uniform(0.1,0.2)")
