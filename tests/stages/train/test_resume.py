"""A training that is cut off and goes on ends as if nothing had happened, to the last bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.batches import InMemory
from lepton_jupyter.stages.train.checkpoints import Checkpoints, read_checkpoint
from lepton_jupyter.stages.train.feed import Rows, batch_bounds
from lepton_jupyter.stages.train.frameworks.torch import TorchFitted, TorchFramework
from lepton_jupyter.stages.train.job import Job, settle_task
from lepton_jupyter.stages.train.spec import Train


class Image(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(input_shape[0], 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class CutError(Exception):
    """What ends a run here: it leaves no more behind than a killed kernel does."""


class Net(nn.Module):
    """Draws from every generator: dropout from torch's, noise from numpy's."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, n_outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = x + 0.01 * float(np.random.normal())
        return self.net(x)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save at every stride, and let a stride be one step."""
    monkeypatch.setattr("lepton_jupyter.stages.train.strides.STRIDE_S", 0.0)
    monkeypatch.setattr("lepton_jupyter.stages.train.checkpoints.PAUSE_S", 0.0)
    monkeypatch.setattr("lepton_jupyter.stages.train.loop.PAUSE_S", 0.0)
    monkeypatch.setattr("lepton_jupyter.stages.train.checkpoints.COST_SHARE", 1e9)


def fit(session: Any, dataset: Dataset, model: Any = Net, **flags: Any) -> TorchFitted:
    spec = Train(model="model", data=dataset.ref, checkpoint_every_s=1e-9, **({"epochs": 6} | flags))
    fitted = TorchFramework().fit(model, Job(session, spec, settle_task(dataset, spec.task), "model"))
    fitted.close()
    return fitted


def cut_at(session: Any, n_strides: int) -> None:
    """Let a session end the run, without a word, at its so-many-th stride."""
    seen = 0

    def stop_when() -> bool:
        nonlocal seen
        seen += 1
        if seen == n_strides:
            raise CutError
        return False

    session.stop_when = stop_when


def same(one: TorchFitted, other: TorchFitted) -> bool:
    left, right = one.module.state_dict(), other.module.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def without_speed(history: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: values for name, values in history.items() if name != "rows_per_s"}


@pytest.mark.parametrize("n_strides", [1, 2, 3, 4, 8, 17])
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"optimizer": "sgd", "optimizer_args": {"momentum": 0.9}, "lr_scheduler": "steplr", "patience": 2, "lr": 0.3},
        {"ema": 0.9, "clip": 0.5, "accumulate": 2, "lr_scheduler": "one-cycle", "augment": ("noise=0.1", "mixup=0.2")},
        {"lr_scheduler": "plateau", "warmup": 0.2, "metric": "val_accuracy"},
    ],
    ids=["plain", "sgd", "everything", "plateau"],
)
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    new_session: Any, two_blobs: Dataset, flags: dict[str, Any], n_strides: int
) -> None:
    whole = fit(new_session(), two_blobs, **flags)
    assert whole.outcome.epochs is not None
    n_strides = min(n_strides, 3 * whole.outcome.epochs - 1)  # where --patience ends it earlier
    session = new_session()
    cut_at(session, n_strides)
    with pytest.raises(CutError):
        fit(session, two_blobs, **flags)
    torch.manual_seed(12345)  # what happened meanwhile
    np.random.seed(1)
    session.stop_when = lambda: False
    again = fit(session, two_blobs, **flags)
    assert same(whole, again)
    assert without_speed(whole.outcome.history) == without_speed(again.outcome.history)
    assert whole.outcome.best_epoch == again.outcome.best_epoch
    assert whole.outcome.metrics.keys() == again.outcome.metrics.keys()
    if n_strides > 1:  # the first checkpoint is written after the first look for a stop
        assert session.notes["resumed"] == {"epoch": 1 + (n_strides - 1) // 3, "step": (n_strides - 1) % 3}


def test_channels_lie_last_in_training_only_and_go_on_so(
    new_session: Any, make_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lepton_jupyter.stages.train.precision.CHANNELS_LAST", {("cpu", "fp32")})
    x = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    images = make_dataset((x, (x.mean((1, 2, 3)) > 0).long()), target=())
    seen: list[bool] = []

    class Watched(Image):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(self.net[0].weight.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x)

    whole = fit(new_session(), images, Watched, batch_size=8)
    assert all(seen[-12:]) and whole.module.net[0].weight.is_contiguous()  # type: ignore[union-attr, index]
    session = new_session()
    cut_at(session, 7)
    with pytest.raises(CutError):
        fit(session, images, Watched, batch_size=8)
    session.stop_when = lambda: False
    assert same(whole, fit(session, images, Watched, batch_size=8))


def test_a_run_that_died_after_its_last_epoch_trains_no_more(new_session: Any, two_blobs: Dataset) -> None:
    session = new_session()
    first = fit(session, two_blobs)
    again = fit(session, two_blobs)
    assert same(first, again)
    assert len(session.metrics) == 6


def test_a_finished_run_goes_on_for_more_epochs_in_another_folder(new_session: Any, two_blobs: Dataset) -> None:
    long, session, more = new_session(), new_session(), new_session()
    whole = fit(long, two_blobs, epochs=9, lr_scheduler="constant")
    fit(session, two_blobs, epochs=6, lr_scheduler="constant")
    shutil.copytree(session.folder / "checkpoints", more.folder / "checkpoints")
    longer = fit(more, two_blobs, epochs=9, lr_scheduler="constant")
    assert same(whole, longer)
    assert more.notes["resumed"] == {"epoch": 7, "step": 0}
    assert len(more.metrics) == 3 and longer.outcome.epochs == 9


def test_a_stopped_run_goes_on_in_the_middle_of_its_epoch(new_session: Any, two_blobs: Dataset) -> None:
    whole = fit(new_session(), two_blobs)
    session, more = new_session(), new_session()
    asked = iter([False] * 7 + [True] * 99)
    session.stop_when = lambda: next(asked)
    stopped = fit(session, two_blobs)
    assert stopped.outcome.stopped_at == 2
    shutil.copytree(session.folder / "checkpoints", more.folder / "checkpoints")
    again = fit(more, two_blobs)
    assert more.notes["resumed"] == {"epoch": 3, "step": 2}
    assert same(whole, again)


def test_a_torn_first_epoch_is_no_best_for_the_run_that_goes_on(new_session: Any, two_blobs: Dataset) -> None:
    whole = fit(new_session(), two_blobs)
    session, more = new_session(), new_session()
    session.stop_when = lambda: True
    assert fit(session, two_blobs).outcome.stopped_at == 1
    shutil.copytree(session.folder / "checkpoints", more.folder / "checkpoints")
    again = fit(more, two_blobs)
    assert same(whole, again)
    assert without_speed(whole.outcome.history) == without_speed(again.outcome.history)


def test_a_best_that_is_newer_than_the_last_state_is_kept(new_session: Any, two_blobs: Dataset) -> None:
    whole = fit(new_session(), two_blobs)
    session = new_session()
    cut_at(session, 4)
    with pytest.raises(CutError):
        fit(session, two_blobs)
    last = (session.folder / "checkpoints" / "last.safetensors").read_bytes()
    cut_at(session, 4)
    with pytest.raises(CutError):
        fit(session, two_blobs)
    (session.folder / "checkpoints" / "last.safetensors").write_bytes(last)  # killed between the two files
    session.stop_when = lambda: False
    again = fit(session, two_blobs)
    assert same(whole, again)
    assert again.outcome.best_epoch == whole.outcome.best_epoch


def test_what_was_settled_is_taken_over(new_session: Any, two_blobs: Dataset) -> None:
    session = new_session()
    cut_at(session, 4)
    with pytest.raises(CutError):
        fit(session, two_blobs, batch_size=7)
    session.stop_when = lambda: False
    fitted = fit(session, two_blobs, batch_size=16)
    assert fitted.outcome.notes["batch_size"] == 7


def test_a_large_state_is_written_beside_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lepton_jupyter.stages.train.checkpoints.BESIDE_BYTES", 10)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.keep("best", {"a": torch.ones(3)}, {"epoch": 1})
    checkpoints.save({"module": {"a": torch.arange(3)}})
    found = checkpoints.last()
    assert found is not None and found["module"]["a"].tolist() == [0, 1, 2]
    kept = read_checkpoint(tmp_path)
    assert kept is not None and kept[1] == {"epoch": 1}


@pytest.mark.parametrize("n_rows", [1, 2, 8, 9, 33])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_an_epoch_is_the_same_from_any_batch_on(n_rows: int, batch_size: int) -> None:
    x = torch.arange(n_rows)
    batches = InMemory(Rows((x.float().unsqueeze(1),), x, x.numpy()), batch_size, seed=3)
    whole = [target.tolist() for _, target in batches.epoch(2)]
    assert [len(rows) for rows in whole] == [end - start for start, end in batch_bounds(n_rows, batch_size)]
    assert sorted(row for rows in whole for row in rows) == list(range(n_rows))
    for start in range(batches.n_batches + 1):
        assert [target.tolist() for _, target in batches.epoch(2, start)] == whole[start:]
    if n_rows > 8:
        assert [target.tolist() for _, target in batches.epoch(3)] != whole
