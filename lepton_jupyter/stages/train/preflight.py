"""What can be said of a training before anything starts: its names and the arguments of its model."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection
from typing import Any

from lepton_jupyter.stages.train.construct import check_arguments
from lepton_jupyter.stages.train.spec import Train


def preflight(model: Any, spec: Train, *, named: Collection[str], data: str) -> None:
    """Refuse in the asking process what the run would refuse after its start.

    Parameters
    ----------
    model : class, factory, instance or estimator
    spec : Train
    named : collection of str
        Which of ``optimizer``, ``loss``, ``lr_scheduler`` are the notebook's own objects.
    data : str
        The dataset's name, for the line to paste.

    Raises
    ------
    LeptonError
        If a param is not the model's, a required one is missing, or torch knows no such name.
    """
    check_arguments(model, spec.params, name=spec.model, data=data)
    if not is_torchs(model):
        return  # nothing of torch in hand: the run looks itself
    from lepton_jupyter.stages.train import torch_names  # torch is there already

    if "optimizer" not in named:
        torch_names.optimizer_class(spec.optimizer)
    if "lr_scheduler" not in named:
        torch_names.scheduler_class(spec.lr_scheduler)
    if "loss" not in named and spec.loss != "auto":
        torch_names.loss_class(spec.loss)


def is_torchs(model: Any) -> bool:
    """Whether a model is a module of torch, or a class of them. A factory shows only when it is called."""
    torch = sys.modules.get("torch")  # nobody holds a module of a package that is not loaded
    if torch is None:
        return False
    return issubclass(model, torch.nn.Module) if inspect.isclass(model) else isinstance(model, torch.nn.Module)
