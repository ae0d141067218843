"""The loop by itself: the export proof is started beside it and not waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train import strides
from lepton_jupyter.stages.train.checkpoints import read_checkpoint
from lepton_jupyter.stages.train.feed import batch_bounds
from lepton_jupyter.stages.train.frameworks.torch import TorchFitted, TorchFramework
from lepton_jupyter.stages.train.job import Job, settle_task
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.train.strides import Strides


class Net(nn.Module):
    def __init__(self, n_features: int, n_outputs: int, hidden: int = 8) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_features, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, n_outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class OneLogit(nn.Module):
    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(n_features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).squeeze(1)


class Line(nn.Module):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.layer(x)}


def fit(
    session: Any, model: Any, dataset: Dataset, *, names: dict[str, Any] | None = None, **flags: Any
) -> TorchFitted:
    spec = Train(model="model", data=dataset.ref, **flags)
    job = Job(session, spec, settle_task(dataset, spec.task), "model", names or {})
    fitted = TorchFramework().fit(model, job)
    fitted.close()
    return fitted


@pytest.fixture
def slope(make_dataset: Callable[..., Dataset]) -> Dataset:
    """Two targets of 80 rows, far from zero."""
    x = np.linspace(-1, 1, 80)
    frame = pl.DataFrame({"x": x, "u": 1000 + 50 * x, "v": -3 * x})
    return make_dataset(frame, target=("u", "v"))


def without_speed(history: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: values for name, values in history.items() if name != "rows_per_s"}


@pytest.mark.parametrize(("model", "is_paced"), [(Line, True), (Net, False)], ids=["linear", "batch norm adds up"])
def test_threads_change_only_where_that_changes_no_digit(
    new_session: Any, make_dataset: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch, model: Any, is_paced: bool
) -> None:
    random = np.random.default_rng(0)
    rows = {f"x{place}": random.normal(size=2000) for place in range(8)}
    dataset = make_dataset(pl.DataFrame(rows | {"y": rows["x0"] + random.normal(size=2000)}), target=("y",))
    used: list[int] = []
    step = Strides.step

    def counted(self: Strides, batch: Any) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return step(self, batch)

    monkeypatch.setattr(Strides, "step", counted)
    monkeypatch.setattr(strides, "PROBE_EVERY", 1)
    before, found = torch.get_num_threads(), []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        session = new_session()
        fitted = fit(session, model, dataset, epochs=3, batch_size=16, preprocess="none")
        found.append((fitted.outcome.metrics | {"rows_per_s": 0.0}, fitted.weights()))
        assert session.notes["threads"] == ("1 or 2, as is faster" if is_paced and n_threads == 2 else 1)
    assert set(used) == ({1, 2} if is_paced else {1})
    torch.set_num_threads(before)
    assert found[0][0] == found[1][0]
    for name, weights in found[0][1].items():
        np.testing.assert_array_equal(found[1][1][name], weights)


def test_the_same_seed_gives_the_same_metrics_to_the_last_digit(new_session: Any, two_blobs: Dataset) -> None:
    first = fit(new_session(), Net, two_blobs, epochs=4, seed=3)
    again = fit(new_session(), Net, two_blobs, epochs=4, seed=3)
    other = fit(new_session(), Net, two_blobs, epochs=4, seed=4)
    assert without_speed(first.outcome.history) == without_speed(again.outcome.history)
    assert without_speed(first.outcome.history) != without_speed(other.outcome.history)
    assert first.outcome.notes["threads"] == 1


def test_the_first_batch_leaves_weights_and_statistics_untouched(session: Any, two_blobs: Dataset) -> None:
    torch.manual_seed(0)
    net = Net(3, 2)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fitted = fit(session, net, two_blobs, epochs=1, optimizer="sgd", lr=1e-30)
    after = fitted.module.state_dict()
    assert torch.equal(before["net.0.weight"], after["net.0.weight"])
    assert int(after["net.1.num_batches_tracked"]) == 3  # 36 rows in batches of 16: only the epoch's own


def test_a_single_logit_is_the_positive_classs_whichever_comes_first(session: Any, make_dataset: Any) -> None:
    rows = [{"a": float(i % 10), "y": "a" if i % 10 > 6 else "b"} for i in range(100)]
    dataset = make_dataset(pl.DataFrame(rows), target=("y",), positive="a")
    assert dataset.schema.classes == ("a", "b")
    fitted = fit(session, OneLogit, dataset, epochs=60, lr=0.3)
    assert fitted.outcome.metrics["val_accuracy"] == 1.0
    probability = fitted.predict(dataset.packed("test"))
    assert np.array_equal(probability[:, 0] >= 0.5, dataset.targets("test") == 0)
    assert np.allclose(probability.sum(1), 1)
    assert fitted.outcome.notes["loss"] == "BCEWithLogitsLoss"


def test_targets_are_scaled_inside_the_loss_and_metrics_are_in_original_units(session: Any, slope: Dataset) -> None:
    fitted = fit(session, Line, slope, epochs=150, lr=0.05, scale_target=True)
    assert fitted.outcome.metrics["val_rmse"] < 1
    assert np.allclose(fitted.predict(slope.packed("test")), slope.targets("test"), atol=2)


def test_patience_ends_a_run_that_gets_no_better_and_keeps_its_best(session: Any, two_blobs: Dataset) -> None:
    fitted = fit(session, Net, two_blobs, epochs=500, lr=0.5, patience=3, lr_scheduler="constant")
    outcome = fitted.outcome
    assert outcome.epochs is not None and outcome.epochs < 500
    assert outcome.best_epoch == outcome.epochs - 3
    losses = outcome.history["val_loss"]
    assert outcome.metrics["val_loss"] == min(losses) == losses[outcome.best_epoch - 1]
    kept = read_checkpoint(session.folder / "checkpoints")
    assert kept is not None and kept[1]["epoch"] == outcome.best_epoch
    assert torch.equal(kept[0]["net.0.weight"], fitted.module.state_dict()["net.0.weight"])


def test_without_a_validation_split_the_last_epoch_is_the_best(session: Any, make_dataset: Any) -> None:
    dataset = make_dataset(pl.DataFrame({"x": [1.0, 2, 3, 4, 5], "y": [2.0, 4, 6, 8, 10]}), target=("y",), split="none")
    fitted = fit(session, Line, dataset, epochs=7, task="regression")
    assert fitted.outcome.best_epoch == 7
    assert "val_loss" not in fitted.outcome.history


def test_a_loss_that_becomes_nan_names_epoch_and_step(session: Any, slope: Dataset) -> None:
    with pytest.raises(
        LeptonError,
        match=r"The loss became (NaN|infinite) at step \d of \d in epoch \d+ of 50: first in the loss itself",
    ) as caught:
        fit(session, Line, slope, epochs=50, lr=1e18, optimizer="sgd", lr_scheduler="constant")
    assert "--lr 1e+17" in caught.value.hint
    assert caught.value.code == "failed"


class Trap(nn.Module):
    """Gives NaN from its eighth training batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.n += 1
        return torch.where(self.n >= 8, torch.nan, 1.0) * x


