"""XGBoost: its estimators, and boosters that were trained by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import xgboost

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.plan import OrdinalStep
from lepton_jupyter.stages.train.frameworks.boosting import BoostingFramework, Facts, Native, refuse_objective
from lepton_jupyter.stages.train.frameworks.score_graph import Link
from lepton_jupyter.stages.train.frameworks.sklearn import SklearnFitted
from lepton_jupyter.stages.train.frameworks.trees import Floats, Forest, Segments, Tree, cut, of_categories

LINKS: dict[str, Link] = {
    "binary:logistic": "binary",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:absoluteerror": "identity",
    "reg:quantileerror": "identity",
    "reg:expectileerror": "identity",
    "reg:logistic": "sigmoid",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
}


class NativeXGBoost(Native):
    """A `xgboost.Booster`. It answers with all its rounds: early stopping alone takes none away."""

    def predict(self, given: Any) -> npt.NDArray[Any]:
        """Return what it says of a DataFrame, or of an array where its features have no names."""
        rows = xgboost.DMatrix(given, enable_categorical=True)
        found = np.asarray(self.booster.predict(rows))
        if len(self.classes_) > 2 and found.ndim == 1:  # multi:softmax says a class, and not how sure it is
            margins = self.booster.predict(rows, output_margin=True)
            found = np.exp(margins - margins.max(axis=1, keepdims=True))
            found /= found.sum(axis=1, keepdims=True)
        return found

    @property
    def feature_importances_(self) -> npt.NDArray[Any]:
        """Return how much each feature gained, float [F]."""
        names = self.booster.feature_names or [f"f{place}" for place in range(self.booster.num_features())]
        gains = self.booster.get_score(importance_type="total_gain")
        return np.array([gains.get(name, 0.0) for name in names])


class XGBoostFramework(BoostingFramework):
    """Train XGBoost's estimators, and take over its boosters."""

    name = "xgboost"
    native = NativeXGBoost

    def learn(self, fitted: SklearnFitted, given: Any, target: npt.NDArray[Any]) -> None:
        """Fit the estimator; codes of our plan are categories."""
        assert fitted.plan is not None
        kinds = ["c" if isinstance(step, OrdinalStep) else "q" for step in fitted.plan.steps]
        if "c" in kinds:
            fitted.estimator.set_params(enable_categorical=True, feature_types=kinds)
        fitted.estimator.fit(given, target)

    def facts(self, model: Any) -> Facts:
        """Return features, classes and categories of a trained model."""
        booster = _booster(model)
        told = _told(booster)
        n_classes = int(told["learner_model_param"]["num_class"])
        if n_classes == 0 and told["objective"]["name"] == "binary:logistic":
            n_classes = 2
        names = tuple(booster.feature_names or ())
        known = _categories(booster)
        of_text = {name: texts for name, texts in known.items() if all(isinstance(text, str) for text in texts)}
        return Facts(names, booster.num_features(), n_classes, of_text)


def _booster(model: Any) -> Any:
    return model.get_booster() if hasattr(model, "get_booster") else model


def _told(booster: Any) -> dict[str, Any]:
    """Return what the booster's own JSON says of the model."""
    learner: dict[str, Any] = orjson.loads(bytes(booster.save_raw("json")))["learner"]
    return learner


def _categories(booster: Any) -> dict[str, tuple[Any, ...]]:
    """Return the categories of features, in the order of their codes; before 3.1 a booster does not keep them."""
    if not hasattr(booster, "get_categories"):
        return {}
    kept = booster.get_categories(export_to_arrow=True)
    return {name: tuple(found.to_pylist()) for name, found in kept.to_arrow() if found is not None}


def forest_of(model: Any) -> Forest:
    """Return the trees of a booster, or of an estimator, which answers with its best round where it stopped early.

    Raises
    ------
    LeptonError
        With code ``refused`` for a linear booster, trees with several outputs, a number that stands for missing, and
        objectives that are not known.
    """
    missing = getattr(model, "missing", np.nan)
    if not np.isnan(missing):
        raise LeptonError(
            f"An XGBoost model for which {missing!r} means missing cannot be exported.",
            "Leave holes as they are (NaN, null), and missing= at its default.",
            code="refused",
        )
    booster = _booster(model)
    best = getattr(model, "best_iteration", None) if model is not booster else None
    told = _told(booster if best is None else booster[: best + 1])
    objective = told["objective"]["name"]
    grown = told["gradient_booster"]
    kind = grown["name"]
    if kind not in ("gbtree", "dart"):
        raise LeptonError(
            f"An XGBoost model with the booster '{kind}' cannot be exported: it has no trees.",
            "Train with booster='gbtree', or a linear model of scikit-learn.",
            code="refused",
        )
    if objective not in LINKS:
        raise refuse_objective(objective, "XGBoost")
    shares = grown["weight_drop"] if kind == "dart" else None
    held = (grown["gbtree"] if kind == "dart" else grown)["model"]
    sizes = told["learner_model_param"]
    n = max(1, int(sizes["num_class"]), int(sizes.get("num_target", 1)))
    trees = [
        _tree(tree, place=place, n=n, share=1.0 if shares is None else float(shares[number]))
        for number, (tree, place) in enumerate(zip(held["trees"], held["tree_info"], strict=True))
    ]
    return Forest(trees, _base(sizes["base_score"], LINKS[objective], n), LINKS[objective], adds_single=True)


def _base(said: str, link: Link, n: int) -> Floats:
    """Return the base as raw scores [T]; it is kept as an answer: a probability, a rate."""
    values = orjson.loads(said) if said.startswith("[") else [float(said)]
    scores = np.asarray(values, np.float64)
    if link in ("binary", "sigmoid"):
        scores = np.log(scores / (1.0 - scores))
    elif link == "exp":
        scores = np.log(scores)
    return np.broadcast_to(scores, (n,)).copy() if len(scores) == 1 else scores


def _tree(told: dict[str, Any], *, place: int, n: int, share: float) -> Tree:
    if int(told["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise LeptonError(
            "An XGBoost model whose trees have several outputs cannot be exported.",
            "Train with multi_strategy='one_output_per_tree'.",
            code="refused",
        )
    left = np.array(told["left_children"], np.int64)
    right = np.array(told["right_children"], np.int64)
    is_leaf = left < 0
    conditions = np.array(told["split_conditions"], np.float32)
    value = np.zeros((len(left), n))
    value[is_leaf, place] = share * conditions[is_leaf].astype(np.float64)
    tree = Tree(
        np.where(is_leaf, -1, np.array(told["split_indices"], np.int64)),
        np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64),  # x < t, both float32
        left,
        right,
        np.array(told["default_left"]).astype(bool),
        value,
    )
    return cut(tree, _sets(told)) if told["categories_nodes"] else tree


def _sets(told: dict[str, Any]) -> dict[int, Segments]:
    """Return the splits by categories: those of a node's set go right, all others left."""
    pieces = {}
    rows = zip(told["categories_nodes"], told["categories_segments"], told["categories_sizes"], strict=True)
    for node, start, size in rows:
        codes = told["categories"][start : start + size]
        missing_left = bool(told["default_left"][node])
        pieces[int(node)] = of_categories(dict.fromkeys(map(int, codes), False), other=True, missing_left=missing_left)
    return pieces
