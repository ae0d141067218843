"""What the flags of training name: metrics, what is refused before anything starts, and all of it at work."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.evaluate.metrics import METRICS
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.judged import full_name, is_greater_better, make_judge
from lepton_jupyter.stages.train.preflight import preflight
from lepton_jupyter.stages.train.spec import Train
from tests.stages.train.test_loop import Line, Net, OneLogit, fit

SOFTMAX, SIGMOID = Head("softmax", 2, positive_index=1), Head("sigmoid", 2, positive_index=1)


# -- metrics


@pytest.mark.parametrize("name", [metric.name for metric in METRICS if metric.task == "binary"])
def test_epochs_are_judged_by_any_metric_in_its_direction(job: Callable[..., Job], name: str) -> None:
    judge = make_judge(job(metric=name), SOFTMAX)
    truth = np.array([0, 1] * 20)
    good = np.where(truth == 1, 0.9, 0.2) + np.linspace(-0.05, 0.05, 40)
    poor = np.where(np.arange(40) % 3 == 0, 1 - good, good)
    found = [
        judge.judged(judge.metrics(np.stack([1 - p, p], axis=1), truth, 0.5) | {"train_loss": 0.1})
        for p in (good, poor)
    ]
    assert judge.name == f"val_{name}"
    assert judge.is_better(found[0], found[1]) and not judge.is_better(found[1], found[0])
    assert is_greater_better(name, "binary") == (found[0] > found[1])


def test_an_undefined_metric_is_better_than_none_and_worse_than_any(job: Callable[..., Job]) -> None:
    judge = make_judge(job(metric="val_roc_auc"), SOFTMAX)
    undefined = judge.judged(judge.metrics(np.full((4, 2), 0.5), np.zeros(4, dtype=np.int64), 0.1))
    assert math.isnan(undefined)
    assert judge.is_better(undefined, None)
    assert judge.is_better(0.1, undefined) and not judge.is_better(undefined, 0.1)


def test_a_metric_is_known_with_and_without_its_split() -> None:
    assert full_name("accuracy") == full_name("val_accuracy") == full_name("Val-Accuracy") == "val_accuracy"
    assert full_name("loss") == "val_loss" and full_name("train_loss") == "train_loss"


def test_a_metric_of_another_task_or_without_validation_rows_is_refused(
    job: Callable[..., Job], make_dataset: Callable[..., Dataset], numbers: Dataset
) -> None:
    with pytest.raises(LeptonError, match=r"No metric of a binary task named 'val_rmse'.*val_roc_auc"):
        make_judge(job(metric="rmse"), SOFTMAX)
    with pytest.raises(LeptonError, match="--metric val_accuracy needs a validation split"):
        make_judge(job(metric="val_accuracy"), SOFTMAX, has_validation=False)
    blind = make_judge(job(), SOFTMAX, has_validation=False)
    assert blind.is_blind and blind.is_better(9.0, 1.0)
    assert make_judge(job(metric="val_r2", data=numbers), Head("identity", 1)).is_greater_better


# -- before anything starts


@pytest.mark.parametrize(
    ("flags", "said", "hint"),
    [
        ({"optimizer": "adamm"}, "Did you mean 'Adam", ""),
        ({"optimizer": "lbfgs"}, "LBFGS calls the model several times a step", "adamw"),
        ({"optimizer": "rprop", "weight_decay": 0.1}, "--weight-decay means nothing for Rprop", "adamw"),
        (
            {"optimizer": "sgd", "optimizer_args": {"momentun": 0.9}},
            "SGD takes no 'momentun'.*Did you mean 'momentum'",
            "",
        ),
        ({"optimizer": "sgd", "optimizer_args": {"momentum": -1}}, "SGD refuses .*momentum=-1", "--optimizer-args"),
        (
            {"optimizer": "sgd", "optimizer_args": {"momentum": "big"}},
            "SGD refuses .*momentum='big'",
            "--optimizer-args",
        ),
        ({"optimizer_args": {"betas": [0.9, 1.5]}}, "AdamW refuses .*1.5", "--optimizer-args"),
        ({"optimizer_args": {"lr": 0.9}}, "--optimizer-args gives 'lr'", "--lr"),
        ({"loss": "CrosEntropy"}, "Did you mean 'CrossEntropyLoss'", ""),
        ({"lr_scheduler": "cosin"}, "Did you mean 'cosine'", ""),
        ({"lr_scheduler": "one-cycl"}, "Did you mean 'one-cycle'", ""),
        ({"metric": "val_acuracy"}, "Did you mean 'val_accuracy'", ""),
        ({"augment": ("flp",)}, "Did you mean 'flip'", "notebook"),
        ({"augment": ("mixup=much",)}, "mixup takes a number more than 0, not 'much'", "mixup=0.2"),
        ({"augment": ("flip=2",)}, "flip takes a share of the images, at most 1, not '2'", "flip=0.5"),
        ({"augment": ("crop=1.5",)}, "crop takes a whole number of pixels", "crop=4"),
        ({"augment": ("noise=nan",)}, "noise takes a number more than 0", ""),
        ({"shard": True}, "--shard lays a model out over several devices, and --devices auto is one", "--devices 2"),
        ({"shard": True, "devices": "1"}, "--devices 1 is one", "--devices 2"),
    ],
)
def test_nonsense_is_refused_in_the_asking_process(flags: Any, said: str, hint: str) -> None:
    with pytest.raises(LeptonError, match=said) as caught:
        preflight(Net, Train(model="Net", data="d", **flags), named=(), data="d")
    assert hint in caught.value.hint


def test_the_notebooks_own_names_are_looked_at_where_they_are_at_hand() -> None:
    def mine(weights: Any, lr: float) -> None: ...

    spec = Train(model="Net", data="d", optimizer="mine", loss="far", augment=("blur",), optimizer_args={"speed": 3})
    with pytest.raises(LeptonError, match=r"mine takes no 'speed'\. It takes: nothing else"):
        preflight(Net, spec, named=("optimizer", "loss", "augment:blur"), data="d", own={"optimizer": mine})
    own = {"loss": nn.TripletMarginLoss()}
    with pytest.raises(LeptonError, match="TripletMarginLoss compares rows"):
        preflight(Net, spec, named=("optimizer", "loss", "augment:blur"), data="d", own=own)


@pytest.mark.parametrize(
    "flags",
    [
        {"optimizer_args": {"momentum": 1}},
        {"weight_decay": 0.1},
        {"warmup": 0.1},
        {"clip": 1.0},
        {"accumulate": 2},
        {"ema": 0.9},
        {"augment": ("noise",)},
        {"metric": "accuracy"},
        {"precision": "bf16"},
        {"compile": "yes"},
        {"shard": True},
        {"checkpoint_every_s": 5.0},
        {"label_smoothing": 0.1},
        {"resume": "ab12"},
        {"devices": "2"},
        {"devices": "0,1"},
    ],
)
def test_flags_of_the_loop_mean_nothing_for_an_estimator_and_are_refused_at_once(flags: Any) -> None:
    from sklearn.linear_model import LogisticRegression

    flag = "--" + next(iter(flags)).replace("_", "-")
    with pytest.raises(LeptonError, match=f"{flag}.* means nothing for 'clf', a scikit-learn estimator"):
        preflight(LogisticRegression(), Train(model="clf", data="d", **flags), named=(), data="d")


# -- all of it at work


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        (Net, {"optimizer": "muon", "lr_scheduler": "one-cycle", "label_smoothing": 0.1, "metric": "roc_auc"}),
        (Net, {"optimizer": "sgd", "optimizer_args": {"momentum": 0.9, "nesterov": True}, "lr_scheduler": "plateau"}),
        (Net, {"lr_scheduler": "step", "warmup": 0.2, "weight_decay": 0.1, "augment": ("noise=0.1", "mixup")}),
        (OneLogit, {"label_smoothing": 0.1, "augment": ("mixup=0.4",), "metric": "log_loss"}),
        (Line, {"loss": "multi_margin", "metric": "f1", "optimizer": "adafactor"}),
    ],
)
def test_the_flags_train_together(session: Any, two_blobs: Dataset, model: Any, flags: Any) -> None:
    fitted = fit(session, model, two_blobs, epochs=3, lr=0.01, **flags)
    assert len(fitted.outcome.history["epoch"]) == 3
    assert all(math.isfinite(value) for value in fitted.outcome.history["train_loss"])
