"""Splits are drawn once and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.keys import row_keys
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Dataset, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store in a home without processes."""
    return Store(Home(tmp_path / "home").make())


def _table(n: int, start: int = 0) -> pl.DataFrame:
    i = np.arange(start, start + n)
    return pl.DataFrame(
        {"id": i, "x": (i * 37 % 101) / 7, "g": i % 23, "t": i, "y": np.where(i % 4 == 0, "rare", "often")}
    )


def _split(store: Store, frame: pl.DataFrame, **flags: Any) -> Dataset:
    add(store.home, Data(name="d", source="frame", **{"target": ("y",), **flags}), frame)
    return store.open("d")


def _by_key(dataset: Dataset) -> dict[int, int]:
    return dict(zip(dataset.row_keys().tolist(), dataset.places().tolist(), strict=True))


def test_the_same_seed_gives_the_same_split_whatever_the_order_of_rows(store: Store) -> None:
    first = _by_key(_split(store, _table(200)))
    shuffled = _table(200).sample(fraction=1.0, shuffle=True, seed=3)
    store.delete("d", 1)
    assert _by_key(_split(store, shuffled)) == first
    assert _by_key(_split(store, _table(200), seed=1)) != first


def test_strata_keep_their_shares(store: Store) -> None:
    dataset = _split(store, _table(400))
    assert dataset.record.split_rows == {"train": 240, "validation": 80, "test": 80}
    assert [round(float(dataset.targets(split).mean()), 3) for split in dataset.splits()] == [0.25, 0.25, 0.25]


@pytest.mark.parametrize("flags", [{}, {"id": "id"}, {"group": "g"}, {"target": ("x",)}])
def test_a_new_version_keeps_known_rows_and_draws_only_new_ones(flags: dict[str, Any], store: Store) -> None:
    before = _by_key(_split(store, _table(200), **flags))
    _split(store, _table(100), **flags)  # rows go and come back
    dataset = _split(store, _table(400).sample(fraction=1.0, shuffle=True, seed=1), **flags)
    after = _by_key(dataset)
    assert {key: after[key] for key in before} == before
    assert dataset.record.n_new_rows == 200
    shares = np.bincount(dataset.places()) / 400
    assert np.abs(shares - [0.6, 0.2, 0.2]).max() < 0.05


def test_rows_known_by_id_stay_when_their_values_change(store: Store) -> None:
    before = _by_key(_split(store, _table(100), id="id"))
    after = _by_key(_split(store, _table(100).with_columns(x=pl.col("x") + 1), id="id"))
    assert after == before


def test_rows_that_come_one_by_one_still_reach_every_split(store: Store) -> None:
    for n in range(60, 80):
        dataset = _split(store, _table(n))
    assert np.abs(np.bincount(dataset.places()) / 79 - [0.6, 0.2, 0.2]).max() < 0.04


def test_equal_rows_have_keys_of_their_own() -> None:
    frame = pl.DataFrame({"a": [1, 1, 2, 1], "b": ["x", "x", None, "x"]})
    keys = row_keys(frame)
    assert len(set(keys.tolist())) == 4
    assert row_keys(frame.select("b", "a")).tolist() == keys.tolist()
    assert row_keys(frame.with_columns(pl.col("a").cast(pl.Float64))).tolist() == keys.tolist()
    assert row_keys(frame.with_columns(pl.Series("a", [1, 1, 3, 1])))[2] != keys[2]


def test_row_keys_do_not_change_from_one_release_to_the_next() -> None:
    frame = pl.DataFrame({"a": [1, None], "b": ["x", "y"], "c": [True, False]})
    assert row_keys(frame).tolist() == [16727639169337960688, 16792965846178392091]  # what lies on disk in users' homes


def test_groups_stay_in_one_split(store: Store) -> None:
    dataset = _split(store, _table(300), group="g")
    assert dataset.record.split_how == "grouped"
    groups = [set(dataset.table(split)["g"].to_list()) for split in dataset.splits()]
    assert sum(map(len, groups)) == 23
    assert "g" not in [column.name for column in dataset.schema.columns]


def test_time_orders_the_splits_and_later_versions_keep_the_cuts(store: Store) -> None:
    dataset = _split(store, _table(100).sample(fraction=1.0, shuffle=True, seed=1), time="t", id="id")
    assert dataset.record.split_how == "time"
    train, validation, test = (dataset.table(split)["t"] for split in dataset.splits())
    assert int(train.max()) < int(validation.min()) <= int(validation.max()) < int(test.min())  # type: ignore[arg-type]
    later = _split(store, _table(140), time="t", id="id")
    assert later.table("train")["t"].max() == train.max()
    assert later.table("test")["t"].max() == 139


def test_rows_of_one_time_stay_in_one_split(store: Store) -> None:
    dataset = _split(store, _table(100).with_columns(t=pl.col("t") // 9), time="t", id="id")
    times = [set(dataset.table(split)["t"].to_list()) for split in dataset.splits()]
    assert not (times[0] & times[1] or times[1] & times[2])


def test_dates_as_text_can_order_rows(store: Store) -> None:
    frame = _table(50).with_columns(
        when=pl.date(2026, 1, 1).dt.offset_by(pl.col("t").cast(pl.String) + "d").cast(pl.String)
    )
    dataset = _split(store, frame, time="when", ignore=("t",), id="id")
    assert dataset.table("train")["t"].to_list() == list(range(30))


def test_no_split_is_all_training_and_no_validation_is_none(store: Store) -> None:
    assert _split(store, _table(50), split="none").record.split_rows == {"train": 50}
    assert _split(store, _table(50), split="0.8,0,0.2").splits() == ("train", "test")
