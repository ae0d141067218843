"""Memory of a device that is too small for a batch: known by its error, answered by smaller parts."""

from __future__ import annotations

import gc

import torch

from lepton_jupyter.core.errors import LeptonError

SAID = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no room."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in SAID)


def free_memory() -> None:
    """Give back what nobody holds any more. Call it where the error, which holds tensors, is gone."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def no_room(device: torch.device, doing: str) -> LeptonError:
    """Return the error of a step that does not fit even row by row."""
    peak = ""
    if device.type == "cuda":
        total, most = torch.cuda.get_device_properties(device).total_memory, torch.cuda.max_memory_allocated(device)
        peak = f" It has {total / 2**30:.1f} GiB, of which this run used {most / 2**30:.1f} at most."
    return LeptonError(
        f"The memory of {device} is too small to {doing}, even one row at a time.{peak}",
        "Use a smaller model, or a device with more memory: %lepton devices",
        code="failed",
    )


def no_room_here(device: torch.device, n_rows: int, n_parts: int) -> LeptonError:
    """Return the error of a step of one of several processes: it cannot try again while the others wait for it."""
    return LeptonError(
        f"The memory of {device} is too small for a step of {-(-n_rows // n_parts)} rows.",
        f"Let them go through in smaller parts, with the same gradient: --accumulate {2 * n_parts}",
        code="failed",
    )