class Trapped(nn.Module):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_features, 4), nn.ReLU(), Trap(), nn.Linear(4, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@pytest.mark.parametrize("pause_s", [0.0, 1e9], ids=["since a checkpoint", "since the start"])
def test_a_nan_names_the_layer_by_going_there_once_more(
    session: Any, two_blobs: Dataset, monkeypatch: pytest.MonkeyPatch, pause_s: float
) -> None:
    monkeypatch.setattr("lepton_jupyter.stages.train.checkpoints.PAUSE_S", pause_s)
    monkeypatch.setattr("lepton_jupyter.stages.train.loop.PAUSE_S", pause_s)
    with pytest.raises(
        LeptonError, match=r"became NaN at step 2 of 3 in epoch 3 of 9: first in layer 'body\.2' \(Trap\)"
    ):
        fit(session, Trapped, two_blobs, epochs=9)
    assert len(session.metrics) == 2


def test_a_nan_that_the_features_brought_is_told_apart(session: Any, make_dataset: Any) -> None:
    frame = pl.DataFrame(
        {"x": [1.0, None, 3.0] * 10, "z": [1.5 * i for i in range(30)], "y": [1.25 * i for i in range(30)]}
    )
    dataset = make_dataset(frame, target=("y",))
    with pytest.raises(LeptonError, match="at step 1 of") as caught:
        fit(session, Line, dataset, preprocess="none")
    assert "missing or infinite values" in caught.value.hint


def test_a_stop_ends_at_the_next_stride_and_keeps_the_best_whole_epoch(session: Any, two_blobs: Dataset) -> None:
    class Asking(Line):
        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            steps.append(len(batch[1]))
            return nn.functional.cross_entropy(self(batch[0])["logits"], batch[1])

    steps: list[int] = []
    session.stop_when = lambda: len(steps) >= 11  # three steps an epoch: within the fourth, or at its end
    fitted = fit(session, Asking, two_blobs, epochs=1000)
    assert len(steps) in (11, 12)
    assert fitted.outcome.stopped_at == fitted.outcome.epochs == len(steps) // 3
    assert session.metrics[-1] == {k: v[-1] for k, v in fitted.outcome.history.items() if k != "epoch"}


def test_a_stop_in_the_first_epoch_keeps_what_there_is(session: Any, two_blobs: Dataset) -> None:
    session.stop_when = lambda: True
    fitted = fit(session, Net, two_blobs, epochs=1000)
    assert fitted.outcome.stopped_at == 1
    assert "val_loss" in fitted.outcome.metrics


def test_steps_of_the_modules_own_take_the_place_of_forward_and_loss(session: Any, two_blobs: Dataset) -> None:
    class Stepping(Line):
        calls = 0

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
            type(self).calls += 1
            x, y = batch
            return {"loss": nn.functional.cross_entropy(self(x)["logits"], y)}

        def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            return torch.tensor(42.0)

    fitted = fit(session, Stepping, two_blobs, epochs=2)
    assert Stepping.calls == 6
    assert fitted.outcome.metrics["val_loss"] == 42.0
    assert "val_accuracy" in fitted.outcome.metrics


@pytest.mark.parametrize(
    "flags",
    [
        {"optimizer": "SGD", "lr_scheduler": "StepLR"},
        {"optimizer": "rmsprop", "lr_scheduler": "onecyclelr"},
        {"optimizer": "Adam", "lr_scheduler": "ReduceLROnPlateau", "class_weight": "balanced"},
        {"optimizer": "adagrad", "lr_scheduler": "exponential", "loss": "crossentropy", "batch_size": 1},
        {"optimizer": "nadam", "lr_scheduler": "multisteplr", "loss": "BCEWithLogitsLoss"},
        {"lr_scheduler": "cycliclr", "optimizer": "sgd"},
    ],
)
def test_torchs_names_are_taken_in_any_case(session: Any, two_blobs: Dataset, flags: dict[str, Any]) -> None:
    fitted = fit(session, Line, two_blobs, epochs=3, **flags)
    assert fitted.outcome.epochs == 3


def test_names_of_the_notebook_are_used(session: Any, two_blobs: Dataset) -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target) * 0 + 7

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)

    names = {"loss": loss, "optimizer": torch.optim.SGD, "lr_scheduler": schedule}
    fitted = fit(
        session, Line, two_blobs, names=names, epochs=2, lr=0.1, loss="loss", optimizer="mine", lr_scheduler="schedule"
    )
    assert fitted.outcome.history["val_loss"] == [7, 7]
    assert fitted.outcome.history["lr"] == [0.1, 0.05]
    assert fitted.outcome.notes["optimizer"] == "SGD"


