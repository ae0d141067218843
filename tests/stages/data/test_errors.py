"""Bad input: each message says what happened, and nothing is left on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.schema import SENTINEL
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Store

GOOD = "a,b,y\n" + "".join(f"{i},{i % 7},{'p' if i % 3 else 'q'}\n" for i in range(40))


def _refused(tmp_path: Path, content: str | bytes | None, **flags: Any) -> str:
    home = Home(tmp_path / "home").make()
    file = tmp_path / "t.csv"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LeptonError) as error:
        add(home, Data(name="x", source=str(file), **{"target": ("y",), **flags}))
    assert Store(home).names() == []
    assert [path for path in home.datasets.iterdir() if path.name != ".lock"] == []
    assert error.value.hint or "Known" in error.value.message
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No file '"),
        ("", "is empty"),
        ("a,b,y\n", "column names and no row"),
        ("y\na\nb\n", "has one column only: 'y'"),
        ('a,b,y\n1,2,p\n"3,4,q\n5,6,7,8,9\n', "cannot be read as csv"),
        ("a,b,y\n1,2,p\n1,2,3,4\n", "cannot be read as csv"),
        (b"PK\x03\x04\x00\x00\x00", "it holds binary data"),
        ("a,a,y\n1,2,p\n", "the column name 'a' comes twice"),
        ("a,,y\n1,2,p\n", "column 2 of 3 has no name"),
        ("a,b,y\n" + "1,2,p\n" * 30, "one class only: 'p' in all 30 rows"),
        ("a,b,y\n1,2,p\n3,4,q\n", "2 rows with a target"),
        ("a,b,y\n1,2,\n3,4,\n", "has no value at all"),
        (f"a,b,y\n1,{SENTINEL},p\n2,z,q\n3,z,p\n4,z,q\n", "stands for a missing value"),
        (
            "a,b,y\n" + "".join(f"{i},{i},row {i}\n" for i in range(30)),
            "30 different values in 30 rows: it is no class",
        ),
        ("a,y\n,p\n,q\n,p\n,q\n", "No feature is left"),
        ("a,b,y\ninf,1,p\n1,2,q\n1,3,p\n2,3,q\n", "infinite in row 0"),
    ],
)
def test_a_table_that_is_none_is_refused_with_the_reason(
    content: str | bytes | None, said: str, tmp_path: Path
) -> None:
    assert said in _refused(tmp_path, content)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"target": ("yy",)}, "No column named 'yy'. Known: a, b, y. Did you mean 'y'?"),
        ({"target": ("y", "y")}, "given twice"),
        ({"target": ("y", "a")}, "a regression needs numbers"),
        ({"ignore": ("bb",)}, "Did you mean 'b'?"),
        ({"id": "ident"}, "No column named 'ident'"),
        ({"group": "aa"}, "Did you mean 'a'?"),
        ({"time": "when"}, "No column named 'when'"),
        ({"id": "y"}, "is the target and cannot be the id too"),
        ({"positive": "pp"}, "No label named 'pp'. Known: p, q. Did you mean 'p'?"),
        ({"target": ("a",), "ignore": ("y",), "positive": "1"}, "has no meaning for the target 'a'"),
        ({"split": "0.6,0.4"}, "has 2 shares; three are wanted"),
        ({"split": "most,some,few"}, "is no list of shares"),
        ({"split": "0.5,0.2,0.2"}, "sums to 0.9, not to 1"),
        ({"split": "0,0.5,0.5"}, "leaves no rows for training"),
        ({"group": "a", "time": "b"}, "cannot both say how to split"),
        ({"time": "y", "target": ("b",)}, "its text cannot be read as a time"),
    ],
)
def test_a_flag_that_cannot_be_is_refused_with_what_is_known(flags: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in _refused(tmp_path, GOOD, **flags)


def test_rows_that_are_too_few_for_the_splits_are_refused(tmp_path: Path) -> None:
    said = _refused(tmp_path, "a,y\n1,p\n2,q\n3,p\n4,q\n", split="0.98,0.01,0.01")
    assert "4 rows are too few for --split 0.98,0.01,0.01: no row is left for validation and test" in said


def test_a_group_that_fills_everything_is_refused(tmp_path: Path) -> None:
    said = _refused(tmp_path, "a,g,y\n" + "".join(f"{i},one,{'pq'[i % 2]}\n" for i in range(30)), group="g")
    assert "1 groups are too few" in said


def test_a_pattern_without_a_match_and_a_folder_are_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    with pytest.raises(LeptonError, match="No file matches"):
        add(home, Data(name="x", source=str(tmp_path / "*.parquet")))
    with pytest.raises(LeptonError, match="is a folder"):
        add(home, Data(name="x", source=str(tmp_path)))


def test_files_of_different_columns_are_not_stacked(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1], "y": [1]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"b": [1], "y": [1]}).write_parquet(tmp_path / "2.parquet")
    with pytest.raises(LeptonError, match="different columns: a, b"):
        add(Home(tmp_path / "home").make(), Data(name="x", source=str(tmp_path / "*.parquet")))


def test_values_that_are_no_table_are_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    spec = Data(name="x", source="v")
    for value, said in (
        (42, "A int cannot be data"),
        ((np.zeros((3, 1)), np.zeros(2)), "x has 3 rows and y has 2"),
        ((1, 2, 3), "A tuple of 3 cannot be data"),
        (np.zeros((0, 2)), "The table has no row"),
        (pl.DataFrame({"a": [object()], "y": [1]}), "holds objects of Python"),
    ):
        with pytest.raises(LeptonError, match=said):
            add(home, spec, value)
    assert Store(home).names() == []


def test_an_unknown_reference_says_what_is_known(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    (tmp_path / "t.csv").write_text(GOOD)
    add(home, Data(name="churn", source=str(tmp_path / "t.csv"), target=("y",), split="0.8,0,0.2"))
    store = Store(home)
    for ref, said in (
        ("chrun", "No dataset named 'chrun'. Known: churn. Did you mean 'churn'?"),
        ("churn@7", "No dataset named 'churn@7'. Known: churn@1."),
        ("churn@champion", "No dataset named 'churn@champion'"),
        ("churn:validation", "No split of churn@1 named 'validation'. Known: train, test."),
    ):
        with pytest.raises(LeptonError) as error:
            store.open(ref)
        assert said in str(error.value)
