"""The run's first act: one batch through the model, so that what is wrong is named within seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.feed import Feed, Tensors
from lepton_jupyter.stages.train.heads import Head, first_tensor, head_for
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.places import find_line, forward_place

N_ROWS = 64
MIXING_TOLERANCE = 1e-4  # float32 noise of another batch size stays two decades below

SHAPING = ("View", "Reshape", "UnsafeView", "Squeeze", "Unsqueeze", "Select", "Slice", "Alias", "Clone", "ToCopy", "T")


@contextmanager
def untouched(module: nn.Module, *, is_training: bool) -> Iterator[None]:
    """Leave weights, running statistics, mode and random state as they were."""
    before = {name: tensor.detach().clone() for name, tensor in module.state_dict().items() if torch.is_tensor(tensor)}
    modes = [(part, part.training) for part in module.modules()]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module.train(is_training)
        try:
            yield
        finally:
            own = module.state_dict()
            for name, tensor in before.items():
                own[name].copy_(tensor)
            for part, mode in modes:
                part.training = mode


def first_output(module: nn.Module, feed: Feed, inputs: Tensors, *, is_training: bool = False) -> Any:
    """Return the model's answer for a batch. An error of the user's own code passes, with what was given."""
    __tracebackhide__ = True
    with untouched(module, is_training=is_training):
        try:
            return first_tensor(feed.call(module, inputs))
        except LeptonError:
            raise
        except Exception as error:
            error.add_note(f"The model was given {feed.describe(inputs)}: the first {len(inputs[0])} training rows.")
            raise


def check_first_batch(job: Job, module: nn.Module, feed: Feed, inputs: Tensors, scaling: Any) -> tuple[Head, Tensors]:
    """Put one batch through the model, for training and for validation.

    Parameters
    ----------
    job : Job
    module : Module
    feed : Feed
    inputs : tuple of Tensor
        Up to `N_ROWS` training rows.
    scaling : (offset, scale) or None
        As `heads.head_for` takes it.

    Returns
    -------
    head : Head
    output : tuple of one Tensor
        The raw answer in evaluation mode.

    Raises
    ------
    LeptonError
        If the answer is no float tensor, its shape fits nothing, or it holds probabilities.
    """
    __tracebackhide__ = True
    if len(inputs[0]) > 1:
        first_output(module, feed, inputs, is_training=True)
    output = first_output(module, feed, inputs)
    where = forward_place(module)
    at = f" ({where})" if where else ""
    if not torch.is_tensor(output) or not output.is_floating_point():
        found = f"a {output.dtype!s} tensor" if torch.is_tensor(output) else f"{type(output).__name__}"
        raise LeptonError(f"forward of '{job.name}' gives {found}{at}.", "Return one float tensor [rows, outputs].")
    head = head_for(output, job.schema, scaling=scaling) if _has_rows(output, inputs) else None
    if head is None:
        raise _wrong_shape(job, output, len(inputs[0]), at)
    if head.kind != "identity":
        _refuse_probabilities(job, module, feed, inputs, output)
    return head, (output,)


def _has_rows(output: torch.Tensor, inputs: Tensors) -> bool:
    return output.ndim >= 1 and len(output) == len(inputs[0])


def _wrong_shape(job: Job, output: torch.Tensor, n_rows: int, at: str) -> LeptonError:
    if job.task == "regression":
        wanted = f"[{n_rows}, {job.n_outputs}]: one number for each target ({', '.join(job.schema.targets)})"
    elif job.task == "binary":
        wanted = f"[{n_rows}, 2] (a logit for each class) or [{n_rows}, 1] (one logit)"
    else:
        wanted = f"[{n_rows}, {job.n_outputs}]: one logit for each class ({', '.join(job.schema.classes[:8])})"
    return LeptonError(
        f"forward of '{job.name}' gives {list(output.shape)} for {n_rows} rows{at}; {wanted} is wanted.",
        "Let the last layer take n_outputs, which the constructor is given where it names it.",
    )


def _refuse_probabilities(job: Job, module: nn.Module, feed: Feed, inputs: Tensors, output: torch.Tensor) -> None:
    """Refuse a model that ends in softmax or sigmoid, shown by what autograd recorded or by its answers."""
    with untouched(module, is_training=False), torch.enable_grad():
        word = _last_operation(first_tensor(feed.call(module, inputs)))
    if not word and output.ndim == 2 and output.shape[1] > 1 and _sums_to_one(output):
        word = "softmax"  # by hand, or where autograd was off
    if not word:
        return
    line = find_line(module, word)
    raise LeptonError(
        f"'{job.name}' ends in {word}: its outputs are probabilities, and logits are wanted.",
        f"Change {line}: return the value before {word}." if line else f"Remove the {word} at its end.",
    )


def _last_operation(output: torch.Tensor) -> str:
    """Return ``sigmoid`` or ``softmax`` where that is the last thing done to an output, but for its shape."""
    node = output.grad_fn
    while node is not None:
        name = node.name().partition("Backward")[0]
        if name in ("Sigmoid", "Softmax"):
            return name.lower()
        if name not in SHAPING or not node.next_functions:
            return ""
        node = node.next_functions[0][0]
    return ""


def _sums_to_one(output: torch.Tensor) -> bool:
    return bool((output >= 0).all()) and bool((output.sum(1) - 1).abs().max() < 1e-4)


def mixes_rows(module: nn.Module, feed: Feed, inputs: Tensors, output: torch.Tensor) -> str:
    """Return why a model's answer for a row depends on the other rows of its batch; empty where it does not.

    Parameters
    ----------
    output : Tensor
        The answer for the whole batch in evaluation mode.
    """
    if len(output) < 2:
        return ""
    alone = first_output(module, feed, tuple(tensor[:1] for tensor in inputs))
    if not torch.is_tensor(alone) or alone.shape[1:] != output.shape[1:]:
        return "its answer for one row alone has another shape than in a batch"
    difference = float((alone[0] - output[0]).abs().max())
    if not difference > MIXING_TOLERANCE * max(1.0, float(output[0].abs().max())):
        return ""
    return f"it mixes rows: the first row alone gives an answer that is off by {difference:.3g} from that in a batch"
