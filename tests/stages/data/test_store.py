"""Versions are whole or not there, whoever writes at the same time and whatever the disk says."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from lepton_jupyter.core.paths import Home
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Store

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np, polars as pl
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rng = np.random.default_rng(0)
frame = pl.DataFrame({"x": rng.random(20_000), "y": rng.random(20_000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    add(Home(Path(sys.argv[1])), Data(name="big", source="frame", target=("y",)), frame)
except LeptonError as error:
    print(error)
"""


def _frame(n: int) -> pl.DataFrame:
    return pl.DataFrame({"x": range(n), "y": [0.5 * i for i in range(n)]})


def test_writers_at_once_make_one_version_of_equal_data_and_one_number_each(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    spec = Data(name="d", source="frame", target=("y",))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: add(home, spec, _frame(50)), range(8)))
        assert sorted(is_new for _, is_new in found) == [False] * 7 + [True]
        found = list(pool.map(lambda n: add(home, spec, _frame(n)), range(60, 64)))
    assert sorted(record.version for record, _ in found) == [2, 3, 4, 5]
    assert len(Store(home).versions("d")) == 5


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(home.root)], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"Dataset 'big' cannot be written to '{home.datasets}'" in done.stdout
    assert [path.name for path in home.datasets.iterdir()] == [".lock"]


def test_what_a_killed_writer_left_is_not_seen_and_swept_by_the_next(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    left = home.datasets / "d" / ".1.abcd.tmp"
    left.mkdir(parents=True)
    assert Store(home).names() == []
    record, _ = add(home, Data(name="d", source="frame", target=("y",)), _frame(30))
    assert record.version == 1
    assert not left.exists()


def test_reading_a_split_gives_its_rows_and_nothing_else(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    add(home, Data(name="d", source="frame", target=("y",), id="x"), _frame(50).with_columns(z=pl.col("y") % 3))
    dataset = Store(home).open("dataset/d@1:test")
    assert (dataset.ref, dataset.split) == ("d@1", "test")
    parts = [dataset.table(split) for split in dataset.splits()]
    assert sorted(pl.concat(parts)["x"].to_list()) == list(range(50))
    assert dataset.ids("test") == dataset.table("test")["x"].to_list()
    assert [column.name for column in dataset.schema.columns] == ["z"]
    assert dataset.packed("test").num[:, 0].tolist() == dataset.table("test")["z"].to_list()
    assert dataset.profile().n_rows == dataset.record.split_rows["train"]
