"""The optimizer: by torch's name in any case, or the user's own; its arguments, checked before anything starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError, did_you_mean
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.train.torch_names import optimizer_class

BY_FLAG = {"lr": "--lr", "weight_decay": "--weight-decay"}  # what --optimizer-args does not give


def make_optimizer(job: Job, module: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a job: torch's fused form of it where there is one.

    Parameters
    ----------
    job : Job
    module : Module
        On its device.

    Raises
    ------
    LeptonError
        If the name is unknown, an argument is not the optimizer's, or it needs what the loop does not give.
    """
    spec = job.spec
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not weights:
        raise LeptonError(f"'{job.name}' has no weights to train.", "Register it as it is: lepton.save(model, name=…).")
    own: Any = job.names.get("optimizer")
    arguments = check_optimizer(spec, own)
    if own is not None:
        return _made(own, weights, arguments, spec.optimizer)
    chosen = optimizer_class(spec.optimizer)
    if chosen is torch.optim.SparseAdam:
        _refuse_dense(module, job.name)
    if chosen is torch.optim.Muon:
        return _muon(module, weights, arguments)
    if "fused" in inspect.signature(chosen).parameters and _can_fuse(module, weights) and not _is_settled(arguments):
        arguments["fused"] = True  # 1.3 to 4 times as fast as the others, on the CPU too
    return _made(chosen, weights, arguments, spec.optimizer)


def check_optimizer(spec: Train, own: Any = None) -> dict[str, Any]:
    """Return the keywords with which the optimizer is made.

    Parameters
    ----------
    spec : Train
    own : class or function of (params, lr), optional
        The notebook's; None for torch's by name.

    Raises
    ------
    LeptonError
        If the name or an argument is unknown (did you mean), a value is refused, or a flag cannot reach it.
    """
    word = spec.optimizer
    if isinstance(own, torch.optim.Optimizer):
        raise LeptonError(
            f"'{word}' is an optimizer of other weights than those of the run.",
            "Give a class or a function of (params, lr) instead.",
        )
    chosen: Any = own if own is not None else optimizer_class(word)
    takes, takes_any = _keywords(chosen, word)
    arguments: dict[str, Any] = {"lr": spec.lr} if "lr" in takes or takes_any else {}
    if spec.weight_decay is not None:
        if "weight_decay" not in takes and not takes_any:
            raise LeptonError(
                f"--weight-decay means nothing for {_title(chosen, word)}, which has none.",
                "Leave it out, or take an optimizer that has it, such as adamw.",
            )
        arguments["weight_decay"] = spec.weight_decay
    for key, value in spec.optimizer_args.items():
        if key in BY_FLAG:
            raise LeptonError(f"--optimizer-args gives '{key}'.", f"Say it by {BY_FLAG[key]}.")
        if key not in takes and not takes_any:
            known = ", ".join(name for name in takes if name not in BY_FLAG) or "nothing else"
            raise LeptonError(f"{_title(chosen, word)} takes no '{key}'. It takes: {known}.{did_you_mean(key, takes)}")
        arguments[key] = tuple(value) if isinstance(value, list) else value
    # To make one loads torch's compiler, for a second and more in the notebook: only where a value may be refused.
    is_plain = spec.weight_decay is None and not spec.optimizer_args
    if own is None and chosen is not torch.optim.SparseAdam and not is_plain:
        _made(chosen, [nn.Parameter(torch.zeros(2, 2))], arguments, word)  # a value that it refuses is named now
    return arguments


