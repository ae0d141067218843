"""Data that is larger than memory: read from disk, some row groups at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from lepton_jupyter.core.memory import memory_limit
from lepton_jupyter.stages.data.row_groups import RowGroups, Some
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train import streaming
from lepton_jupyter.stages.train.batches import Batch, InMemory
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.feed import Rows
from lepton_jupyter.stages.train.spec import Train
from tests.stages.train.test_resume import CutError, cut_at, fit, same, without_speed

N_ROWS = 3000


class Net(nn.Module):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Small(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a dataset of three thousand rows be larger than memory, and lie in a dozen row groups."""
    monkeypatch.setenv("LEPTON_MEMORY_LIMIT", "200K")
    for name in ("LEAST_ROWS", "MOST_ROWS"):
        monkeypatch.setattr(f"lepton_jupyter.stages.data.row_groups.{name}", 250)


@pytest.fixture
def table(make_dataset: Any) -> Dataset:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, N_ROWS))
    frame = {"row": np.arange(N_ROWS) * 1.0, "a": a, "b": b, "kind": rng.choice(["x", "y", "z"], N_ROWS)}
    return make_dataset(pl.DataFrame(frame | {"y": np.where(a + b > 0, "up", "down")}), target=("y",))


@pytest.fixture
def images(make_dataset: Any) -> Dataset:
    rng = np.random.default_rng(0)
    y = np.arange(N_ROWS) % 3
    return make_dataset((rng.normal(size=(N_ROWS, 1, 3, 3)) + y[:, None, None, None], y), name="images")


def numbered(some: Some) -> Batch:
    """Return the rows' numbers, and their numbers."""
    rows = torch.from_numpy(some.frame["row"].to_numpy().copy())
    return (rows,), rows


def test_a_dataset_is_large_where_it_takes_half_of_the_memory(table: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert table.is_large
    monkeypatch.setenv("LEPTON_MEMORY_LIMIT", "1G")
    assert memory_limit() == 2**30
    assert not Dataset(table.folder, table.record).is_large


def test_row_groups_hold_every_row_of_a_split_once(table: Dataset) -> None:
    groups = RowGroups(table, "train")
    assert len(groups.counts) == 12
    found = pl.concat([groups.read(place).frame for place in range(12)])
    whole = pl.read_parquet(table.folder / "table.parquet").filter(pl.Series(table.is_of("train")))
    assert found.equals(whole) and table.table("train").equals(whole)
    some = table.spread("train", 10)
    assert some is not None
    assert table.table("train", some).equals(whole[some])


def test_rows_at_few_places_are_of_few_groups(table: Dataset) -> None:
    counts = RowGroups(table, "train").counts
    some = table.spread("train", 40, places=4)
    assert some is not None and len(some) == 40 and (np.diff(some) > 0).all()
    assert (some[0], some[-1]) == (0, counts.sum() - 1)
    assert len(np.unique(np.searchsorted(np.cumsum(counts), some, side="right"))) <= 8 < len(counts)


def test_rows_of_tensors_are_read_by_their_positions(images: Dataset) -> None:
    groups, some = RowGroups(images, "test"), images.spread("test", 7)
    assert some is not None and images.is_large
    assert np.array_equal(images.tensors("test", some), images.tensors("test")[some])
    read = np.concatenate(
        [tensor for group in range(len(groups.counts)) if (tensor := groups.read(group).tensor) is not None]
    )
    assert np.array_equal(read, images.tensors("test"))


@pytest.mark.parametrize("batch_size", [7, 64, 250, 600, 1799, 5000])
def test_an_epoch_has_every_row_once_and_is_the_same_from_any_batch_on(table: Dataset, batch_size: int) -> None:
    batches = streaming.Streamed(RowGroups(table, "train"), numbered, batch_size, 3, torch.device("cpu"))
    whole = [target.tolist() for _, target in batches.epoch(2)]
    n = batches.n_rows
    x = torch.arange(n)
    like = InMemory(Rows((x,), x, x.numpy()), batch_size, seed=3)
    assert [len(rows) for rows in whole] == [len(target) for _, target in like.epoch(2)]
    assert len(whole) == batches.n_batches
    assert sorted(row for rows in whole for row in rows) == table.table("train")["row"].to_list()
    for start in {0, 1, len(whole) // 2, len(whole) - 1, len(whole)}:
        assert [target.tolist() for _, target in batches.epoch(2, start)] == whole[start:]
    other = [target.tolist() for _, target in batches.epoch(3)]
    assert other != whole
    flat = [row for rows in whole for row in rows]
    assert np.abs(np.corrcoef(flat, np.arange(n))[0, 1]) < 0.9  # no longer in the table's order


def test_validation_rows_come_in_their_own_order(table: Dataset) -> None:
    batches = streaming.Streamed(RowGroups(table, "validation"), numbered, 100, None, torch.device("cpu"))
    rows = [row for _, target in batches.epoch(1) for row in target.tolist()]
    assert rows == table.table("validation")["row"].to_list()


def test_an_epoch_that_is_left_early_leaves_no_thread(table: Dataset) -> None:
    import threading

    batches = streaming.Streamed(RowGroups(table, "train"), numbered, 64, 3, torch.device("cpu")).epoch(1)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rows")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table", "images"])
def test_a_run_on_streamed_rows_ends_in_a_version(session: Any, request: Any, name: str) -> None:
    dataset = request.getfixturevalue(name)
    spec = Train(model="model", data=dataset.ref, epochs=6, lr=5e-2)
    trained = train(session, Net if name == "table" else Small, dataset, spec)
    assert trained.card.is_deployable, trained.card.why_not
    assert trained.metrics["val_accuracy"] > 0.8
    assert "_table" not in vars(dataset)  # nobody read it whole


def test_streamed_rows_train_as_well_as_rows_in_memory(
    new_session: Any, table: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = fit(new_session(), table, Net, batch_size=64)
    monkeypatch.setenv("LEPTON_MEMORY_LIMIT", "1G")
    kept = fit(new_session(), Dataset(table.folder, table.record), Net, batch_size=64)
    assert streamed.outcome.metrics["val_loss"] == pytest.approx(kept.outcome.metrics["val_loss"], abs=0.03)


def test_a_cut_off_run_on_streamed_rows_ends_as_if_it_had_not_been(
    new_session: Any, table: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lepton_jupyter.stages.train.strides.STRIDE_S", 0.0)
    monkeypatch.setattr("lepton_jupyter.stages.train.checkpoints.PAUSE_S", 0.0)
    monkeypatch.setattr("lepton_jupyter.stages.train.checkpoints.COST_SHARE", 1e9)
    whole = fit(new_session(), table, Net, batch_size=300)
    session = new_session()
    cut_at(session, 10)
    with pytest.raises(CutError):
        fit(session, table, Net, batch_size=300)
    session.stop_when = lambda: False
    again = fit(session, table, Net, batch_size=300)
    assert session.notes["resumed"] == {"epoch": 2, "step": 3}
    assert same(whole, again)
    assert without_speed(whole.outcome.history) == without_speed(again.outcome.history)


def test_streamed_validation_that_does_not_fit_goes_in_smaller_parts(new_session: Any, table: Dataset) -> None:
    class Wide(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.training and len(x) > 100:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    wide, plain = fit(new_session(), table, Wide, epochs=2), fit(new_session(), table, Net, epochs=2)
    assert wide.outcome.history["val_loss"] == pytest.approx(plain.outcome.history["val_loss"], rel=1e-5)
