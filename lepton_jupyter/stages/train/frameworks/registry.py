"""The frameworks that `train` and `save` know: one file and one line here for each."""

from __future__ import annotations

from typing import Any, Protocol

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.frameworks.sklearn import SklearnFramework
from lepton_jupyter.stages.train.frameworks.torch import TorchFramework
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


FRAMEWORKS: tuple[Framework, ...] = (TorchFramework(), SklearnFramework())


def framework_of(model: Any, name: str) -> Framework:
    """Return the framework of a model.

    Raises
    ------
    LeptonError
        If none knows it.
    """
    for framework in FRAMEWORKS:
        if framework.recognises(model):
            return framework
    known = ", ".join(framework.name for framework in FRAMEWORKS)
    raise LeptonError(
        f"'{name}' is a {type(model).__name__}, which is no model of a framework known here. Known: {known}.",
        "Name a torch.nn.Module class, a factory that returns one, or a scikit-learn estimator.",
    )