def test_a_last_batch_of_one_row_joins_the_one_before() -> None:
    assert batch_bounds(33, 16) == [(0, 16), (16, 33)]
    assert batch_bounds(1, 16) == [(0, 1)]


class Wide(Line):
    """Takes more memory than there is where gradients of more than ten rows are wanted."""

    n_fitting = 10

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(x) > self.n_fitting and self.training and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(x)


def test_a_batch_that_does_not_fit_goes_in_parts_with_the_same_gradient(new_session: Any, two_blobs: Dataset) -> None:
    session = new_session()
    fitted = fit(session, Wide, two_blobs, batch_size=16, epochs=4)
    plain = fit(new_session(), Line, two_blobs, batch_size=16, epochs=4)
    assert "a batch of 16 rows did not fit" in session.notes["micro_batch"]
    assert "2 parts of 8" in session.notes["micro_batch"]
    assert fitted.outcome.history["train_loss"] == pytest.approx(plain.outcome.history["train_loss"], rel=1e-4)


def test_a_row_that_does_not_fit_is_named(session: Any, two_blobs: Dataset) -> None:
    class Huge(Wide):
        n_fitting = 0

    with pytest.raises(LeptonError, match="too small to take a step, even one row at a time") as caught:
        fit(session, Huge, two_blobs)
    assert "%lepton devices" in caught.value.hint
