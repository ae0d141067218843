"""In which numbers a model computes, and how its weights lie: float32, and bf16 is for what gains by it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError

CHANNELS_LAST = {("cuda", "bf16")}  # where convolutions want it: tensor cores (NVIDIA, "Convolutional layers", 2023)


@dataclass(frozen=True)
class Precision:
    """A settled precision on a device.

    Attributes
    ----------
    name : str
        ``fp32`` or ``bf16``.
    device : device
    """

    name: str
    device: torch.device

    def context(self) -> AbstractContextManager[object]:
        """Return what a forward pass and its loss run in."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def settle_precision(asked: str, device: torch.device) -> Precision:
    """Return the precision of a run; on GPUs float32 products may use TF32, which keeps 10 bits of the mantissa.

    Raises
    ------
    LeptonError
        If bf16 is asked for on a GPU that has none.
    """
    is_gpu = device.type == "cuda"
    has_bf16 = is_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "bf16" and is_gpu and not has_bf16:
        name = torch.cuda.get_device_name(device)
        raise LeptonError(f"--precision bf16: {name} has no bf16.", "Leave it at auto.")
    if is_gpu:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    return Precision("bf16" if asked == "bf16" or (asked == "auto" and has_bf16) else "fp32", device)


def placed(module: nn.Module, precision: Precision, *, is_alone: bool) -> nn.Module:
    """Return the module on its device, the channels of its images last where convolutions are faster so.

    Only in a process that trains alone: FSDP shards nothing that is laid out otherwise.
    """
    module = module.to(precision.device)
    has_images = any(isinstance(part, nn.Conv2d) for part in module.modules())
    fits = all(weight.ndim != 5 for weight in module.state_dict().values() if torch.is_tensor(weight))
    if is_alone and has_images and fits and (precision.device.type, precision.name) in CHANNELS_LAST:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module
