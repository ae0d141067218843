"""What the flags of training name: optimizers, losses, schedules, metrics. Each is compared with torch's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.evaluate.metrics import METRICS
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job, settle_task
from lepton_jupyter.stages.train.judged import full_name, is_greater_better, make_judge
from lepton_jupyter.stages.train.losses import encode_targets, make_loss
from lepton_jupyter.stages.train.optimizers import make_optimizer
from lepton_jupyter.stages.train.preflight import preflight
from lepton_jupyter.stages.train.schedules import Schedule, make_schedule
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.train.state_file import read_state, write_state
from lepton_jupyter.stages.train.torch_names import LOSSES, OPTIMIZERS, REFUSED, SCHEDULERS
from tests.stages.train.test_loop import Line, Net, OneLogit, fit

SOFTMAX, SIGMOID = Head("softmax", 2, positive_index=1), Head("sigmoid", 2, positive_index=1)


@pytest.fixture
def job(session: Any, two_blobs: Dataset) -> Callable[..., Job]:
    """Make a job of a binary task: ``job(lr=0.1, names={…})``."""

    def make(*, names: dict[str, Any] | None = None, data: Dataset = two_blobs, **flags: Any) -> Job:
        spec = Train(model="model", data=data.ref, **flags)
        return Job(session, spec, settle_task(data, spec.task), "model", names or {})

    return make


@pytest.fixture
def numbers(make_dataset: Callable[..., Dataset]) -> Dataset:
    """One target of 60 rows."""
    import polars as pl

    return make_dataset(
        pl.DataFrame({"x": [float(i) for i in range(60)], "y": [i * 0.5 for i in range(60)]}), target=("y",)
    )


def rates(schedule: Schedule, optimizer: torch.optim.Optimizer, *, epochs: int, n_steps: int) -> list[float]:
    """Return the rate of every step."""
    found = []
    for _ in range(epochs):
        for _ in range(n_steps):
            found.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            if schedule.is_per_step:
                schedule.step()
        schedule.epoch(1.0)
    return found


# -- schedules


def test_cosine_goes_down_step_by_step_from_the_rate_to_nothing(job: Callable[..., Job]) -> None:
    one = job(lr=0.4, epochs=3)
    optimizer = make_optimizer(one, nn.Linear(2, 2))
    found = rates(make_schedule(one, optimizer, 4), optimizer, epochs=3, n_steps=4)
    assert found == pytest.approx([0.2 * (1 + math.cos(math.pi * step / 12)) for step in range(12)])
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0)


@pytest.mark.parametrize("word", ["cosine", "constant", "step", "exponential", "plateau"])
def test_a_warm_up_rises_in_a_straight_line_before_any_schedule(job: Callable[..., Job], word: str) -> None:
    one = job(lr=1.0, epochs=4, lr_scheduler=word, warmup=0.25)
    optimizer = make_optimizer(one, nn.Linear(2, 2))
    found = rates(make_schedule(one, optimizer, 8), optimizer, epochs=4, n_steps=8)
    assert found[:8] == pytest.approx([(step + 1) / 8 for step in range(8)])
    assert found[8] <= 1.0


def test_a_warm_up_leaves_torchs_schedule_where_it_would_be_without(job: Callable[..., Job]) -> None:
    after = []
    for warmup in (0.0, 0.3):  # until the middle of the second epoch of four
        one = job(lr=1.0, epochs=4, lr_scheduler="exponential", warmup=warmup)
        optimizer = make_optimizer(one, nn.Linear(2, 2))
        after.append(rates(make_schedule(one, optimizer, 5), optimizer, epochs=4, n_steps=5)[6:])
    assert after[0] == pytest.approx(after[1])


@pytest.mark.parametrize(("warmup", "share"), [(0.0, 0.3), (0.5, 0.5)])
def test_one_cycle_is_torchs_step_by_step(job: Callable[..., Job], warmup: float, share: float) -> None:
    one = job(lr=0.1, epochs=5, lr_scheduler="one-cycle", warmup=warmup)
    optimizer = make_optimizer(one, nn.Linear(2, 2))
    found = rates(make_schedule(one, optimizer, 7), optimizer, epochs=5, n_steps=7)
    plain = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=0.1)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        plain, max_lr=0.1, total_steps=35, pct_start=share, cycle_momentum=False
    )
    wanted = []
    for _ in range(35):
        wanted.append(plain.param_groups[0]["lr"])
        plain.step()
        torchs.step()
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("word", ["cosine", "one-cycle", "constant"])
@pytest.mark.parametrize("n_steps", [1, 2, None])
def test_a_schedule_of_very_few_steps_stays_between_nothing_and_the_rate(
    job: Callable[..., Job], word: str, n_steps: int | None
) -> None:
    one = job(lr=1.0, epochs=2, lr_scheduler=word, warmup=0.4)
    optimizer = make_optimizer(one, nn.Linear(2, 2))
    schedule = make_schedule(one, optimizer, n_steps)
    assert schedule.is_per_step == (n_steps is not None)
    assert all(0 <= rate <= 1 for rate in rates(schedule, optimizer, epochs=3, n_steps=n_steps or 2))


def test_plateau_follows_the_metric_in_its_own_direction(job: Callable[..., Job]) -> None:
    for metric, values, is_lowered in [
        ("val_loss", [3, 2, 1, 0.5], False),
        ("val_loss", [1, 2, 3, 4], True),
        ("val_accuracy", [0.1, 0.2, 0.3, 0.4], False),
        ("val_accuracy", [0.4, 0.3, 0.2, 0.1], True),
    ]:
        one = job(lr=1.0, epochs=4, lr_scheduler="plateau", metric=metric)
        optimizer = make_optimizer(one, nn.Linear(2, 2))
        schedule = make_schedule(one, optimizer, 3)
        for value in values:
            optimizer.step()
            schedule.epoch(value)
        assert (optimizer.param_groups[0]["lr"] < 1) == is_lowered, metric


@pytest.mark.parametrize("word", sorted([*(value.__name__ for value in SCHEDULERS.values()), "cosine", "one-cycle"]))
def test_every_schedule_goes_on_from_a_file_as_if_it_had_not_been_interrupted(
    job: Callable[..., Job], word: str, tmp_path: Path
) -> None:
    def at_work() -> tuple[torch.optim.Optimizer, Schedule]:
        one = job(lr=0.1, epochs=8, lr_scheduler=word, warmup=0.2, optimizer="sgd", optimizer_args={"momentum": 0.5})
        optimizer = make_optimizer(one, nn.Linear(2, 2))
        return optimizer, make_schedule(one, optimizer, 5)

    optimizer, schedule = at_work()
    before = rates(schedule, optimizer, epochs=8, n_steps=5)
    optimizer, schedule = at_work()
    rates(schedule, optimizer, epochs=3, n_steps=5)
    write_state(tmp_path / "state", {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()})
    state = read_state(tmp_path / "state")
    optimizer, schedule = at_work()
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    optimizer.step()  # as torch's schedules want it said
    assert rates(schedule, optimizer, epochs=5, n_steps=5) == before[15:]


def test_a_schedule_of_the_notebook_must_be_one(job: Callable[..., Job]) -> None:
    one = job(lr_scheduler="mine", names={"lr_scheduler": lambda optimizer: 3})
    with pytest.raises(LeptonError, match="'mine' gave a int, not a schedule"):
        make_schedule(one, make_optimizer(one, nn.Linear(2, 2)), 5)


# -- optimizers

WORKING = sorted(value.__name__ for value in OPTIMIZERS.values() if value.__name__ not in ("LBFGS", "SparseAdam"))


@pytest.mark.parametrize("word", WORKING)
def test_every_optimizer_of_torch_learns_and_goes_on_from_a_file(
    job: Callable[..., Job], word: str, tmp_path: Path
) -> None:
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    y = x @ torch.tensor([1.0, -2.0, 0.5, 3.0])

    def at_work() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        return module, make_optimizer(job(optimizer=word.lower(), lr=0.01), module)

    def go(module: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> list[float]:
        losses = []
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            loss = ((module(x)[:, 0] - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    losses = go(*at_work(), 30)
    assert losses[-1] < losses[0]
    module, optimizer = at_work()
    go(module, optimizer, 20)
    write_state(tmp_path / "state", {"model": module.state_dict(), "optimizer": optimizer.state_dict()})
    state = read_state(tmp_path / "state")
    module, optimizer = at_work()
    module.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    assert go(module, optimizer, 10) == losses[20:]


@pytest.mark.parametrize("word", ["Adam", "AdamW", "SGD", "Adagrad"])
def test_the_fused_step_is_taken_where_torch_has_one(job: Callable[..., Job], word: str) -> None:
    assert make_optimizer(job(optimizer=word), nn.Linear(2, 2)).param_groups[0]["fused"] is True
    plain = make_optimizer(job(optimizer=word, optimizer_args={"foreach": False}), nn.Linear(2, 2))
    assert not plain.param_groups[0]["fused"]


def test_weight_decay_and_arguments_reach_the_optimizer(job: Callable[..., Job]) -> None:
    arguments = {"betas": [0.8, 0.9], "amsgrad": True}
    group = make_optimizer(job(weight_decay=0.3, lr=0.02, optimizer_args=arguments), nn.Linear(2, 2)).param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"], group["amsgrad"]) == (0.02, 0.3, (0.8, 0.9), True)
    made: dict[str, Any] = {}

    def mine(weights: Any, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        made.update(lr=lr, momentum=momentum, weight_decay=weight_decay)
        return torch.optim.SGD(weights, lr=lr)

    one = job(optimizer="mine", names={"optimizer": mine}, weight_decay=0.1, optimizer_args={"momentum": 0.9})
    make_optimizer(one, nn.Linear(2, 2))
    assert made == {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.1}


def test_muon_steps_matrices_and_leaves_the_rest_to_adamw(job: Callable[..., Job]) -> None:
    optimizer = make_optimizer(job(optimizer="muon", weight_decay=0.2), nn.Linear(3, 2))
    assert [tuple(weight.shape) for group in optimizer.param_groups for weight in group["params"]] == [(2, 3), (2,)]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.2]
    assert "ns_steps" in optimizer.param_groups[0] and "betas" in optimizer.param_groups[1]


def test_sparse_adam_takes_sparse_embeddings_alone(job: Callable[..., Job]) -> None:
    assert make_optimizer(job(optimizer="sparseadam"), nn.Embedding(3, 2, sparse=True))
    with pytest.raises(LeptonError, match="has a Linear, whose are dense"):
        make_optimizer(job(optimizer="sparseadam"), nn.Linear(2, 2))


# -- losses


@pytest.mark.parametrize("name", sorted(value.__name__ for value in LOSSES.values()))
@pytest.mark.parametrize("head", [SOFTMAX, SIGMOID, Head("identity", 1)], ids=["classes", "logit", "numbers"])
def test_every_loss_of_torch_learns_or_is_refused_with_what_to_do(
    job: Callable[..., Job], numbers: Dataset, two_blobs: Dataset, head: Head, name: str
) -> None:
    data = numbers if head.kind == "identity" else two_blobs
    one = job(loss=name.lower(), data=data)
    try:
        loss = make_loss(one, head)
    except LeptonError as error:
        is_said = name in str(error) and bool(error.hint)
        assert is_said
        return
    assert name not in REFUSED
    values = one.targets("train")
    target = encode_targets(values, loss, head, like=(1,) if head.kind == "sigmoid" else ())
    output = (torch.rand(len(values), 2 if head.kind == "softmax" else 1) + 0.5).requires_grad_()
    optimizer = torch.optim.SGD([output], lr=0.5)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        value = loss(output, target)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0]


def test_the_soft_margin_is_taken_between_signs(job: Callable[..., Job]) -> None:
    loss = make_loss(job(loss="softmargin"), SIGMOID)
    target = encode_targets(np.array([0, 1]), loss, SIGMOID, like=(1,))
    assert target.tolist() == [[-1.0], [1.0]]
    assert float(loss(torch.tensor([[-30.0], [30.0]]), target)) == pytest.approx(0, abs=1e-6)


def test_label_smoothing_is_torchs_for_classes_and_drawn_to_a_half_for_one_logit(job: Callable[..., Job]) -> None:
    output, codes = torch.tensor([[2.0, -1.0], [0.3, 0.1]]), torch.tensor([0, 1])
    of_classes = make_loss(job(label_smoothing=0.2, class_weight="balanced"), SOFTMAX)
    assert isinstance(of_classes.function, nn.CrossEntropyLoss)
    assert of_classes.function.label_smoothing == 0.2 and of_classes.function.weight is not None
    assert float(make_loss(job(label_smoothing=0.2), SOFTMAX)(output, codes)) == pytest.approx(
        float(nn.functional.cross_entropy(output, codes, label_smoothing=0.2))
    )
    logit = output[:, 1] - output[:, 0]  # the same probabilities by one logit: the same loss
    of_logit = make_loss(job(label_smoothing=0.2), SIGMOID)
    assert float(of_logit(logit, codes.float())) == pytest.approx(
        float(nn.functional.cross_entropy(output, codes, label_smoothing=0.2))
    )


@pytest.mark.parametrize(
    ("flags", "head", "said"),
    [
        (
            {"loss": "multimargin", "label_smoothing": 0.1},
            SOFTMAX,
            "--label-smoothing means nothing for MultiMarginLoss",
        ),
        ({"loss": "CrossEntropyLoss"}, SIGMOID, "wants a logit for each class"),
        ({"loss": "triplet_margin"}, SOFTMAX, "compares rows with one another"),
        ({"loss": "KLDivLoss"}, SOFTMAX, "takes probabilities"),
    ],
)
def test_a_loss_that_cannot_be_meant_is_refused(job: Callable[..., Job], flags: Any, head: Head, said: str) -> None:
    with pytest.raises(LeptonError, match=said):
        make_loss(job(**flags), head)


def test_a_loss_that_is_made_already_gets_no_flags(job: Callable[..., Job]) -> None:
    one = job(loss="mine", label_smoothing=0.1, names={"loss": nn.CrossEntropyLoss()})
    with pytest.raises(LeptonError, match="--label-smoothing cannot reach 'mine', which is made already"):
        make_loss(one, SOFTMAX)


def test_label_smoothing_means_nothing_for_numbers(job: Callable[..., Job], numbers: Dataset) -> None:
    with pytest.raises(LeptonError, match="--label-smoothing means nothing for a regression"):
        make_loss(job(data=numbers, label_smoothing=0.1), Head("identity", 1))


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
