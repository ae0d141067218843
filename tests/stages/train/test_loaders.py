"""The notebook's own Datasets and DataLoaders, used as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.engine import Trained, train
from lepton_jupyter.stages.train.loaders import is_loader, loaders_of
from lepton_jupyter.stages.train.spec import Train

N_ROWS = 120


class Net(nn.Module):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Image(nn.Module):
    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Rows(Dataset[tuple[torch.Tensor, int]]):
    """Items made one by one, as a user's own Dataset does."""

    def __init__(self, shape: tuple[int, ...] = (3,), n_classes: int = 2) -> None:
        self.shape, self.n_classes = shape, n_classes
        self.n_read = 0

    def __len__(self) -> int:
        return N_ROWS

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.n_read += 1
        y = index % self.n_classes
        noise = torch.randn(self.shape, generator=torch.Generator().manual_seed(index))
        return noise * 0.3 + y, y


class Stream(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for index in range(N_ROWS):
            x = torch.full((2,), index / N_ROWS)
            yield x, x.sum()


def run(session: Any, model: Any, value: Any, **flags: Any) -> Trained:
    spec = Train(model="Net", data="mine", **({"epochs": 8, "lr": 5e-2} | flags))
    return train(session, model, loaders_of(value, spec), spec)


@pytest.mark.slow
def test_a_dataset_is_split_and_ends_in_a_version_that_can_be_served(session: Any) -> None:
    trained = run(session, Net, Rows())
    assert trained.card.is_deployable, trained.card.why_not
    assert trained.metrics["val_accuracy"] > 0.9
    assert trained.card.trained_on is None and "own loader" in trained.card.notes["remark"]
    assert trained.bundle.schema.classes == ("0", "1")


@pytest.mark.slow
def test_images_of_two_loaders_train_and_are_judged_by_the_second(session: Any) -> None:
    pair = (DataLoader(Rows((1, 4, 4), 3), batch_size=16, shuffle=True), DataLoader(Rows((1, 4, 4), 3), batch_size=50))
    trained = run(session, Image, pair)
    assert trained.card.is_deployable, trained.card.why_not
    assert trained.bundle.schema.tensor_shape == (1, 4, 4) and len(trained.bundle.schema.classes) == 3
    assert trained.metrics["val_accuracy"] > 0.8
    assert session.notes["batch_size"] == 16


@pytest.mark.slow
def test_a_stream_of_unknown_length_trains_a_regression(session: Any) -> None:
    trained = run(session, Net, DataLoader(Stream(), batch_size=20), epochs=3)
    assert trained.card.is_deployable, trained.card.why_not
    assert trained.bundle.schema.task == "regression"
    assert "last epoch is the best" in trained.card.notes["remark"]


def test_tensors_need_no_loader(session: Any) -> None:
    x, y = torch.randn(N_ROWS, 3), torch.arange(N_ROWS) % 2
    spec = Train(model="Net", data="mine")
    loaders = loaders_of(TensorDataset(x, y), spec)
    assert loaders.splits() == ("train", "validation", "test")
    trained = train(session, Net, loaders, spec)
    assert "batch_size" in session.notes and trained.metrics["val_accuracy"] >= 0


def test_the_same_seed_gives_the_same_training(new_session: Any) -> None:
    losses = [run(new_session(), Net, DataLoader(Rows(), batch_size=16, shuffle=True), epochs=3) for _ in range(2)]
    assert losses[0].history["train_loss"] == losses[1].history["train_loss"]


def test_a_loader_with_workers_is_stopped_without_harm(session: Any) -> None:
    session.stop_when = lambda: len(session.metrics) >= 1
    trained = run(session, Net, DataLoader(Rows(), batch_size=16, num_workers=1), epochs=50)
    assert trained.card.stopped_at is not None and trained.card.stopped_at < 50


@pytest.mark.parametrize(
    ("value", "flags", "said"),
    [
        (DataLoader([torch.zeros(3)] * 4), {}, "A batch of 'mine' is a Tensor"),
        (DataLoader(Rows(), batch_size=4), {"task": "regression", "batch_size": 8}, "--batch-size means nothing for"),
        (TensorDataset(torch.zeros(9, 2), torch.zeros(9)), {"task": "binary"}, "--task binary wants each y"),
        (DataLoader(Rows(), batch_size=4), {"class_weight": "balanced"}, "its targets are known only batch by batch"),
    ],
)
def test_what_is_no_pair_or_does_not_fit_is_said(session: Any, value: Any, flags: Any, said: str) -> None:
    with pytest.raises(LeptonError, match=said) as caught:
        run(session, Net, value, **flags)
    assert caught.value.hint


def test_what_is_a_loader_is_known() -> None:
    loader = DataLoader(Rows())
    assert is_loader(loader) and is_loader((loader, Rows()))
    assert not is_loader((loader, 3)) and not is_loader(torch.zeros(3))
