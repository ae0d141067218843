"""Estimators and pipelines of scikit-learn."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn import ensemble as e
from sklearn import linear_model as lm
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from lepton_jupyter.stages.data.store import Dataset
from tests.stages.train.families import Case

RAW = {"preprocess": "none"}
NUMBERS = make_column_selector(dtype_include="number")
TEXTS = make_column_selector(dtype_exclude="number")
FILLED = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
CODED = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)


def piped(last: Any, *, numbers: Any, texts: Any = FILLED, between: tuple[Any, ...] = ()) -> Pipeline:
    """Return a pipeline that prepares numbers and texts by themselves."""
    return make_pipeline(ColumnTransformer([("n", numbers, NUMBERS), ("t", texts, TEXTS)]), *between, last)


def plain(name: str, data: str, model: Any, *, refused: str = "", **flags: Any) -> Case:
    """Return a case of an estimator or pipeline that is trained here."""
    return Case(name, data, lambda: model, flags, refused=refused)


def table_of(dataset: Dataset, *, is_category: bool) -> tuple[pd.DataFrame, Any]:
    """Return the training rows as somebody else would have had them: text as categories, or as it is."""
    frame = dataset.table("train").to_pandas()
    columns = {}
    for column in dataset.schema.columns:
        values = frame[column.name]
        if column.is_text:
            values = values.astype("category") if is_category else values.astype(object).where(values.notna(), np.nan)
        columns[column.name] = values if column.is_text else values.astype(float)
    return pd.DataFrame(columns), frame[list(dataset.schema.targets)].to_numpy()


def fitted(model: Any, dataset: Dataset, *, is_category: bool = False, **arguments: Any) -> Any:
    """Return a model fitted elsewhere, on a DataFrame."""
    x, y = table_of(dataset, is_category=is_category)
    return model.fit(x, y[:, 0] if y.shape[1] == 1 else y, **arguments)


LINEAR = (
    plain("LogisticRegression", "tumours", lm.LogisticRegression(max_iter=500)),
    plain("LogisticRegression, raw columns", "tumours", lm.LogisticRegression(max_iter=2000), **RAW),
    plain("LogisticRegression, three classes", "penguins with holes", lm.LogisticRegression(max_iter=500)),
    plain("SGDClassifier(log_loss)", "tumours with holes", lm.SGDClassifier(loss="log_loss")),
    plain("LinearRegression", "diabetes with holes", lm.LinearRegression()),
    plain("LinearRegression, two targets", "penguins' mass and flippers", lm.LinearRegression()),
    plain("Ridge", "penguins' mass", lm.Ridge()),
    plain("Lasso", "diabetes with holes", lm.Lasso()),
    plain("ElasticNet", "diabetes", lm.ElasticNet(), **RAW),
    plain("BayesianRidge", "diabetes", lm.BayesianRidge()),
    plain("HuberRegressor", "diabetes", lm.HuberRegressor(max_iter=1000)),
    plain("PoissonRegressor", "diabetes", lm.PoissonRegressor()),
)
TREES = (
    plain("DecisionTreeClassifier", "tumours with holes", DecisionTreeClassifier(max_depth=6), **RAW),
    plain("DecisionTreeRegressor", "diabetes with holes", DecisionTreeRegressor(max_depth=6), **RAW),
    plain("RandomForestClassifier", "penguins with holes", RandomForestClassifier(20)),
    plain("RandomForestClassifier, holes left in", "penguins, numbers with holes", RandomForestClassifier(20), **RAW),
    plain("RandomForestRegressor, holes left in", "diabetes with holes", RandomForestRegressor(20), **RAW),
    plain("RandomForestRegressor, two targets", "penguins' mass and flippers", RandomForestRegressor(20)),
    plain("ExtraTreesClassifier, holes left in", "tumours with holes", ExtraTreesClassifier(20), **RAW),
    plain("ExtraTreesRegressor", "penguins' mass", ExtraTreesRegressor(20)),
    plain("GradientBoostingClassifier", "tumours", GradientBoostingClassifier(n_estimators=20)),
    plain("GradientBoostingClassifier(exponential)", "tumours", GradientBoostingClassifier(loss="exponential"), **RAW),
    plain("GradientBoostingClassifier, three classes", "penguins", GradientBoostingClassifier(n_estimators=10)),
    plain("GradientBoostingRegressor", "diabetes", GradientBoostingRegressor(n_estimators=20), **RAW),
    plain("HistGradientBoostingClassifier", "tumours with holes", HistGradientBoostingClassifier(max_iter=20), **RAW),
    plain(
        "HistGradientBoostingClassifier, three classes",
        "penguins with holes",
        HistGradientBoostingClassifier(max_iter=10),
    ),
    plain("HistGradientBoostingRegressor", "diabetes with holes", HistGradientBoostingRegressor(max_iter=20), **RAW),
    plain(
        "HistGradientBoostingRegressor(poisson)",
        "penguins' mass",
        HistGradientBoostingRegressor(loss="poisson", max_iter=20),
    ),
    Case(
        "HistGradientBoostingClassifier, categories of its own",
        "penguins with holes",
        partial(fitted, HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5), is_category=True),
        is_saved=True,
    ),
    plain(
        "HistGradientBoostingRegressor, a number as a category",
        "diabetes",
        HistGradientBoostingRegressor(max_iter=5, categorical_features=[1]),
        refused="its categorical_features reach OrdinalEncoder of numbers",
        **RAW,
    ),
    plain("BaggingClassifier, holes left in", "tumours with holes", e.BaggingClassifier(n_estimators=5), **RAW),
    plain("AdaBoostClassifier", "tumours", e.AdaBoostClassifier(n_estimators=10)),
    plain("BaggingRegressor", "diabetes", e.BaggingRegressor(n_estimators=5), **RAW),
)
OTHERS = (
    plain("SVC, calibrated", "tumours", CalibratedClassifierCV(SVC(), cv=3)),
    plain("LinearSVC, calibrated", "penguins", CalibratedClassifierCV(LinearSVC(), cv=3)),
    plain("SVR", "diabetes", SVR(C=100)),
    plain("KNeighborsClassifier", "penguins with holes", KNeighborsClassifier()),
    plain("KNeighborsRegressor", "diabetes", KNeighborsRegressor()),
    plain("GaussianNB", "tumours", GaussianNB()),
    plain("LinearDiscriminantAnalysis", "penguins, numbers with holes", LinearDiscriminantAnalysis()),
    plain("QuadraticDiscriminantAnalysis", "tumours", QuadraticDiscriminantAnalysis()),
    plain("MLPClassifier", "penguins with holes", MLPClassifier(max_iter=2000, hidden_layer_sizes=(16,))),
    plain("MLPRegressor", "diabetes", MLPRegressor(max_iter=2000, hidden_layer_sizes=(16,), learning_rate_init=0.1)),
    plain(
        "VotingClassifier(soft)",
        "tumours",
        e.VotingClassifier([("a", lm.LogisticRegression()), ("b", RandomForestClassifier(5))], voting="soft"),
    ),
    plain(
        "StackingRegressor",
        "diabetes",
        e.StackingRegressor([("a", lm.Ridge()), ("b", DecisionTreeRegressor(max_depth=4))], cv=3),
    ),
)
PIPELINES = (
    plain(
        "pipeline: imputer, scaler, one-hot, LogisticRegression",
        "penguins with holes",
        piped(lm.LogisticRegression(max_iter=500), numbers=make_pipeline(SimpleImputer(), StandardScaler())),
    ),
    plain(
        "pipeline: indicator, scaler, one-hot with missing, forest",
        "penguins with holes",
        piped(
            RandomForestClassifier(20),
            numbers=make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()),
            texts=OneHotEncoder(handle_unknown="ignore", sparse_output=False, drop="first"),
        ),
    ),
    plain(
        "pipeline: columns as they are, codes, HistGradientBoosting",
        "penguins with holes",
        piped(HistGradientBoostingClassifier(max_iter=10), numbers="passthrough", texts=CODED),
    ),
    plain(
        "pipeline: scaler, HistGradientBoosting",
        "penguins' mass",
        piped(HistGradientBoostingRegressor(max_iter=20), numbers=StandardScaler(), texts=CODED),
    ),
    plain(
        "pipeline: median, one-hot, GradientBoosting",
        "penguins' mass",
        piped(GradientBoostingRegressor(n_estimators=20), numbers=SimpleImputer(strategy="median")),
    ),
    plain(
        "pipeline: range, one-hot, PCA, LogisticRegression",
        "penguins with holes",
        piped(lm.LogisticRegression(), numbers=make_pipeline(SimpleImputer(), MinMaxScaler()), between=(PCA(4),)),
    ),
    plain(
        "pipeline: robust scaler, Ridge",
        "diabetes with holes",
        make_pipeline(SimpleImputer(), RobustScaler(), lm.Ridge()),
    ),
    plain(
        "pipeline: range, forest",
        "tumours with holes",
        make_pipeline(SimpleImputer(), MinMaxScaler(), RandomForestClassifier(20)),
    ),
    plain(
        "pipeline: words counted",
        "penguins",
        make_pipeline(
            ColumnTransformer([("w", CountVectorizer(), "island"), ("n", SimpleImputer(), NUMBERS)]),
            lm.LogisticRegression(max_iter=500),
        ),
        refused="the text of column 'island' reaches CountVectorizer",
    ),
    plain(
        "pipeline: a function of one's own",
        "tumours",
        make_pipeline(FunctionTransformer(np.log1p), lm.LogisticRegression(max_iter=500)),
        refused="cannot be exported",
    ),
)
CASES = (*LINEAR, *TREES, *OTHERS, *PIPELINES)
