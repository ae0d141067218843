"""XGBoost and LightGBM: estimators trained here, and models trained elsewhere, native ones among them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from lepton_jupyter.stages.data.store import Dataset
from tests.stages.train.families import Case
from tests.stages.train.zoo_sklearn import CODED, piped, table_of

RAW = {"preprocess": "none"}


def xgb(kind: str, **settings: Any) -> Any:
    """Return an estimator of XGBoost."""
    import xgboost

    return getattr(xgboost, kind)(n_estimators=20, max_depth=4, n_jobs=1, **settings)


def lgb(kind: str, **settings: Any) -> Any:
    """Return an estimator of LightGBM."""
    import lightgbm

    given = {"n_estimators": 20, "min_child_samples": 5, "n_jobs": 1, "verbose": -1} | settings
    return getattr(lightgbm, kind)(**given)


def codes(dataset: Dataset, y: Any) -> Any:
    """Return labels as XGBoost and native boosters take them."""
    return y[:, 0] if dataset.schema.task == "regression" else np.searchsorted(dataset.schema.classes, y[:, 0])


def xgb_booster(dataset: Dataset, **settings: Any) -> Any:
    """Return a Booster trained on a DataFrame whose text columns are categories."""
    import xgboost

    x, y = table_of(dataset, is_category=True)
    rows = xgboost.DMatrix(x, codes(dataset, y), enable_categorical=True)
    return xgboost.train({"max_depth": 4, "nthread": 1} | settings, rows, 20)


def xgb_stopped(dataset: Dataset) -> Any:
    """Return an estimator that stopped early, some rounds after its best."""
    x, y = table_of(dataset, is_category=True)
    half = len(x) // 2
    model = xgb("XGBRegressor", early_stopping_rounds=5, learning_rate=0.2, enable_categorical=True)
    model.set_params(n_estimators=200)
    return model.fit(x[:half], y[:half, 0], eval_set=[(x[half:], y[half:, 0])], verbose=False)


def lgb_booster(dataset: Dataset, **settings: Any) -> Any:
    """Return a Booster trained on a DataFrame whose text columns are categories."""
    import lightgbm

    x, y = table_of(dataset, is_category=True)
    rows = lightgbm.Dataset(x, codes(dataset, y))
    return lightgbm.train({"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5} | settings, rows, 20)


def lgb_estimator(dataset: Dataset) -> Any:
    """Return an estimator fitted on labels as they are, with categories."""
    x, y = table_of(dataset, is_category=True)
    return lgb("LGBMClassifier", cat_smooth=1, min_data_per_group=5).fit(x, y[:, 0])


def made(name: str, data: str, model: Any, *, refused: str = "", **flags: Any) -> Case:
    """Return a case that is trained here, of the package that its name begins with."""
    package = "xgboost" if name.startswith("XGB") else "lightgbm"
    return Case(name, data, model, flags, refused=refused, needs=package)


def taken(name: str, data: str, model: Any, *, refused: str = "") -> Case:
    """Return a case that was trained elsewhere."""
    package = "xgboost" if name.startswith("XGB") else "lightgbm"
    return Case(name, data, model, refused=refused, needs=package, is_saved=True)


CASES = (
    made("XGBClassifier", "tumours with holes", partial(xgb, "XGBClassifier"), **RAW),
    made(
        "XGBClassifier, three classes, categories",
        "penguins with holes",
        partial(xgb, "XGBClassifier", max_cat_to_onehot=1),
    ),
    made("XGBClassifier(dart)", "tumours", partial(xgb, "XGBClassifier", booster="dart", rate_drop=0.3)),
    made("XGBRegressor, categories", "penguins' mass", partial(xgb, "XGBRegressor")),
    made("XGBRegressor, 1,000 rounds", "penguins' mass", lambda: xgb("XGBRegressor").set_params(n_estimators=1000)),
    made("XGBRegressor, two targets", "penguins' mass and flippers", partial(xgb, "XGBRegressor")),
    made("XGBRegressor(poisson)", "diabetes with holes", partial(xgb, "XGBRegressor", objective="count:poisson")),
    made("XGBRFClassifier", "penguins with holes", partial(xgb, "XGBRFClassifier")),
    taken("XGBRegressor that stopped early", "penguins' mass", xgb_stopped),
    taken("XGBoost's Booster, categories", "penguins' mass", xgb_booster),
    made(
        "XGBClassifier in a pipeline",
        "penguins with holes",
        lambda: piped(xgb("XGBClassifier"), numbers="passthrough", texts=CODED),
    ),
    made(
        "XGBRegressor(gblinear)",
        "diabetes",
        partial(xgb, "XGBRegressor", booster="gblinear"),
        refused="the booster 'gblinear' cannot be exported",
    ),
    made(
        "XGBRegressor(missing=0)",
        "diabetes",
        partial(xgb, "XGBRegressor", missing=0.0),
        refused="for which 0.0 means missing cannot be exported",
    ),
    made("LGBMClassifier", "tumours with holes", partial(lgb, "LGBMClassifier"), **RAW),
    made(
        "LGBMClassifier, three classes, categories",
        "penguins with holes",
        partial(lgb, "LGBMClassifier", cat_smooth=1, min_data_per_group=5),
    ),
    made("LGBMClassifier(zero_as_missing)", "tumours", partial(lgb, "LGBMClassifier", zero_as_missing=True), **RAW),
    made("LGBMRegressor, categories", "penguins' mass", partial(lgb, "LGBMRegressor", min_data_per_group=5)),
    made(
        "LGBMRegressor(rf)",
        "diabetes with holes",
        partial(lgb, "LGBMRegressor", boosting_type="rf", bagging_freq=1, bagging_fraction=0.7),
        **RAW,
    ),
    made(
        "LGBMRegressor(dart, tweedie)",
        "diabetes",
        partial(lgb, "LGBMRegressor", boosting_type="dart", objective="tweedie"),
    ),
    taken("LightGBM's estimator, categories of its own", "penguins with holes", lgb_estimator),
    taken("LightGBM's Booster, categories", "penguins' mass", lgb_booster),
    made(
        "LGBMClassifier in a pipeline",
        "penguins with holes",
        lambda: piped(lgb("LGBMClassifier"), numbers="passthrough", texts=CODED),
    ),
    made(
        "LGBMRegressor(linear_tree)",
        "diabetes",
        partial(lgb, "LGBMRegressor", linear_tree=True),
        refused="with linear trees cannot be exported",
    ),
)
