"""From raw outputs to probabilities or predictions: the same rule for the loop, the live model and the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from lepton_jupyter.formats.schema import Schema

# B batch, K classes, T targets


@dataclass(frozen=True)
class Head:
    """What follows the model's last layer.

    Attributes
    ----------
    kind : str
        ``softmax`` over [B, K]; ``sigmoid`` of one logit [B] or [B, 1] for the positive class; ``identity``.
    positive_index : int
        Of a sigmoid: the place of the positive class.
    threshold : float
        Probability of the positive class from which it is predicted.
    n_outputs : int
        K or T.
    offset, scale : tuple of float
        Of ``--scale-target``: a prediction in original units is ``output * scale + offset``.
    """

    kind: Literal["softmax", "sigmoid", "identity"]
    n_outputs: int
    positive_index: int = 1
    threshold: float = 0.5
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def decode(self, output: torch.Tensor) -> npt.NDArray[np.float64]:
        """Return probabilities [B, K] or predictions [B, T] of raw outputs, computed in float32 as the graph does."""
        output = output.detach().float()
        if self.kind == "softmax":
            return torch.softmax(output, dim=1).cpu().numpy().astype(np.float64)
        if self.kind == "sigmoid":
            p = torch.sigmoid(output.reshape(-1)).cpu()
            columns = [1 - p, p] if self.positive_index == 1 else [p, 1 - p]
            return torch.stack(columns, dim=1).numpy().astype(np.float64)
        values = output.reshape(output.shape[0], self.n_outputs).cpu().numpy().astype(np.float64)
        return values * np.array(self.scale) + np.array(self.offset) if self.scale else values


def first_tensor(output: Any) -> Any:
    """Return the tensor of a model's answer: itself, the first of a tuple, ``logits`` or the first of a dict."""
    if isinstance(output, dict):
        output = output.get("logits", next(iter(output.values()), None))
    elif hasattr(output, "logits"):
        output = output.logits
    if isinstance(output, (tuple, list)) and output:
        return first_tensor(output[0])
    return output


def head_of_classes(schema: Schema) -> Head:
    """Return the head of a model that gives a number a class, [B, K]."""
    k = len(schema.classes)
    return Head("softmax", k, positive_index=schema.positive_index if k == 2 else 1, threshold=schema.threshold)


def head_for(output: torch.Tensor, schema: Schema, *, scaling: tuple[Any, Any] | None = None) -> Head | None:
    """Return the head that fits a model's output [B, …], or None where its shape fits nothing.

    Parameters
    ----------
    output : Tensor
        Of a batch of B rows.
    schema : Schema
        With the task settled.
    scaling : (offset, scale), optional
        Mean and standard deviation of the targets, where the loss sees standardised ones.
    """
    shape = tuple(output.shape[1:])
    if schema.task == "regression":
        n = len(schema.targets) or 1
        if shape != (n,) and not (n == 1 and shape == ()):
            return None
        offset, scale = scaling if scaling is not None else ((), ())
        return Head("identity", n, offset=tuple(map(float, offset)), scale=tuple(map(float, scale)))
    k = len(schema.classes)
    if shape == (k,):
        return head_of_classes(schema)
    if k == 2 and shape in ((), (1,)):
        return Head("sigmoid", k, positive_index=schema.positive_index, threshold=schema.threshold)
    return None
