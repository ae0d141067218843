"""The loss: by task, by torch's name, or the user's own; and the targets as that loss wants them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.torch_names import loss_class, refuse_losses

OF_CODES = (nn.CrossEntropyLoss, nn.MultiMarginLoss)
OF_CLASSES = (*OF_CODES, nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss, nn.SoftMarginLoss)
OF_SIGNS = (nn.SoftMarginLoss,)
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
        ``codes`` int64 [B]; ``logit`` float32 of the output's own shape, 1 for the positive class and 0 for the other;
        ``onehot`` float32 [B, K]; ``sign`` and ``signs`` the same with -1 in place of 0; ``numbers`` float32 [B, T].
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
    """Return the loss of a job. Label smoothing and class weights hold in validation too, as in torch's own losses.

    Raises
    ------
    LeptonError
        If the name is unknown, or the loss does not fit the task or the model's outputs, or a flag cannot reach it.
    """
    spec = job.spec
    if job.task == "regression":
        for flag, is_said in (("class-weight", spec.class_weight != "none"), ("label-smoothing", spec.label_smoothing)):
            if is_said:
                raise LeptonError(f"--{flag} means nothing for a regression.", "Leave it out.")
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
    """Return the loss as it is called, made where it is a class."""
    _refuse(chosen, job, head)
    spec = job.spec
    is_class = inspect.isclass(chosen)
    cls = chosen if is_class else type(chosen)
    arguments: dict[str, Any] = {}
    if spec.class_weight == "balanced":
        arguments |= _weights(chosen, job, head)
    if spec.label_smoothing and cls is not nn.BCEWithLogitsLoss:
        arguments |= _smoothing(chosen, spec.label_smoothing)
    if arguments and not is_class:
        flag = "class-weight" if spec.class_weight == "balanced" else "label-smoothing"
        raise LeptonError(f"--{flag} cannot reach '{spec.loss}', which is made already.", "Give it to it yourself.")
    if is_class:
        if issubclass(chosen, nn.PoissonNLLLoss):
            arguments["log_input"] = False  # predictions are the rates themselves: what is served must be so too
        chosen = chosen(**arguments)
    function = chosen
    if spec.label_smoothing and cls is nn.BCEWithLogitsLoss:
        function = Smoothed(chosen, spec.label_smoothing)
    return Loss(function, getattr(chosen, "__name__", type(chosen).__name__), _wants(chosen, job, head))


def _wants(made: Any, job: Job, head: Head) -> str:
    if job.task == "regression":
        return "numbers"
    if head.kind == "sigmoid":
        return "sign" if isinstance(made, OF_SIGNS) else "logit"
    if isinstance(made, OF_SIGNS):
        return "signs"
    return "onehot" if isinstance(made, OF_CLASSES) and not isinstance(made, OF_CODES) else "codes"


def _refuse(chosen: Any, job: Job, head: Head) -> None:
    """Refuse what takes probabilities, and what is made for another kind of task or of output."""
    cls = chosen if inspect.isclass(chosen) else type(chosen)
    refuse_losses(cls)
    is_regression = job.task == "regression"
    if not inspect.isclass(cls):
        return
    if issubclass(cls, OF_CLASSES if is_regression else OF_NUMBERS):
        fitting = "MSELoss, L1Loss, SmoothL1Loss, HuberLoss" if is_regression else "CrossEntropyLoss, BCEWithLogitsLoss"
        raise LeptonError(f"{cls.__name__} does not fit a {job.task} task.", f"Try --loss auto, or one of {fitting}.")
    if issubclass(cls, OF_CODES) and head.kind == "sigmoid":
        raise LeptonError(
            f"{cls.__name__} wants a logit for each class, and '{job.name}' gives one logit.",
            "Try --loss auto, or let its last layer take n_outputs.",
        )


def _weights(chosen: Any, job: Job, head: Head) -> dict[str, torch.Tensor]:
    """Return the arguments by which a loss weights classes by their rarity."""
    codes = job.targets("train", job.some("train"))
    counts = np.maximum(np.bincount(codes, minlength=head.n_outputs), 1)
    names = _names(chosen)
    if head.kind == "sigmoid" and "pos_weight" in names:
        n_positive = counts[head.positive_index]
        return {"pos_weight": torch.tensor((len(codes) - n_positive) / n_positive, dtype=torch.float32)}
    if "weight" in names and head.kind == "softmax":
        return {"weight": torch.tensor(len(codes) / (len(counts) * counts), dtype=torch.float32)}
    raise LeptonError(
        f"--class-weight means nothing for {getattr(chosen, '__name__', chosen)} here.", "Try --loss auto."
    )


def _smoothing(chosen: Any, share: float) -> dict[str, float]:
    """Return the argument by which a loss smooths its labels."""
    if "label_smoothing" in _names(chosen):
        return {"label_smoothing": share}
    raise LeptonError(
        f"--label-smoothing means nothing for {getattr(chosen, '__name__', chosen)}.",
        "Try --loss auto, or leave it out.",
    )


def _names(chosen: Any) -> Collection[str]:
    return (
        inspect.signature(chosen).parameters if inspect.isclass(chosen) else inspect.signature(type(chosen)).parameters
    )


class Smoothed(nn.Module):
    """Binary cross-entropy with labels drawn towards a half.

    C. Szegedy et al. (2016), "Rethinking the Inception architecture for computer vision", for two classes: with the
    share s the labels 0 and 1 become s / 2 and 1 - s / 2.
    """

    def __init__(self, loss: nn.Module, share: float) -> None:
        super().__init__()
        self.loss, self.share = loss, share

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch."""
        smoothed: torch.Tensor = self.loss(output, target * (1 - self.share) + self.share / 2)
        return smoothed


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
    if loss.wants in ("onehot", "signs"):
        onehot = np.eye(head.n_outputs, dtype=np.float32)[values]
        return torch.from_numpy(onehot if loss.wants == "onehot" else 2 * onehot - 1)
    if loss.wants in ("logit", "sign"):
        is_positive = (values == head.positive_index).astype(np.float32)
        return torch.from_numpy(is_positive if loss.wants == "logit" else 2 * is_positive - 1).reshape(
            len(values), *like
        )
    scaled = (values - np.array(head.offset)) / np.array(head.scale) if head.scale else values
    return torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32))
