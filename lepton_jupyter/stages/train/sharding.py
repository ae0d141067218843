"""Weights that lie in shards over several devices (FSDP2), and how they become whole for a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

# Only `shard` needs torch's machinery, which takes two seconds to import: what is laid out shows by its attributes.


def shard(module: nn.Module, device: torch.device, n: int) -> None:
    """Lay a module's weights out over all devices: block by block, then what is left.

    Parameters
    ----------
    module : Module
        With equal weights in all processes.
    n : int
        Number of processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (n,))
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    if len(names) == len(list(module.parameters())):  # weights that two blocks share belong to the whole
        for block in _blocks(module):
            fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for name in ("training_step", "validation_step"):
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts of a module's outermost sequences: they are gathered one at a time."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from (part for part in child if any(True for _ in part.parameters()))
        else:
            yield from _blocks(child)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whole. Where it lies in shards, all processes must ask at once."""
    gather: Any = getattr(tensor, "full_tensor", None)
    if gather is None:
        return tensor
    found: torch.Tensor = gather()
    return found


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what of a tensor lies in this process: it shares its memory."""
    local: Any = getattr(tensor, "to_local", None)
    return tensor if local is None else local()


def laid_out(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor in shards, where another one is. All processes must do it at once."""
    mesh: Any = getattr(like, "device_mesh", None)
    if mesh is None or hasattr(tensor, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    found: torch.Tensor = distribute_tensor(tensor.to(like.device), mesh, like.placements)  # type: ignore[attr-defined]
    return found
