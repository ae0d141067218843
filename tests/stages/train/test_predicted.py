"""A version keeps what it says of known rows: monitoring compares its answers with that."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl
from sklearn.linear_model import LinearRegression, LogisticRegression

from lepton_jupyter.formats.bundle import PREDICTED, Bundle
from lepton_jupyter.formats.predicted import PREDICTION
from lepton_jupyter.formats.profile import Profile
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.spec import Train


def _predicted(bundle: Bundle) -> Profile:
    return msgspec.json.decode(bundle.read(PREDICTED), type=Profile)


def test_a_classifiers_bundle_counts_its_predicted_classes(session: Any, penguins: Dataset) -> None:
    trained = train(session, LogisticRegression(max_iter=500), penguins, Train(model="M", data=penguins.ref))
    column = _predicted(trained.bundle).texts[PREDICTION]
    assert set(column.categories) == {"Adelie", "Chinstrap", "Gentoo"}
    assert sum(column.counts) == sum(penguins.record.split_rows.values())  # too few unseen rows: all of them


def test_a_regressions_bundle_profiles_unseen_rows_where_there_are_enough(session: Any, make_dataset: Any) -> None:
    frame = pl.DataFrame({"x": [float(i) for i in range(1_000)], "y": [3.0 * i for i in range(1_000)]})
    dataset = make_dataset(frame, target=("y",))
    trained = train(session, LinearRegression(), dataset, Train(model="M", data=dataset.ref))
    profile = _predicted(trained.bundle)
    rows = dataset.record.split_rows
    assert profile.n_rows == rows["validation"] + rows["test"] == 400
    column = profile.numbers[PREDICTION]
    assert column.minimum is not None and column.maximum is not None
    assert 0 <= column.minimum < 300 and 2_700 < column.maximum < 3_000
