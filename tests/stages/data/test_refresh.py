"""A dataset's source read again: what grows keeps what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.records import DatasetRecord
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.refresh import refresh, source_of
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Store

ELSEWHERE = Path("/")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store in a home without processes."""
    return Store(Home(tmp_path / "home").make())


def _rows(n_rows: int, *, seed: int = 0, share: float = 0.3) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    labels = np.where(random.random(n_rows) < share, "ill", "well")
    return pl.DataFrame({"a": random.normal(size=n_rows), "b": random.normal(size=n_rows), "y": labels})


def _made(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, source: str = "rows.csv") -> DatasetRecord:
    """Make a dataset from a path that is relative to `folder`, then go elsewhere, as a scheduled run is."""
    monkeypatch.chdir(folder)
    record, _ = add(store.home, Data(name="d", source=source, target=("y",)))
    monkeypatch.chdir(ELSEWHERE)
    return record


def test_a_relative_source_is_found_from_elsewhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rows(100).write_csv(tmp_path / "rows.csv")
    record = _made(store, tmp_path, monkeypatch)
    assert source_of(record, folder=ELSEWHERE) == str(tmp_path / "rows.csv")
    again, is_new = refresh(store.home, record, folder=ELSEWHERE)
    assert (again.version, again.content_hash, is_new) == (1, record.content_hash, False)


def test_known_rows_keep_their_splits_and_new_ones_are_drawn(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _rows(100)
    first.write_csv(tmp_path / "rows.csv")
    record = _made(store, tmp_path, monkeypatch)
    pl.concat([first, _rows(60, seed=1)]).write_csv(tmp_path / "rows.csv")
    grown, is_new = refresh(store.home, record, folder=ELSEWHERE)
    assert is_new
    assert (grown.version, grown.n_rows, grown.n_new_rows, grown.flags_hash) == (2, 160, 60, record.flags_hash)
    assert (store.open("d@2").places()[:100] == store.open("d@1").places()).all()
    assert set(store.open("d@2").places()[100:]) == {0, 1, 2}


def test_a_class_that_is_no_longer_the_rarer_stays_the_positive_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _rows(100, share=0.3)
    first.write_csv(tmp_path / "rows.csv")
    record = _made(store, tmp_path, monkeypatch)
    assert record.schema.positive == "ill"
    pl.concat([first, _rows(300, seed=1, share=0.9)]).write_csv(tmp_path / "rows.csv")
    grown, _ = refresh(store.home, record, folder=ELSEWHERE)
    assert grown.schema.positive == "ill"
    said, _ = add(store.home, Data(name="d", source=str(tmp_path / "rows.csv"), target=("y",), positive="well"))
    assert said.schema.positive == "well"  # whoever says it has it
    unsaid, _ = add(store.home, Data(name="d", source=str(tmp_path / "rows.csv"), target=("y",)))
    assert unsaid.schema.positive == "well"  # asked for anew: the rarer one


def test_the_files_of_a_pattern_are_found_from_elsewhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rows(50).write_csv(tmp_path / "jan.csv")
    record = _made(store, tmp_path, monkeypatch, "*.csv")
    _rows(50, seed=1).write_csv(tmp_path / "mar.csv")
    grown, _ = refresh(store.home, record, folder=ELSEWHERE)
    assert (grown.version, grown.n_new_rows) == (2, 50)
    for path in tmp_path.glob("*.csv"):
        path.unlink()
    with pytest.raises(LeptonError, match="is gone: there is no"):
        source_of(grown, folder=ELSEWHERE)


def test_a_source_that_is_gone_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _rows(100).write_csv(tmp_path / "rows.csv")
    record = _made(store, tmp_path, monkeypatch)
    (tmp_path / "rows.csv").unlink()
    with pytest.raises(LeptonError) as caught:
        source_of(record, folder=ELSEWHERE)
    assert str(caught.value) == (
        f"The source of dataset d@1 is gone: there is no '{tmp_path}/rows.csv'.\n"
        "Put it back, or make the dataset of another file: %lepton data d PATH --target y"
    )


def test_a_variable_cannot_be_read_again(store: Store) -> None:
    record, _ = add(store.home, Data(name="d", source="frame", target=("y",)), _rows(100))
    with pytest.raises(LeptonError) as caught:
        source_of(record, folder=ELSEWHERE)
    assert str(caught.value) == (
        "Dataset d@1 was made from the variable 'frame': there is no file that could be read again.\n"
        "Write it to a file and make the dataset of that: %lepton data d d.csv --target y"
    )
