"""A session that only remembers, and datasets of a few rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Dataset, Store
from lepton_jupyter.stages.train.job import Job, settle_task
from lepton_jupyter.stages.train.spec import Train

EXAMPLES = Path(__file__).parents[3] / "example_notebooks"


class Recorder:
    """A session in memory."""

    def __init__(self, folder: Path) -> None:
        self.run_id = folder.name
        self.folder = folder
        self.metrics: list[dict[str, float]] = []
        self.notes: dict[str, Any] = {}
        self.results: dict[str, Any] = {}
        self.stop_when: Callable[[], bool] = lambda: False

    def log(self, *, step: int | None = None, **metrics: float) -> None:
        self.metrics.append(metrics)

    def note(self, key: str, value: Any) -> None:
        self.notes[key] = value

    def result(self, **summary: Any) -> None:
        self.results = summary

    def progress(self, done: int, total: int, unit: str) -> None:
        self.done = (done, total, unit)

    devices: tuple[str, ...] = ()

    def telemetry(self, **values: float) -> None:
        pass

    def should_stop(self) -> bool:
        return self.stop_when()


@pytest.fixture
def new_session(tmp_path: Path) -> Callable[[], Recorder]:
    """Make sessions, each with a folder of its own."""
    made: list[Recorder] = []

    def make() -> Recorder:
        folder = tmp_path / f"run{len(made)}"
        folder.mkdir()
        made.append(Recorder(folder))
        return made[-1]

    return make


@pytest.fixture
def session(new_session: Callable[[], Recorder]) -> Recorder:
    return new_session()


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Make a dataset of a table: ``make_dataset(frame, target=("y",))``."""
    home = Home(tmp_path / "home").make()

    def make(value: Any, *, name: str = "few", **flags: Any) -> Dataset:
        is_file = isinstance(value, str)
        spec = Data(name=name, source=str(EXAMPLES / value) if is_file else "table", **flags)
        add(home, spec, None if is_file else value)
        return Store(home).open(name)

    return make


@pytest.fixture
def wdbc(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset("breast_cancer.csv", name="wdbc", target=("diagnosis",))


@pytest.fixture
def penguins(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset("penguins.csv", name="penguins", target=("species",))


@pytest.fixture
def two_blobs(make_dataset: Callable[..., Dataset]) -> Dataset:
    """A binary task of 60 rows and 3 numbers."""
    rows = [
        {"a": i % 7 + (i % 2) * 5.0, "b": i % 5 * 1.0, "c": i % 3 * 1.0, "y": "no" if i % 2 else "yes"}
        for i in range(60)
    ]
    return make_dataset(pl.DataFrame(rows), target=("y",))


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
    return make_dataset(
        pl.DataFrame({"x": [float(i) for i in range(60)], "y": [i * 0.5 for i in range(60)]}), target=("y",)
    )
