"""Keras on its torch backend: models that their own ``fit`` trained are modules of torch, and exported as such."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.frameworks.torch import TorchFitted, TorchFramework
from lepton_jupyter.stages.train.job import Job


class KerasFramework:
    """Take over Keras's models."""

    name = "keras"

    def recognises(self, model: Any) -> bool:
        """Whether it is a model or layer, or a class of them, or one made of one."""
        kind = model if inspect.isclass(model) else type(model)
        return any(base.__module__.partition(".")[0] == self.name for base in kind.__mro__)

    def fit(self, model: Any, job: Job) -> TorchFitted:
        """Raise `LeptonError`: dropout and normalisation of Keras do not follow a module's train and eval."""
        raise LeptonError(
            f"'{job.name}' is a Keras model, which is trained by a fit of its own.",
            f"Call it in a cell of %%lepton train --name {job.name}, and then lepton.save({job.name}, example=x).",
        )

    def describe(self, model: Any, job: Job) -> dict[str, Any]:
        """Return what the model's answer shows of the schema: K > 1 outputs are the logits of K classes."""
        _refuse_unready(model, job)
        return TorchFramework().describe(model, job)

    def adopt(self, model: Any, job: Job) -> TorchFitted:
        """Take over a trained model: the raw columns, where their number fits what it takes."""
        _refuse_unready(model, job)
        fitted = TorchFramework().adopt(model, job)
        fitted.framework = self.name
        return fitted


def _refuse_unready(model: Any, job: Job) -> None:
    backend = keras.backend.backend()
    if backend != "torch":  # on jax, Keras writes graphs of images that load and do not run
        raise LeptonError(
            f"'{job.name}' is a Keras model on the backend '{backend}'; only models on torch can be saved.",
            "Set KERAS_BACKEND=torch before Keras is imported, and train it again.",
        )
    if not inspect.isclass(model) and not model.built:
        raise LeptonError(
            f"'{job.name}' is not built yet: it has no weights.", "Call its fit first, or call it on some rows."
        )
