"""The loss: by task, by torch's name, or the user's own; and the targets as that loss wants them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.torch_names import loss_class, refuse_probabilities

OF_CODES = (nn.CrossEntropyLoss, nn.MultiMarginLoss)
OF_CLASSES = (*OF_CODES, nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss, nn.SoftMarginLoss)
OF_NUMBERS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss)


@dataclass(frozen=True)
class Loss:
    """A loss and the form in which it takes targets.

    Attributes
    ----------
    function : callable
        ``function(output, target)`` → scalar tensor.
    name : str
    wants : str
        ``codes`` int64 [B]; ``logit`` float32 of the output's own shape, 1 for the positive class; ``onehot`` float32
        [B, K]; ``numbers`` float32 [B, T].
    """

    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    name: str
    wants: str

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch; the output takes the target's shape, so that nothing is broadcast."""
        if self.wants != "codes":
            output = output.reshape(target.shape)
        return self.function(output, target)


def make_loss(job: Job, head: Head) -> Loss:
    """Return the loss of a job.

    Raises
    ------
    LeptonError
        If the name is unknown, or the loss does not fit the task or takes probabilities.
    """
    spec = job.spec
    if spec.class_weight == "balanced" and job.task == "regression":
        raise LeptonError("--class-weight means nothing for a regression.", "Leave it out.")
    if spec.scale_target and job.task != "regression":
        raise LeptonError(f"--scale-target means nothing for a {job.task} task.", "Leave it out.")
    chosen = job.names.get("loss")
    if chosen is None:
        chosen = _default(job, head) if spec.loss == "auto" else loss_class(spec.loss)
    return _settled(chosen, job, head)


def _default(job: Job, head: Head) -> type[nn.Module]:
    if job.task == "regression":
        return nn.MSELoss
    return nn.BCEWithLogitsLoss if head.kind == "sigmoid" else nn.CrossEntropyLoss


def _settled(chosen: Any, job: Job, head: Head) -> Loss:
    _refuse(chosen, job)
    arguments = _weights(chosen, job, head) if job.spec.class_weight == "balanced" else {}
    if inspect.isclass(chosen):
        chosen = chosen(**arguments)
    elif arguments:
        raise LeptonError(
            f"--class-weight cannot reach '{job.spec.loss}', which is made already.", "Give it its weights yourself."
        )
    if job.task == "regression":
        wants = "numbers"
    elif head.kind == "sigmoid":
        wants = "logit"
    else:
        wants = "onehot" if isinstance(chosen, OF_CLASSES) and not isinstance(chosen, OF_CODES) else "codes"
    name = getattr(chosen, "__name__", type(chosen).__name__)
    return Loss(chosen, name, wants)


def _refuse(chosen: Any, job: Job) -> None:
    """Refuse what takes probabilities, and what is made for another kind of task."""
    cls = chosen if inspect.isclass(chosen) else type(chosen)
    refuse_probabilities(cls)
    is_regression = job.task == "regression"
    if inspect.isclass(cls) and issubclass(cls, OF_CLASSES if is_regression else OF_NUMBERS):
        fitting = "MSELoss, L1Loss, SmoothL1Loss, HuberLoss" if is_regression else "CrossEntropyLoss, BCEWithLogitsLoss"
        raise LeptonError(f"{cls.__name__} does not fit a {job.task} task.", f"Try --loss auto, or one of {fitting}.")


def _weights(chosen: Any, job: Job, head: Head) -> dict[str, torch.Tensor]:
    """Return the arguments by which a loss weights classes by their rarity."""
    codes = job.targets("train")
    counts = np.maximum(np.bincount(codes, minlength=head.n_outputs), 1)
    names = inspect.signature(chosen).parameters
    if head.kind == "sigmoid" and "pos_weight" in names:
        n_positive = counts[head.positive_index]
        return {"pos_weight": torch.tensor((len(codes) - n_positive) / n_positive, dtype=torch.float32)}
    if "weight" in names and head.kind == "softmax":
        return {"weight": torch.tensor(len(codes) / (len(counts) * counts), dtype=torch.float32)}
    raise LeptonError(
        f"--class-weight means nothing for {getattr(chosen, '__name__', chosen)} here.", "Try --loss auto."
    )


def encode_targets(values: npt.NDArray[Any], loss: Loss, head: Head, *, like: tuple[int, ...] = ()) -> torch.Tensor:
    """Return a split's targets as the loss wants them.

    Parameters
    ----------
    values : NDArray
        int64 codes [N] or float64 [N, T] in original units.
    loss : Loss
    head : Head
    like : tuple of int
        Shape of one row of the model's output: () or (1,) of a single logit.
    """
    if loss.wants == "codes":
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
    if loss.wants == "onehot":
        return torch.from_numpy(np.eye(head.n_outputs, dtype=np.float32)[values])
    if loss.wants == "logit":
        return torch.from_numpy((values == head.positive_index).astype(np.float32)).reshape(len(values), *like)
    scaled = (values - np.array(head.offset)) / np.array(head.scale) if head.scale else values
    return torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32))
