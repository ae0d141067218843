"""Real data of the families: small, with holes, words and values on a grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.datasets import load_digits

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Dataset, Store
from tests.pictures import write_digits

EXAMPLES = Path(__file__).parents[3] / "example_notebooks"
REVIEWS = Path(__file__).parents[2] / "reviews.csv"


def _table(name: str) -> pl.DataFrame:
    return pl.read_csv(EXAMPLES / name, null_values="NA")


def _holes(frame: pl.DataFrame, target: str, *, rate: float = 0.1) -> pl.DataFrame:
    """Return the table with values taken away at random."""
    rng = np.random.default_rng(0)
    features = [name for name in frame.columns if name != target]
    return frame.with_columns(
        pl.when(pl.Series(rng.random(frame.height) < rate)).then(None).otherwise(pl.col(name)).alias(name)
        for name in features
    )


def _wdbc() -> Any:
    return _table("breast_cancer.csv").select(
        "mean_radius", "mean_texture", "mean_area", "worst_concavity", "diagnosis"
    )


def _digits() -> Any:
    found = load_digits()
    return found.images[:600, None].astype(np.float32) / 16, found.target[:600]


def _reviews() -> pl.DataFrame:
    """Reviews written for these tests: prose, a word, a number, holes in each."""
    return _holes(pl.read_csv(REVIEWS).drop("order"), "liked", rate=0.05)


def _halves() -> Any:
    """The two halves of a review as two columns."""
    middle = pl.col("review").str.len_chars() // 2
    parts = {"first": pl.col("review").str.slice(0, middle), "rest": pl.col("review").str.slice(middle)}
    return _reviews().select("liked", **parts)


def _heights() -> Any:
    """Penguins' mass and flippers: two targets, words and holes among the features."""
    return _table("penguins.csv").drop_nulls(["body_mass_g", "flipper_length_mm"]).drop("year")


DATA: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "tumours": (_wdbc, {"target": ("diagnosis",)}),
    "tumours with holes": (lambda: _holes(_wdbc(), "diagnosis"), {"target": ("diagnosis",)}),
    "penguins": (lambda: _table("penguins.csv"), {"target": ("species",)}),
    "penguins with holes": (lambda: _holes(_table("penguins.csv"), "species"), {"target": ("species",)}),
    "penguins, numbers with holes": (
        lambda: _holes(_table("penguins.csv").drop("island", "sex"), "species"),
        {"target": ("species",)},
    ),
    "penguins' mass": (_heights, {"target": ("body_mass_g",)}),
    "penguins' mass and flippers": (_heights, {"target": ("body_mass_g", "flipper_length_mm")}),
    "diabetes": (lambda: _table("diabetes.csv"), {"target": ("progression",)}),
    "diabetes with holes": (lambda: _holes(_table("diabetes.csv"), "progression"), {"target": ("progression",)}),
    "digits": (_digits, {}),
    "digits in files": (lambda: partial(write_digits, classes=10, most=60), {}),
    "reviews": (_reviews, {"target": ("liked",), "text": ("review",)}),
    "reviews, prose alone": (lambda: _reviews().select("review", "liked"), {"target": ("liked",), "text": ("review",)}),
    "reviews, two columns of prose": (_halves, {"target": ("liked",), "text": ("first", "rest")}),
}


def make(home: Home, key: str) -> Dataset:
    """Return a dataset by its key, made once a home."""
    name = "d" + str(list(DATA).index(key))
    read, flags = DATA[key]
    try:
        return Store(home).open(name)
    except LeptonError:  # not yet made
        value = read()
        is_of_files = isinstance(value, partial)
        source = str(value(home.root / f"{name}-files")) if is_of_files else "table"
        add(home, Data(name=name, source=source, **flags), None if is_of_files else value)
        return Store(home).open(name)
