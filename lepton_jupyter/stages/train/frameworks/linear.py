"""scikit-learn's linear models: ``x @ weights + bias`` in float64, then a link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from sklearn import linear_model
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.svm import LinearSVR

from lepton_jupyter.stages.train.frameworks.forests import LINKS
from lepton_jupyter.stages.train.frameworks.score_graph import Link, ScoreGraph

# F features, T raw scores

_NUMBERS = (
    linear_model.LinearRegression,
    linear_model.Ridge,
    linear_model.RidgeCV,
    linear_model.Lasso,
    linear_model.LassoCV,
    linear_model.LassoLars,
    linear_model.ElasticNet,
    linear_model.ElasticNetCV,
    linear_model.Lars,
    linear_model.OrthogonalMatchingPursuit,
    linear_model.BayesianRidge,
    linear_model.ARDRegression,
    linear_model.HuberRegressor,
    linear_model.TheilSenRegressor,
    linear_model.SGDRegressor,
    LinearSVR,
)
_LINKED = (linear_model.PoissonRegressor, linear_model.GammaRegressor, linear_model.TweedieRegressor)


@dataclass(frozen=True)
class Linear:
    """Weights float64 [F, T], bias float64 [T], and what follows."""

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    link: Link


def linear_of(estimator: Any) -> Linear | None:
    """Return the weights of a fitted estimator; None where it is no linear model whose answers are known here."""
    link: Link | None = None
    if isinstance(estimator, _NUMBERS):
        link = "identity"
    elif isinstance(estimator, _LINKED):
        found = LINKS.get(type(estimator._base_loss.link).__name__)
        link = found[0] if found is not None and found[0] in ("identity", "exp") else None
    elif isinstance(estimator, (linear_model.LogisticRegression, LinearDiscriminantAnalysis)):
        link = _of_classes(estimator)
    elif isinstance(estimator, linear_model.SGDClassifier) and estimator.loss == "log_loss":
        link = "binary" if len(estimator.classes_) == 2 else None  # of more, it scales shares of each to a sum of 1
    if link is None:
        return None
    weights = np.atleast_2d(np.asarray(estimator.coef_, np.float64)).T
    bias = np.broadcast_to(np.asarray(estimator.intercept_, np.float64), (weights.shape[1],))
    return Linear(weights, bias, link)


def _of_classes(estimator: Any) -> Link | None:
    if getattr(estimator, "multi_class", "deprecated") not in ("deprecated", "auto"):
        return None  # before scikit-learn 1.8: one against the rest, or a softmax of two
    if len(estimator.classes_) == 2:
        return "binary"
    return None if getattr(estimator, "solver", "") == "liblinear" else "softmax"


def linear_graph(linear: Linear, *, is_double: bool) -> onnx.ModelProto:
    """Return a linear model as a graph; parameters and outputs are those of `ScoreGraph`."""
    n_features, n_scores = linear.weights.shape
    graph = ScoreGraph(n_features, is_double=is_double)
    raw = graph.add("MatMul", graph.doubles(), graph.constant(linear.weights))
    raw = graph.add("Add", raw, graph.constant(linear.bias))
    return graph.finish(raw, n_scores, link=linear.link)
