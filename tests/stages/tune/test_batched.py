"""Trials as one program: the same results as one by one, and a true word on why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.tuning import TrialRecord
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.tune.batched import run_batched, settle
from lepton_jupyter.stages.tune.engine import open_search, tune
from lepton_jupyter.stages.tune.searching import Searching
from lepton_jupyter.stages.tune.single import run_singly
from lepton_jupyter.stages.tune.spec import Tune
from lepton_jupyter.stages.tune.study import record_of

RATES = ("lr=loguniform(1e-4,3e-2)", "weight_decay=loguniform(1e-6,1e-1)")


class Net(nn.Module):
    def __init__(self, n_features: int, n_outputs: int, hidden: int = 8, drop: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, hidden), nn.ReLU(), nn.Dropout(drop), nn.Linear(hidden, n_outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Residual(nn.Module):
    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(n_features, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x))
        return self.last(h + self.second(h).relu())


class Normed(nn.Module):
    """No way of linear layers alone: this one goes through vmap."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def search(session: Any, dataset: Dataset, *texts: str, model: Any = Net, **flags: Any) -> Searching:
    """Search without a version at the end: its proof takes longer than all trials."""
    flags = {"epochs": 4, "trials": 6, "batched": "yes", "pruner": "none", "sampler": "random"} | flags
    found = open_search(session, model, dataset, Tune(model="Net", data=dataset.ref, search=texts, **flags), {})
    batching = settle(found)
    if isinstance(batching, str):
        session.notes["how"] = batching
        run_singly(found)
    else:
        session.notes["how"] = batching.how
        run_batched(found, batching)
    return found


def trials_of(found: Searching) -> list[TrialRecord]:
    return [record_of(trial) for trial in found.study.trials()]


@pytest.mark.parametrize(
    ("model", "texts", "flags", "way"),
    [
        (Net, RATES, {"optimizer": "adamw"}, "batched matrices"),
        (Net, RATES, {"optimizer": "adam", "lr_scheduler": "onecycle"}, "batched matrices"),
        (
            Net,
            ("lr=loguniform(1e-3,1e-1)", "seed=int(0,99)"),
            {"optimizer": "sgd", "optimizer_args": {"momentum": 0.9}, "clip": 0.5, "lr_scheduler": "constant"},
            "batched matrices",
        ),
        (Residual, RATES, {"label_smoothing": 0.1}, "batched matrices"),
        (Normed, RATES, {"class_weight": "balanced"}, "vmap"),
        (Normed, ("seed=int(0,99)",), {}, "vmap"),
    ],
)
def test_trials_of_a_program_end_as_they_do_one_by_one(
    new_session: Callable[[], Any], wdbc: Dataset, model: Any, texts: tuple[str, ...], flags: dict[str, Any], way: str
) -> None:
    session = new_session()
    together = search(session, wdbc, *texts, model=model, **flags)
    assert way in session.notes["how"]
    alone = search(new_session(), wdbc, *texts, model=model, **flags, batched="no")
    for one, other in zip(trials_of(together), trials_of(alone), strict=True):
        assert one.params == other.params
        assert (one.state, one.epochs) == (other.state, other.epochs) == ("complete", 4)
        assert one.value == pytest.approx(other.value, rel=1e-4)
    kept, same = together.keeper.read(), alone.keeper.read()
    assert kept is not None and same is not None
    assert kept.params == same.params
    assert kept.history["train_loss"] == pytest.approx(same.history["train_loss"], rel=1e-4)
    assert kept.history["lr"] == pytest.approx(same.history["lr"])


def test_the_best_of_a_program_becomes_the_version(session: Any, wdbc: Dataset) -> None:
    spec = Tune(model="Net", data=wdbc.ref, search=RATES, epochs=4, trials=6, batched="yes")
    tuned = tune(session, Net, wdbc, spec)
    best = tuned.record.best_trial
    assert best is not None
    assert "as one program by batched matrices" in tuned.record.how
    assert tuned.card.metrics["val_loss"] == best.value
    assert tuned.card.metrics["val_accuracy"] > 0.5
    assert tuned.card.epochs == 4
    assert tuned.card.is_deployable