def _keywords(chosen: Any, word: str) -> tuple[list[str], bool]:
    """Return the names that an optimizer takes beside the weights, and whether it takes any."""
    if not callable(chosen):
        raise LeptonError(
            f"--optimizer '{word}' is a {type(chosen).__name__}, not an optimizer.",
            "Give a class or a function of (params, lr).",
        )
    parameters = list(inspect.signature(chosen).parameters.values())
    named = [one.name for one in parameters[1:] if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    return named, any(one.kind is one.VAR_KEYWORD for one in parameters)


def _title(chosen: Any, word: str) -> str:
    return str(getattr(chosen, "__name__", word))


def _made(
    chosen: Callable[..., Any], weights: Iterable[torch.Tensor], arguments: Mapping[str, Any], word: str
) -> torch.optim.Optimizer:
    __tracebackhide__ = True
    is_torchs = getattr(chosen, "__module__", "").startswith("torch.")
    try:
        made = chosen(weights, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        if not is_torchs:
            raise
        said = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise LeptonError(
            f"{_title(chosen, word)} refuses {said}: {str(error).splitlines()[0]}", "Change --optimizer-args or --lr."
        ) from error
    if not isinstance(made, torch.optim.Optimizer) and not (hasattr(made, "step") and hasattr(made, "param_groups")):
        raise LeptonError(
            f"'{word}' gave a {type(made).__name__}, not an optimizer.", "Return one of torch.optim's kind from it."
        )
    return made


def _is_settled(arguments: Mapping[str, Any]) -> bool:
    """Whether the user chose a form of the step, which the fused one would contradict."""
    return any(arguments.get(key) is not None for key in ("fused", "foreach", "differentiable"))


def _can_fuse(module: nn.Module, weights: Iterable[torch.Tensor]) -> bool:
    """Whether a fused step takes these weights: it wants dense gradients of the usual floats."""
    floats = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    is_sparse = any(getattr(part, "sparse", False) is True for part in module.modules())
    return not is_sparse and all(weight.dtype in floats and weight.device.type in ("cpu", "cuda") for weight in weights)


def _refuse_dense(module: nn.Module, name: str) -> None:
    for part in module.modules():
        if getattr(part, "sparse", False) is not True and any(one.requires_grad for one in part.parameters(False)):
            raise LeptonError(
                f"SparseAdam wants sparse gradients, and '{name}' has a {type(part).__name__}, whose are dense.",
                "Try --optimizer adamw; SparseAdam is for models of nn.Embedding(…, sparse=True) alone.",
            )


def _muon(module: nn.Module, weights: list[nn.Parameter], arguments: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Return Muon for the matrices, and AdamW for what else there is.

    Muon orthogonalises a matrix's step (K. Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural
    networks"), which has no meaning for biases, kernels and embeddings. Its step is scaled to AdamW's, so that one
    rate serves both (J. Liu et al., 2025, "Muon is scalable for LLM training").
    """
    embedded = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
    matrices = [weight for weight in weights if weight.ndim == 2 and id(weight) not in embedded]
    of_muon = {"adjust_lr_fn": "match_rms_adamw", **arguments}
    chosen = {id(weight) for weight in matrices}
    rest = [weight for weight in weights if id(weight) not in chosen]
    if not matrices:
        raise LeptonError("Muon steps matrices, and this model has none.", "Try --optimizer adamw.")
    muon = _made(torch.optim.Muon, matrices, of_muon, "muon")
    if not rest:
        return muon
    of_adamw = {key: value for key, value in arguments.items() if key in ("lr", "weight_decay")}
    return MuonAndAdamW(muon, torch.optim.AdamW(rest, **of_adamw, fused=_can_fuse(module, rest) or None))


class MuonAndAdamW(torch.optim.Optimizer):
    """Two optimizers that step as one: Muon's matrices, and the other weights by AdamW."""

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
        self.parts = (muon, adamw)
        super().__init__(
            [weight for part in self.parts for group in part.param_groups for weight in group["params"]], {}
        )
        self._share()

    def _share(self) -> None:
        """Show the parts' own groups: a rate that is set there is the part's rate."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> Any:
        """Step both."""
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of both back."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()


def make_scheduler(job: Job, optimizer: torch.optim.Optimizer) -> Any:
    """Return the schedule of a job, stepped once an epoch."""
    from lepton_jupyter.stages.train.schedules import make_schedule

    return make_schedule(job, optimizer, None)


def step_scheduler(scheduler: Any, val_loss: float) -> None:
    """Go one epoch on."""
    scheduler.epoch(val_loss)
