"""Rows as tensors, and how a module takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lepton_jupyter.formats.schema import ROWS_AT_ONCE
from lepton_jupyter.stages.train.construct import names_arguments

Tensors = tuple[torch.Tensor, ...]


def takes_categories(module: Any) -> bool:
    """Whether a module (or its class) names ``numeric`` and ``categorical`` in forward."""
    forward = getattr(module, "forward", None)
    return forward is not None and names_arguments(forward, "numeric", "categorical")


def names_tokens(module: Any) -> bool:
    """Whether a module (or its class) names ``tokens`` in forward."""
    forward = getattr(module, "forward", None)
    return forward is not None and names_arguments(forward, "tokens")


def names_for(model: Any, *, has_prose: bool) -> tuple[str, ...]:
    """Return the names under which a module (or its class, or what will make it) gets the columns of a table."""
    if has_prose and names_tokens(model):
        return tuple(name for name in ("numeric", "categorical", "tokens") if names_arguments(model.forward, name))
    is_embedding = takes_categories(model) or names_arguments(model, "cardinalities")
    return ("numeric", "categorical") if is_embedding else ("features",)


@dataclass(frozen=True)
class Feed:
    """The names under which a module gets its tensors.

    Attributes
    ----------
    names : tuple of str
        ``("features",)``: one float32 tensor [B, F], given by position; ``("numeric", "categorical")``: float32
        [B, Fn] and int64 codes [B, Fc], given by name; ``("tensor",)``: float32 [B, *shape]. ``"tokens"``, alone or
        behind those of a table that the module names: int64 [B, T] of a column of prose, [B, n, T] of several.
    is_image : bool
        Whether the tensor lies in memory as uint8 and is given as float32, 0 to 1. This is part of the graph.
    at_once : int
        Rows that go through the module at once without gradients.
    """

    names: tuple[str, ...]
    is_image: bool = False
    at_once: int = ROWS_AT_ONCE

    def given(self, tensors: Tensors) -> Tensors:
        """Return a batch as the module is given it: the pixels of images as shares of 255."""
        if not self.is_image or tensors[0].dtype != torch.uint8:
            return tensors
        return (tensors[0].float() / 255.0,)

    def call(self, module: Callable[..., Any], tensors: Tensors) -> Any:
        """Return the module's raw answer for a batch."""
        __tracebackhide__ = True
        tensors = self.given(tensors)
        if len(self.names) == 1 and self.names != ("tokens",):
            return module(tensors[0])
        return module(**dict(zip(self.names, tensors, strict=True)))

    def describe(self, tensors: Tensors) -> str:
        """Return ``a float32 tensor [64, 30]`` for messages."""
        tensors = self.given(tensors)
        return " and ".join(
            f"{name + ', ' if len(tensors) > 1 else ''}a {str(tensor.dtype).removeprefix('torch.')} tensor "
            f"{list(tensor.shape)}"
            for name, tensor in zip(self.names, tensors, strict=True)
        )


@dataclass
class Rows:
    """A split on the device.

    Attributes
    ----------
    inputs : tuple of Tensor
        As `Feed` names them.
    targets : Tensor
        As the loss wants them.
    values : NDArray
        int64 codes [N] or float64 [N, T] in original units.
    """

    inputs: Tensors
    targets: torch.Tensor
    values: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        """Return a batch by row numbers."""
        return tuple(tensor[index] for tensor in self.inputs), self.targets[index]


def chunks(tensors: Tensors, size: int = ROWS_AT_ONCE) -> Iterator[Tensors]:
    """Yield the rows in slices."""
    for start in range(0, len(tensors[0]), size):
        yield tuple(tensor[start : start + size] for tensor in tensors)


def batch_bounds(n_rows: int, batch_size: int) -> list[tuple[int, int]]:
    """Return the slices of one epoch. A last batch of one row joins the one before: BatchNorm cannot take it.

    Examples
    --------
    >>> batch_bounds(9, 4)
    [(0, 4), (4, 9)]
    """
    bounds = [(start, min(start + batch_size, n_rows)) for start in range(0, n_rows, batch_size)]
    if len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        bounds[-2:] = [(bounds[-2][0], n_rows)]
    return bounds


def auto_batch_size(n_rows: int) -> int:
    """Return a batch size for ``auto``: a power of two near a tenth of the rows, 16 to 1024.

    Examples
    --------
    >>> auto_batch_size(341), auto_batch_size(1_000_000)
    (32, 1024)
    """
    return min(1024, max(16, 2 ** round(np.log2(max(n_rows, 1) / 10))))
