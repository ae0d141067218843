"""The frameworks that `train` and `save` know: one file and one line here for each."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Protocol

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.job import Fitted, Job


class Framework(Protocol):
    """How one framework's models are trained and taken over."""

    name: str

    def recognises(self, model: Any) -> bool:
        """Whether a model (a class or an instance of one) is of this framework."""

    def fit(self, model: Any, job: Job) -> Fitted:
        """Train, and return what predicts and exports."""

    def describe(self, model: Any, job: Job) -> dict[str, Any]:
        """Return what a trained model shows of its schema (task and classes) where only an example is known."""

    def adopt(self, model: Any, job: Job) -> Fitted:
        """Take over a model that was trained elsewhere, as it is."""


# The package whose models it knows, and where the framework is. It is imported only where that package is loaded:
# nobody holds a model of a package that is not.
FRAMEWORKS: tuple[tuple[str, str], ...] = (
    ("keras", "lepton_jupyter.stages.train.frameworks.keras:KerasFramework"),  # before torch, whose modules they are
    ("torch", "lepton_jupyter.stages.train.frameworks.torch:TorchFramework"),
    ("xgboost", "lepton_jupyter.stages.train.frameworks.xgboost:XGBoostFramework"),  # before sklearn, on which
    ("lightgbm", "lepton_jupyter.stages.train.frameworks.lightgbm:LightGBMFramework"),  # their estimators are built
    ("sklearn", "lepton_jupyter.stages.train.frameworks.sklearn:SklearnFramework"),
)


def load_framework(place: str) -> Framework:
    """Import a framework from its ``module:class``."""
    module, _, name = place.partition(":")
    found: Framework = getattr(importlib.import_module(module), name)()
    return found


def framework_of(model: Any, name: str) -> Framework:
    """Return the framework of a model.

    Raises
    ------
    LeptonError
        If none knows it.
    """
    for package, place in FRAMEWORKS:
        if package in sys.modules and (framework := load_framework(place)).recognises(model):
            return framework
    known = ", ".join(package for package, _ in FRAMEWORKS)
    raise LeptonError(
        f"'{name}' is a {type(model).__name__}, which is no model of a framework known here. Known: {known}.",
        "Name a torch.nn.Module class, a factory that returns one, or an estimator (scikit-learn, XGBoost, LightGBM).",
    )
