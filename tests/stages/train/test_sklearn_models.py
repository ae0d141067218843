from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.serving.scorer import Scorer
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.engine import Trained, train
from lepton_jupyter.stages.train.spec import Train

EXAMPLES = Path(__file__).parents[3] / "example_notebooks"
NUMBERS = make_column_selector(dtype_include="number")
TEXTS = make_column_selector(dtype_exclude="number")


def fit(session: Any, model: Any, dataset: Dataset, **flags: Any) -> Trained:
    return train(session, model, dataset, Train(model="model", data=dataset.ref, **flags))


def pipeline(estimator: Any, *, numbers: Any, texts: Any) -> Pipeline:
    return make_pipeline(ColumnTransformer([("n", numbers, NUMBERS), ("t", texts, TEXTS)]), estimator)


PIPELINES = {
    "imputed, one-hot, boosted": pipeline(
        GradientBoostingClassifier(n_estimators=20),
        numbers=SimpleImputer(strategy="median"),
        texts=make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
    ),
    "scaled with an indicator, missing as a category": pipeline(
        RandomForestClassifier(20),
        numbers=make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()),
        texts=OneHotEncoder(handle_unknown="ignore", sparse_output=False, drop="first"),
    ),
    "ordinal with codes for missing and unseen": pipeline(
        LogisticRegression(max_iter=1000),
        numbers=make_pipeline(RobustScaler(), SimpleImputer(strategy="constant", fill_value=-1)),
        texts=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    ),
    "scaled to a range, then a step that skl2onnx takes": make_pipeline(
        ColumnTransformer(
            [
                ("n", make_pipeline(SimpleImputer(), MinMaxScaler()), NUMBERS),
                (
                    "t",
                    make_pipeline(
                        SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder(handle_unknown="ignore")
                    ),
                    TEXTS,
                ),
            ]
        ),
        PCA(4),
        LogisticRegression(),
    ),
    "an encoder that refuses unseen values": pipeline(
        LogisticRegression(max_iter=1000),
        numbers=make_pipeline(SimpleImputer(), StandardScaler()),
        texts=make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder()),
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipelines_known_steps_are_lifted_and_proved_equal(session: Any, penguins: Dataset, name: str) -> None:
    trained = fit(session, PIPELINES[name], penguins)
    assert trained.card.is_deployable, trained.card.why_not
    assert trained.card.parity["rows"] > 400 and trained.card.parity["worst"] < 1e-5
    predicted = Scorer(trained.bundle).score(penguins.packed("test")).prediction
    assert np.mean(predicted == penguins.targets("test")) > 0.9


@pytest.mark.parametrize(
    "estimator", [RandomForestClassifier(20), GradientBoostingClassifier(n_estimators=20), LogisticRegression()]
)
def test_a_plain_estimator_gets_the_automatic_preprocessing(session: Any, penguins: Dataset, estimator: Any) -> None:
    trained = fit(session, estimator, penguins)
    assert trained.card.is_deployable, trained.card.why_not
    assert trained.metrics["val_accuracy"] > 0.9


def test_trees_are_compared_on_their_thresholds(session: Any, two_blobs: Dataset) -> None:
    from lepton_jupyter.stages.train.frameworks.sklearn import SklearnFramework
    from lepton_jupyter.stages.train.job import Job

    job = Job(session, Train(model="model", data="few", preprocess="none"), two_blobs, "model")
    fitted = SklearnFramework().fit(RandomForestClassifier(5, random_state=0), job)
    found = fitted.thresholds()
    assert set(found) <= {"a", "b", "c"}
    tree = fitted.estimator.estimators_[0].tree_
    assert tree.threshold[0] in found["abc"[tree.feature[0]]]


