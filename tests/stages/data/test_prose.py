"""Columns of prose in a dataset: chosen by a flag, never categories, profiled by their words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats import profile as profiles
from lepton_jupyter.formats.records import DatasetRecord
from lepton_jupyter.formats.schema import SENTINEL
from lepton_jupyter.formats.values import MAX_TEXT
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Store
from lepton_jupyter.stages.monitor.drift import cells_of

REVIEWS = Path(__file__).parents[2] / "reviews.csv"
Add = Callable[..., DatasetRecord]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").make()


@pytest.fixture
def added(home: Home) -> Add:
    """Make a version of the reviews: ``added(frame, text=("review",))``."""

    def make(frame: pl.DataFrame | None = None, **flags: Any) -> DatasetRecord:
        spec = Data(name="reviews", source="reviews", **{"target": ("liked",), "id": "order"} | flags)
        return add(home, spec, pl.read_csv(REVIEWS) if frame is None else frame)[0]

    return make


def test_free_text_is_ignored_until_a_flag_names_it(added: Add) -> None:
    before = added()
    assert "review" in before.schema.dropped
    assert "Say --text review to use it" in " ".join(found.text for found in before.findings)
    after = added(text=("review",))
    assert (before.version, after.version) == (1, 2)
    column = after.schema.prose[0]
    assert (column.name, column.kind, column.categories, column.has_missing) == ("review", "text", (), True)
    assert [one.name for one in after.schema.txt] == ["review", "bought_by"]
    assert [one.name for one in after.schema.categorical] == ["bought_by"]
    assert "review" not in after.schema.dropped
    assert not [found for found in after.findings if found.check in ("free_text", "id_like", "many_values")]


def test_short_texts_that_repeat_may_be_prose_too(added: Add) -> None:
    found = added(text=("bought_by",))
    assert [one.name for one in found.schema.prose] == ["bought_by"]


def test_a_dataset_without_prose_is_the_one_that_it_was_before_the_flag(added: Add, home: Home) -> None:
    record = added()
    assert "text" not in record.flags
    assert added().version == 1


def test_the_example_shows_the_beginning_of_a_text_of_middle_length(added: Add) -> None:
    frame = pl.read_csv(REVIEWS).with_columns(review=pl.lit("word " * 100) + pl.col("order"))
    shown = added(frame, text=("review",)).schema.example["review"]
    assert isinstance(shown, str) and len(shown) == 200


def test_prose_is_profiled_by_how_many_words_it_has(added: Add, home: Home) -> None:
    record = added(text=("review",))
    dataset = Store(home).open("reviews")
    reference = dataset.profile()
    assert "review" not in reference.texts and "bought_by" in reference.texts
    words = [len(text.split()) for text in dataset.table("train")["review"].drop_nulls()]
    assert reference.numbers["review"].mean == pytest.approx(np.mean(words))
    packed = dataset.packed("test")
    window = profiles.count(reference, record.schema, packed)
    assert window.numbers["review"].missing == (packed.txt[:, 0] == SENTINEL).sum()
    longer = packed._replace(txt=packed.txt.copy())
    longer.txt[:, 0] = "word " * 300
    shifted = profiles.psi(reference, profiles.count(reference, record.schema, longer))["review"]
    assert shifted.psi > 1 > profiles.psi(reference, window)["review"].psi
    assert len(cells_of(reference, record.schema, packed)["review"].codes) == packed.n_rows


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"text": ("reviw",)}, "Did you mean 'review'"),
        ({"text": ("days",)}, "of type Int64; text is wanted"),
        ({"text": ("liked",)}, "named by --text and by --target"),
        ({"text": ("order",)}, "named by --text and by --id"),
        ({"text": ("review",), "ignore": ("review",)}, "named by --text and by --ignore"),
    ],
)
def test_a_flag_that_names_no_prose_is_refused(added: Add, flags: dict[str, Any], said: str) -> None:
    with pytest.raises(LeptonError) as caught:
        added(**flags)
    assert said in str(caught.value) + caught.value.hint


def test_a_text_that_no_request_could_bring_is_refused(added: Add) -> None:
    frame = pl.read_csv(REVIEWS)
    long = pl.when(pl.int_range(pl.len()) == 5).then(pl.lit("x" * (MAX_TEXT + 1))).otherwise(pl.col("review"))
    with pytest.raises(LeptonError, match="has a text of 100,001 characters in row 5; 100,000 are the most"):
        added(frame.with_columns(review=long), text=("review",))