def test_rates_of_dropouts_may_differ_within_a_program(session: Any, wdbc: Dataset) -> None:
    found = search(session, wdbc, "drop=uniform(0.0,0.95)", epochs=8, lr=1e-2, trials=8)
    by_rate = sorted(trials_of(found), key=lambda trial: trial.params["drop"])
    assert by_rate[0].value < by_rate[-1].value  # type: ignore[operator]  # with most of it gone it learns less


def test_a_program_lets_go_what_does_badly_or_has_waited(session: Any, wdbc: Dataset) -> None:
    found = search(session, wdbc, "lr=loguniform(1e-5,3e-1)", pruner="asha", epochs=9, trials=16, patience=3)
    by_state = {trial.state for trial in trials_of(found)}
    assert by_state == {"complete", "pruned"}
    assert len({trial.epochs for trial in trials_of(found)}) > 2
    best, kept = found.study.best, found.keeper.read()
    assert best is not None and kept is not None
    assert (kept.params, kept.value) == (best.params, best.value)


def test_trials_that_diverge_fail_and_leave_the_others_alone(session: Any, wdbc: Dataset) -> None:
    found = search(session, wdbc, "lr=choice(1e-2,1e30)", optimizer="sgd", trials=12)
    failed = [trial for trial in trials_of(found) if trial.state == "failed"]
    assert failed
    assert all("1e+30" in trial.reason for trial in failed)
    assert {trial.params["lr"] for trial in trials_of(found) if trial.state == "complete"} == {1e-2}


def test_a_search_by_another_metric_goes_together_too(session: Any, wdbc: Dataset) -> None:
    found = search(session, wdbc, *RATES, metric="roc_auc")
    kept = found.keeper.read()
    assert kept is not None
    assert kept.value == max(kept.history["val_roc_auc"]) > 0.5


def test_a_program_that_is_stopped_leaves_its_best(session: Any, wdbc: Dataset) -> None:
    n_calls = 0

    def is_enough() -> bool:
        nonlocal n_calls
        n_calls += 1
        return n_calls > 40

    session.stop_when = is_enough
    found = search(session, wdbc, *RATES, epochs=500)
    assert [trial.state for trial in trials_of(found)] == ["complete"]
    assert found.keeper.read() is not None


class WithBuffers(Net):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__(n_features, n_outputs)
        self.layers.insert(1, nn.BatchNorm1d(8))


class WithStep(Net):
    def training_step(self, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


class WithBranch(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.layers(x)
        return found if found.sum() > 1e9 else -found


@pytest.mark.parametrize(
    ("model", "texts", "flags", "why"),
    [
        (Net, ("hidden=choice(4,8)",), {}, "shapes of their weights"),
        (Net, ("lr=uniform(0.1,0.2)", "optimizer=choice(adam,sgd)"), {}, "'optimizer'"),
        (Net, ("lr=uniform(0.1,0.2)",), {"optimizer": "rmsprop"}, "RMSprop"),
        (Net, ("lr=uniform(0.1,0.2)",), {"ema": 0.9}, "--ema"),
        (Net, ("lr=uniform(0.1,0.2)",), {"lr_scheduler": "plateau"}, "plateau"),
        (WithBuffers, ("lr=uniform(0.1,0.2)",), {}, "buffers"),
        (WithStep, ("lr=uniform(0.1,0.2)",), {}, "training_step"),
        (WithBranch, ("lr=uniform(0.1,0.2)",), {}, "data-dependent"),
    ],
)
def test_what_cannot_be_one_program_goes_one_by_one_and_says_why(
    new_session: Callable[[], Any], two_blobs: Dataset, model: Any, texts: tuple[str, ...], flags: Any, why: str
) -> None:
    session = new_session()
    search(session, two_blobs, *texts, model=model, epochs=1, trials=2, batched="auto", **flags)
    assert why in session.notes["how"]
    with pytest.raises(LeptonError, match="--batched yes"):
        search(new_session(), two_blobs, *texts, model=model, epochs=1, trials=2, **flags)