def test_missing_values_go_the_way_that_scikit_learns_own_trees_send_them(session: Any, make_dataset: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    x[rng.random((300, 2)) < 0.2] = np.nan
    frame = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": np.where(np.nan_to_num(x[:, 0], nan=2) > 0, "p", "q")})
    frame = frame.with_columns(pl.col("a", "b").fill_nan(None))
    trained = fit(session, RandomForestClassifier(20), make_dataset(frame, target=("y",)), preprocess="none")
    assert trained.card.is_deployable, trained.card.why_not


def test_an_estimator_that_cannot_be_exported_stores_its_predictions(session: Any, wdbc: Dataset) -> None:
    model = make_pipeline(FunctionTransformer(np.arcsinh), StandardScaler(), LogisticRegression())
    trained = fit(session, model, wdbc)
    assert not trained.card.is_deployable
    assert "'model' cannot be exported: skl2onnx does not take Pipeline" in trained.card.why_not
    assert session.notes["exportable"] is False
    stored = pl.read_parquet(trained.bundle.read("predictions.parquet"))
    assert stored.columns == ["split", "row_key", "prediction", "probability_B", "probability_M"]
    assert stored["split"].value_counts(sort=True).rows() == [("train", 341), ("validation", 115), ("test", 113)]
    assert np.array_equal(stored.filter(split="test")["row_key"], wdbc.row_keys("test"))
    assert not trained.bundle.has("graph.onnx")


def test_text_that_reaches_an_unknown_step_names_the_column(session: Any, make_dataset: Any) -> None:
    frame = pl.DataFrame({"word": ["red fox", "blue fox", "red sky", "blue sea"] * 10, "y": ["a", "b", "a", "b"] * 10})
    model = make_pipeline(ColumnTransformer([("w", CountVectorizer(), "word")]), LogisticRegression())
    trained = fit(session, model, make_dataset(frame, target=("y",)))
    assert "the text of column 'word' reaches CountVectorizer" in trained.card.why_not


def test_regressions_are_judged_by_the_targets_deviation(session: Any, make_dataset: Any) -> None:
    diabetes = make_dataset("diabetes.csv", name="diabetes", target=("progression",))
    for model in (LinearRegression(), Ridge, RandomForestRegressor(10)):
        trained = fit(session, model, diabetes)
        assert trained.card.is_deployable, trained.card.why_not
        assert trained.metrics["val_rmse"] < 70
        (session.folder / "bundle").rename(session.folder / f"bundle-{id(model)}")


def test_params_reach_a_class_and_the_seed_its_random_state(session: Any, wdbc: Dataset) -> None:
    trained = fit(session, RandomForestClassifier, wdbc, params={"n_estimators": 3, "max_depth": 2}, seed=5)
    assert trained.card.params["params"] == {"n_estimators": 3, "max_depth": 2}
    assert trained.notes["seed"] == 5


def test_coefficients_are_kept_under_their_own_names(session: Any, wdbc: Dataset) -> None:
    from safetensors.numpy import load

    weights = load(fit(session, LogisticRegression(max_iter=500), wdbc).bundle.read("weights.safetensors"))
    assert weights["coef_"].shape == (1, 30) and weights["intercept_"].shape == (1,)


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        (LogisticRegression(), {"epochs": 3}, "--epochs means nothing for 'model', a scikit-learn estimator"),
        (LogisticRegression(), {"lr_scheduler": "constant"}, "--lr-scheduler means nothing"),
        (GradientBoostingClassifier(), {"class_weight": "balanced"}, "has no class_weight"),
        (LinearRegression(), {}, "'model' is no classifier, and the task is binary"),
        (LinearSVC(), {}, "gives no probabilities"),
        (RandomForestClassifier, {"params": {"n_estimator": 3}}, "Did you mean 'n_estimators'?"),
    ],
)
def test_what_means_nothing_for_an_estimator_is_refused(
    session: Any, two_blobs: Dataset, model: Any, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(LeptonError) as caught:
        fit(session, model, two_blobs, **flags)
    assert message in caught.value.message


def test_a_calibrated_estimator_gives_what_a_bare_one_lacks(session: Any, two_blobs: Dataset) -> None:
    trained = fit(session, CalibratedClassifierCV(LinearSVC(), cv=3), two_blobs)
    assert trained.card.is_deployable, trained.card.why_not


def test_a_range_is_scaled_as_its_scaler_rounds(session: Any, penguins: Dataset) -> None:
    """MinMaxScaler multiplies and adds; subtracting and dividing is a last bit apart, and a tree takes sides."""
    scaled = pipeline(
        RandomForestClassifier(20, random_state=0),
        numbers=make_pipeline(SimpleImputer(), MinMaxScaler()),
        texts=make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
    )
    card = fit(session, scaled, penguins).card
    assert card.is_deployable, card.why_not


@pytest.mark.parametrize("estimator", [Ridge(), RandomForestRegressor(10)])
def test_numbers_far_from_zero_are_as_exact_as_others(session: Any, make_dataset: Any, estimator: Any) -> None:
    """Seconds since 1970 among the features, a target of a million: float32 would have neither."""
    frame = pl.read_csv(EXAMPLES / "diabetes.csv").with_columns(
        pl.col("progression") + 1e6, at=1.7e9 + 60.0 * pl.int_range(pl.len())
    )
    dataset = make_dataset(frame, target=("progression",))
    card = fit(session, make_pipeline(StandardScaler(), estimator), dataset).card
    assert card.is_deployable, card.why_not
    assert card.parity["worst"] < 1e-6
