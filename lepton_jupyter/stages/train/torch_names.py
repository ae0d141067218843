"""What torch calls its optimizers, schedules and losses: in any case, with ``did you mean``."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError, unknown

OPTIMIZERS = {
    name.lower(): value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
}
SCHEDULERS = {
    name.lower(): value
    for name, value in vars(torch.optim.lr_scheduler).items()
    if inspect.isclass(value)
    and name[0] != "_"
    and issubclass(value, torch.optim.lr_scheduler.LRScheduler)
    and name not in ("LRScheduler", "ChainedScheduler", "SequentialLR", "LambdaLR", "MultiplicativeLR")
}
OUR_SCHEDULES = {"cosine": "cosine", "onecycle": "one-cycle", "constant": "constant"}
LOSSES = {name.lower(): value for name, value in vars(nn).items() if name.endswith("Loss")}
OF_PROBABILITIES = {"BCELoss": "BCEWithLogitsLoss", "NLLLoss": "CrossEntropyLoss", "KLDivLoss": "CrossEntropyLoss"}
_OF_PAIRS = "compares rows with one another"
_A_LAYER = "is a layer with weights of its own"
REFUSED = {
    "AdaptiveLogSoftmaxWithLoss": _A_LAYER,
    "LinearCrossEntropyLoss": _A_LAYER,
    "CosineEmbeddingLoss": _OF_PAIRS,
    "HingeEmbeddingLoss": _OF_PAIRS,
    "MarginRankingLoss": _OF_PAIRS,
    "TripletMarginLoss": _OF_PAIRS,
    "TripletMarginWithDistanceLoss": _OF_PAIRS,
    "CTCLoss": "takes the lengths of sequences",
    "GaussianNLLLoss": "takes a variance for each output",
    "MultiLabelMarginLoss": "takes several labels a row",
}


def optimizer_class(word: str) -> type[torch.optim.Optimizer]:
    """Return the optimizer of this name. Raises `LeptonError` (did you mean)."""
    found = OPTIMIZERS.get(word.lower().replace("_", ""))
    if found is None:
        raise unknown("optimizer", word, [value.__name__ for value in OPTIMIZERS.values()])
    if found is torch.optim.LBFGS:
        raise LeptonError("LBFGS calls the model several times a step, which this loop does not do.", "Try adamw.")
    return found


def schedule_word(word: str) -> str:
    """Return a schedule's name as it is compared: ``One-Cycle`` is ``onecycle``, and so is ``OneCycleLR``."""
    key = word.lower().replace("_", "").replace("-", "")
    return "onecycle" if key == "onecyclelr" else key


def scheduler_class(word: str) -> type[torch.optim.lr_scheduler.LRScheduler] | None:
    """Return the schedule of torch of this name; None for ours. Raises `LeptonError` (did you mean)."""
    key = schedule_word(word)
    if key in OUR_SCHEDULES:
        return None
    key = {"plateau": "reducelronplateau"}.get(key, key)
    found = SCHEDULERS.get(key) or SCHEDULERS.get(key + "lr")
    if found is None:
        known = [*OUR_SCHEDULES.values(), "step", "plateau", *(value.__name__ for value in SCHEDULERS.values())]
        raise unknown("lr-scheduler", word, known)
    return found


def loss_class(word: str) -> type[nn.Module]:
    """Return the loss of this name.

    Raises
    ------
    LeptonError
        If there is none (did you mean), or it takes something else than a model's outputs and their targets.
    """
    key = word.lower().replace("_", "").replace("-", "")
    found = LOSSES.get(key) or LOSSES.get(key + "loss")
    if found is None:
        raise unknown("loss", word, [value.__name__ for value in LOSSES.values() if value.__name__ not in REFUSED])
    refuse_losses(found)
    return found


def refuse_losses(chosen: Any) -> None:
    """Raise `LeptonError` where a loss of torch takes probabilities, or more than outputs and targets."""
    cls = chosen if inspect.isclass(chosen) else type(chosen)
    if not cls.__module__.startswith("torch."):
        return
    if cls.__name__ in OF_PROBABILITIES:
        raise LeptonError(
            f"{cls.__name__} takes probabilities, and a model's outputs are logits here.",
            f"Use --loss {OF_PROBABILITIES[cls.__name__]}, and return the value before sigmoid or softmax.",
        )
    if cls.__name__ in REFUSED:
        raise LeptonError(
            f"{cls.__name__} {REFUSED[cls.__name__]}; here a loss takes the model's outputs and their targets.",
            "Try --loss auto, or give the module a training_step(self, batch) that returns its loss.",
        )
