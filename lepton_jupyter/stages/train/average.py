"""A moving average of the weights: smoother than the last step's, and often better."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lepton_jupyter.stages.train.sharding import laid_out, own_part


class Average:
    """An exponential moving average of a module's weights (B. T. Polyak and A. B. Juditsky, 1992; here with decay).

    Parameters
    ----------
    decay : float
        Between 0 and 1. In the first steps it is (1 + n) / (10 + n), so that the average leaves the start soon.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        named = [(name, weight) for name, weight in module.named_parameters() if weight.is_floating_point()]
        self._names = [name for name, _ in named]
        self._weights = [own_part(weight.detach()) for _, weight in named]
        self._whole_means = [weight.detach().clone() for _, weight in named]
        self._means = [own_part(mean) for mean in self._whole_means]
        self._decay = decay
        self._n = 0

    def update(self) -> None:
        """Take in the weights as a step left them."""
        self._n += 1
        decay = min(self._decay, (1 + self._n) / (10 + self._n))
        torch._foreach_lerp_(self._means, self._weights, 1 - decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Give the module the averaged weights for a while."""
        kept = [weight.clone() for weight in self._weights]
        torch._foreach_copy_(self._weights, self._means)
        try:
            yield
        finally:
            torch._foreach_copy_(self._weights, kept)

    def state_dict(self) -> dict[str, object]:
        """Return what it needs to go on."""
        return {"n": self._n, "means": dict(zip(self._names, self._whole_means, strict=True))}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from a state."""
        self._n = int(state["n"])  # type: ignore[call-overload]
        means = state["means"]
        assert isinstance(means, dict)
        for name, mean in zip(self._names, self._whole_means, strict=True):
            mean.copy_(laid_out(means[name], mean))
