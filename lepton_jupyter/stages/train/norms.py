"""BatchNorm over all shares of a batch, so that several processes see the statistics that one would see."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# B batch, C channels


def share_statistics(module: nn.Module, device: torch.device) -> nn.Module:
    """Let each BatchNorm of a module take its statistics over the rows of all processes.

    On GPUs torch's own `nn.SyncBatchNorm` does it; on the CPU, which that does not take, the layer is told to do it
    here.
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    for part in module.modules():
        if type(part) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            part.__class__ = SharedBatchNorm  # the same object: the user's own references to it hold
    return module


class SharedBatchNorm(_BatchNorm):
    """BatchNorm whose mean and variance are those of the whole batch (S. Ioffe and C. Szegedy, 2015)."""

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002  torch's own name, twice
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input)")

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """Return the normalised batch [B, C, …]."""
        self._check_input_dim(input)
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        over = [dim for dim in range(input.ndim) if dim != 1]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        own = torch.tensor([input.numel() / input.shape[1]], dtype=input.dtype)
        sums: torch.Tensor = _Summed.apply(torch.cat([input.sum(over), own]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = input - mean.view(shape)
        variance = _Summed.apply(centred.square().sum(over)) / count
        if self.training and self.track_running_stats:
            self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        found = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            found = found * self.weight.view(shape)
        return found if self.bias is None else found + self.bias.view(shape)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics towards these; the variance is the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Summed(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total
