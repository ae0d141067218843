from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.serving.scorer import Scorer
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.saving import save

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
TEXTS = ["island", "sex"]


def saved(model: Any, folder: Path, **given: Any) -> Bundle:
    return save(model=model, name="mine", run_id="abc", folder=folder, **({"dataset": None} | given))


def fitted_pipeline(penguins: Dataset) -> Any:
    prepare = ColumnTransformer(
        [
            ("n", SimpleImputer(), NUMBERS),
            (
                "t",
                make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
                TEXTS,
            ),
        ]
    )
    frame = penguins.table().to_pandas()
    frame[TEXTS] = frame[TEXTS].astype(object).where(frame[TEXTS].notna(), np.nan)
    return make_pipeline(prepare, GradientBoostingClassifier(n_estimators=10)).fit(
        frame[NUMBERS + TEXTS], frame["species"]
    )


def test_a_fitted_pipeline_is_registered_as_it_is(tmp_path: Path, penguins: Dataset) -> None:
    model = fitted_pipeline(penguins)
    bundle = saved(model, tmp_path / "bundle", dataset=penguins)
    card = bundle.card
    assert card.is_deployable, card.why_not
    assert card.trained_on is None and card.notes["remark"] == "training rows unknown"
    frame = penguins.table("test").to_pandas()
    frame[TEXTS] = frame[TEXTS].astype(object).where(frame[TEXTS].notna(), np.nan)
    schema = bundle.schema
    assert {column.name for column in schema.columns} == {*NUMBERS, *TEXTS}
    assert "year" in schema.dropped
    from lepton_jupyter.stages.data.packing import pack_frame

    scores = Scorer(bundle).score(pack_frame(schema, penguins.table("test")))
    assert np.allclose(scores.probability, model.predict_proba(frame[NUMBERS + TEXTS]), atol=1e-5)


def test_an_example_table_gives_the_columns(tmp_path: Path, penguins: Dataset) -> None:
    frame = penguins.table().to_pandas()[NUMBERS + TEXTS]
    bundle = saved(fitted_pipeline(penguins), tmp_path / "bundle", example=frame)
    assert bundle.card.is_deployable, bundle.card.why_not
    assert bundle.schema.classes == ("Adelie", "Chinstrap", "Gentoo")
    assert [column.name for column in bundle.schema.columns] == NUMBERS + TEXTS


def test_a_trained_module_takes_raw_columns_and_is_not_changed(tmp_path: Path, wdbc: Dataset) -> None:
    net = nn.Sequential(nn.BatchNorm1d(30), nn.Linear(30, 2))
    net.train()
    torch.manual_seed(7)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    bundle = saved(net, tmp_path / "bundle", dataset=wdbc)
    assert torch.equal(torch.rand(1), drawn)
    assert net.training and int(net[0].num_batches_tracked) == 0
    assert bundle.card.is_deployable, bundle.card.why_not
    assert bundle.schema.classes == ("B", "M")


def test_an_example_array_makes_columns_and_classes_of_its_outputs(tmp_path: Path) -> None:
    bundle = saved(nn.Linear(3, 4), tmp_path / "a", example=np.zeros((5, 3)))
    assert [column.name for column in bundle.schema.columns] == ["x0", "x1", "x2"]
    assert bundle.schema.task == "multiclass" and bundle.schema.classes == ("0", "1", "2", "3")
    one = saved(nn.Linear(3, 1), tmp_path / "b", example=torch.zeros(1, 3))
    assert one.schema.task == "regression" and one.card.is_deployable
    image = saved(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)),
        tmp_path / "c",
        example=torch.zeros(2, 1, 4, 4),
    )
    assert image.schema.tensor_shape == (1, 4, 4) and image.card.is_deployable


def test_an_estimators_labels_and_numbers_are_kept(tmp_path: Path) -> None:
    x = np.arange(20.0).reshape(10, 2)
    labels = saved(LogisticRegression().fit(x, np.arange(10) > 4), tmp_path / "a", example=x)
    assert labels.schema.class_kind == "boolean" and labels.schema.classes == ("False", "True")
    numbers = saved(LinearRegression().fit(x, x[:, 0]), tmp_path / "b", example=pd.DataFrame(x, columns=["u", "v"]))
    assert numbers.schema.task == "regression"
    assert [column.name for column in numbers.schema.columns] == ["u", "v"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LogisticRegression(), "'mine' is not fitted yet"),
        (LogisticRegression, "'mine' is a class, not a fitted estimator"),
        (nn.Linear, "'mine' is a class, not a trained module"),
        (nn.Linear(7, 2), r"'mine' does not take a float32 tensor \[64, 30\], the raw columns of 'wdbc@1'"),
        ("text", "'mine' is a str, which is no model"),
        (LogisticRegression().fit([[0.0], [1.0]], ["x", "y"]), "was fitted on 1 unnamed numbers"),
        (LogisticRegression().fit(pd.DataFrame({"q": [0.0, 1.0]}), ["B", "M"]), "has not as features: q"),
        (LinearRegression().fit(np.zeros((2, 30)), [0.0, 1.0]), "is no classifier"),
        (LogisticRegression().fit(np.zeros((2, 30)), ["x", "y"]), "knows the class 'x'"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    tmp_path: Path, wdbc: Dataset, model: Any, message: str
) -> None:
    with pytest.raises(LeptonError, match=message):
        saved(model, tmp_path / "bundle", dataset=wdbc)
    assert not (tmp_path / "bundle").exists()


def test_a_module_of_numbers_does_not_take_text(tmp_path: Path, penguins: Dataset) -> None:
    with pytest.raises(LeptonError, match="'mine' takes numbers, and 'penguins@1' has text: island"):
        saved(nn.Linear(7, 3), tmp_path / "bundle", dataset=penguins)


def test_without_data_and_example_the_columns_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(LeptonError, match="its columns must be known"):
        saved(nn.Linear(1, 1), tmp_path / "bundle")
