"""What can be said of a training before anything starts: its names, its numbers and the arguments of its model."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.stages.train.construct import check_arguments
from lepton_jupyter.stages.train.judged import full_name
from lepton_jupyter.stages.train.spec import Train

AUGMENTS = {"flip": 0.5, "crop": 4.0, "noise": 0.1, "mixup": 0.2}  # and the number that a bare name stands for
OF_TORCH = (
    "epochs",
    "batch_size",
    "lr",
    "optimizer",
    "weight_decay",
    "optimizer_args",
    "loss",
    "label_smoothing",
    "lr_scheduler",
    "warmup",
    "clip",
    "accumulate",
    "ema",
    "augment",
    "metric",
    "patience",
    "precision",
    "compile",
    "shard",
    "checkpoint_every_s",
    "resume",
    "scale_target",
    "tokenizer",
    "max_tokens",
)  # flags that mean nothing where no gradient is followed


def preflight(
    model: Any, spec: Train, *, named: Collection[str], data: str, own: Mapping[str, Any] | None = None
) -> None:
    """Refuse in the asking process what the run would refuse after its start.

    Parameters
    ----------
    model : class, factory, instance or estimator
    spec : Train
    named : collection of str
        Which of ``optimizer``, ``loss``, ``lr_scheduler``, ``augment:NAME`` are the notebook's own objects.
    data : str
        The dataset's name, for the line to paste.
    own : mapping, optional
        Those objects, as far as they are at hand: then their signatures are looked at too.

    Raises
    ------
    LeptonError
        If a param is not the model's, a required one is missing, a name is known to nobody, or a flag means nothing.
    """
    check_arguments(model, spec.params, name=spec.model, data=data)
    if is_estimator(model):
        refuse_flags(spec, spec.model)
        if n_devices(spec.devices) > 1:
            raise LeptonError(
                f"--devices {spec.devices} means nothing for '{spec.model}', a scikit-learn estimator.",
                "Leave it out: an estimator trains on one device.",
            )
        return
    if spec.shard and n_devices(spec.devices) < 2:
        raise LeptonError(
            f"--shard lays a model out over several devices, and --devices {spec.devices} is one.",
            "Ask for more, such as --devices 2, or leave it out.",
        )
    full_name(spec.metric)
    for word in spec.augment:
        if f"augment:{word}" not in named:
            augment_of(word)
    if "torch" not in sys.modules:
        return  # nothing of torch in hand: the run looks itself
    _check_names(spec, named, own or {})


def _check_names(spec: Train, named: Collection[str], own: Mapping[str, Any]) -> None:
    """Refuse what torch does not know."""
    from lepton_jupyter.stages.train import torch_names  # torch is there already
    from lepton_jupyter.stages.train.optimizers import check_optimizer

    if "optimizer" not in named or "optimizer" in own:
        check_optimizer(spec, own.get("optimizer"))
    if "lr_scheduler" not in named:
        torch_names.scheduler_class(spec.lr_scheduler)
    if "loss" not in named and spec.loss != "auto":
        torch_names.loss_class(spec.loss)
    elif "loss" in own:
        torch_names.refuse_losses(own["loss"])


def n_devices(said: str) -> int:
    """Return how many devices ``--devices`` asks for; one where it says neither how many nor which.

    Examples
    --------
    >>> n_devices("4"), n_devices("0,1"), n_devices("auto")
    (4, 2, 1)
    """
    named = [name for name in said.split(",") if name.strip()]
    return int(said) if said.strip().isdigit() else len(named)


def augment_of(word: str) -> tuple[str, float]:
    """Return an augmentation of ours and its number: of ``crop=4``, ``crop`` and 4; of ``flip``, its usual one.

    ``flip`` takes a share of images, ``crop`` pixels, ``noise`` a standard deviation, ``mixup`` the alpha of its Beta.

    Raises
    ------
    LeptonError
        If there is none of this name (did you mean), or its number is none or out of bounds.

    Examples
    --------
    >>> augment_of("crop=2"), augment_of("flip")
    (('crop', 2.0), ('flip', 0.5))
    """
    name, equals, text = word.partition("=")
    if name not in AUGMENTS:
        raise unknown("augmentation", word if not equals else name, AUGMENTS, "Or name a function of the notebook.")
    if not equals:
        return name, AUGMENTS[name]
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    is_whole = number.is_integer()
    is_fitting = {"flip": 0 < number <= 1, "crop": number >= 1 and is_whole}.get(name, 0 < number < float("inf"))
    if not is_fitting:
        wanted = {"flip": "a share of the images, at most 1", "crop": "a whole number of pixels"}
        raise LeptonError(
            f"--augment {name} takes {wanted.get(name, 'a number more than 0')}, not '{text}'.",
            f"For instance: --augment {name}={AUGMENTS[name]:g}",
        )
    return name, number


def refuse_flags(spec: Train, name: str) -> None:
    """Raise `LeptonError` for a flag that means nothing for a scikit-learn estimator."""
    defaults = {one.name: one.default for one in msgspec.structs.fields(Train)} | {"optimizer_args": {}}
    said = [flag for flag in OF_TORCH if getattr(spec, flag) != defaults[flag]]
    if said:
        raise LeptonError(
            f"--{said[0].replace('_', '-')} means nothing for '{name}', a scikit-learn estimator.",
            "Leave it out; an estimator's own settings are given by -p KEY=VALUE.",
        )


def is_estimator(model: Any) -> bool:
    """Whether a model is an estimator of scikit-learn, or a class of them."""
    base = sys.modules.get("sklearn.base")  # nobody holds an estimator of a package that is not loaded
    if base is None:
        return False
    return issubclass(model, base.BaseEstimator) if inspect.isclass(model) else isinstance(model, base.BaseEstimator)


def is_torchs(model: Any) -> bool:
    """Whether a model is a module of torch, or a class of them. A factory shows only when it is called."""
    torch = sys.modules.get("torch")  # nobody holds a module of a package that is not loaded
    if torch is None:
        return False
    return issubclass(model, torch.nn.Module) if inspect.isclass(model) else isinstance(model, torch.nn.Module)
