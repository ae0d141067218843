"""XGBoost and LightGBM: what is taken over as it is, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.deploy.scoring import LoadedModel
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.saving import save
from lepton_jupyter.stages.train.spec import Train

xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")

X = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
CODES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
XGB = {"nthread": 1, "max_depth": 3}
LGB = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 3}


def saved(model: Any, folder: Path, **given: Any) -> Bundle:
    return save(model=model, name="mine", run_id="abc", folder=folder, **({"dataset": None} | given))


def probabilities(bundle: Bundle) -> Any:
    assert bundle.card.is_deployable, bundle.card.why_not
    assert bundle.schema.classes == ("0", "1", "2")
    rows = [{f"x{place}": float(value) for place, value in enumerate(row)} for row in X]
    table = LoadedModel(bundle).predict(rows)
    return table[[f"probability_{code}" for code in range(3)]].to_numpy()


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
def test_a_booster_of_classes_gives_probabilities_whatever_it_says_itself(tmp_path: Path, objective: str) -> None:
    rows = xgboost.DMatrix(X, CODES)
    booster = xgboost.train(XGB | {"objective": objective, "num_class": 3}, rows, 10)
    margins = booster.predict(rows, output_margin=True)
    wanted = np.exp(margins) / np.exp(margins).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities(saved(booster, tmp_path / "a", example=X)), wanted, atol=1e-6)


@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_a_booster_of_lightgbm_is_taken_over_with_its_classes(tmp_path: Path, objective: str) -> None:
    booster = lightgbm.train(LGB | {"objective": objective, "num_class": 3}, lightgbm.Dataset(X, CODES), 10)
    found = probabilities(saved(booster, tmp_path / "a", example=X))
    np.testing.assert_allclose(found, booster.predict(X), atol=1e-6)


def test_columns_are_found_by_name_in_the_order_that_the_booster_learned(tmp_path: Path, penguins: Dataset) -> None:
    frame = penguins.table("train").to_pandas()
    names = ["flipper_length_mm", "bill_length_mm"]
    booster = lightgbm.train(LGB, lightgbm.Dataset(frame[names], frame["body_mass_g"].fillna(4000)), 5)
    example = frame[[*reversed(names), "body_mass_g"]]
    bundle = saved(booster, tmp_path / "a", example=example)
    assert bundle.card.is_deployable, bundle.card.why_not
    assert [column.name for column in bundle.schema.columns] == names
    assert bundle.schema.dropped == ("body_mass_g",)


def test_a_booster_that_stopped_early_answers_with_all_its_rounds_as_it_does_itself(tmp_path: Path) -> None:
    rows, rest = xgboost.DMatrix(X[:45], X[:45, 0] ** 2), xgboost.DMatrix(X[45:], X[45:, 0] ** 2)
    stopping = xgboost.callback.EarlyStopping(3)
    booster = xgboost.train(XGB | {"eta": 0.9}, rows, 200, evals=[(rest, "rest")], callbacks=[stopping], verbose_eval=0)
    assert booster.best_iteration + 1 < booster.num_boosted_rounds()
    bundle = saved(booster, tmp_path / "a", example=X)
    table = LoadedModel(bundle).predict([{f"x{k}": float(value) for k, value in enumerate(row)} for row in X])
    np.testing.assert_allclose(table["prediction"], booster.predict(xgboost.DMatrix(X)), atol=1e-6)


def _texts(frame: pd.DataFrame) -> pd.DataFrame:
    codes = {name: frame[name].astype("category").cat.codes for name in ("island", "sex")}
    return frame[["bill_length_mm"]].assign(**codes)


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, penguins: Dataset) -> None:
    frame = penguins.table("train").to_pandas()
    y = frame["body_mass_g"].fillna(4000)
    unnamed = xgboost.train(XGB, xgboost.DMatrix(X, X[:, 0]), 3)
    of_codes = lightgbm.train(LGB, lightgbm.Dataset(_texts(frame), y), 3)
    of_classes = xgboost.train(XGB | {"objective": "binary:logistic"}, xgboost.DMatrix(frame[["year"]], y > 4000), 3)
    unknown = lightgbm.train(LGB, lightgbm.Dataset(pd.DataFrame(X, columns=["p", "q", "r"]), X[:, 0].copy()), 3)
    for model, message in [
        (unnamed, "'mine' predicts numbers, and the task is multiclass"),
        (of_classes, "knows the class '0', which the target 'species' has not"),
        (xgboost.XGBClassifier(), "'mine' is not fitted yet"),
    ]:
        with pytest.raises(LeptonError, match=message):
            saved(model, tmp_path / "bundle", dataset=penguins)
    for model, columns, message in [
        (unnamed, ["year", "body_mass_g"], "fitted on 3 unnamed numbers; 'the example' has 2 features"),
        (unknown, ["year", "body_mass_g"], "has not as features: p, q, r"),
        (of_codes, ["bill_length_mm", "island", "sex"], "does not know which text in column 'island' is which"),
    ]:
        with pytest.raises(LeptonError, match=message):
            saved(model, tmp_path / "bundle", example=frame[columns])
    assert not (tmp_path / "bundle").exists()


def test_a_booster_is_not_trained_again(session: Any, penguins: Dataset) -> None:
    booster = xgboost.train(XGB, xgboost.DMatrix(X, X[:, 0]), 3)
    with pytest.raises(LeptonError, match=r"'model' is a Booster, which is trained already.*"):
        train(session, booster, penguins, Train(model="model", data=penguins.ref))


def test_an_objective_whose_answers_are_not_known_is_refused_with_its_name(tmp_path: Path) -> None:
    ranker = xgboost.train(XGB | {"objective": "reg:squaredlogerror"}, xgboost.DMatrix(X, X[:, 0] ** 2), 3)
    assert saved(ranker, tmp_path / "a", example=X).card.is_deployable
    hinged = xgboost.train(XGB | {"objective": "rank:pairwise"}, xgboost.DMatrix(X, CODES, qid=np.zeros(90)), 3)
    assert "the objective 'rank:pairwise' cannot be exported" in saved(hinged, tmp_path / "b", example=X).card.why_not
