"""The devices of this machine: GPUs and MIG slices by UUID, and slots of the CPU's cores."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from lepton_jupyter.core.devices import CPU, n_cores

log = logging.getLogger("lepton.backend")

LOOK_S = 300.0  # a driver may be loaded, or a MIG layout changed, while we live
Found = TypeVar("Found")


def n_cpu_slots() -> int:
    """Return how many computing runs this machine takes at once: ``LEPTON_CPU_SLOTS``, else its cores."""
    said = os.environ.get("LEPTON_CPU_SLOTS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    return n_cores()


class Devices:
    """What there is, looked at every five minutes. In tests the GPUs are ``LEPTON_DEVICES_FAKE`` (commas between)."""

    def __init__(self) -> None:
        self._gpus: tuple[str, ...] = ()
        self._labels: dict[str, str] = {}
        self._looked_at = -LOOK_S

    @property
    def names(self) -> tuple[str, ...]:
        """Return all of them: GPUs in the driver's order, then ``cpu-0``, ``cpu-1`` …"""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            fake = os.environ.get("LEPTON_DEVICES_FAKE")
            self._labels = {name: "" for name in fake.split(",") if name} if fake is not None else _gpus()
            self._gpus = _allowed(tuple(self._labels))
        return (*self._gpus, *(f"{CPU}{index}" for index in range(n_cpu_slots())))

    def label(self, name: str) -> str:
        """Return what a GPU is called, such as ``NVIDIA H100 80GB HBM3``."""
        return self._labels.get(name, "")


def _allowed(gpus: tuple[str, ...]) -> tuple[str, ...]:
    """Return the GPUs that ``CUDA_VISIBLE_DEVICES`` of this process leaves, in its order; all where it is not set."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is None:
        return gpus
    left: list[str] = []
    for word in (part.strip() for part in said.split(",")):
        if word.isdigit():
            found = gpus[int(word) : int(word) + 1]
        else:
            found = tuple(name for name in gpus if word and name.startswith(word))[:1]
        if not found or found[0] in left:
            break  # as CUDA does: what follows a wrong word is not seen
        left += found
    return tuple(left)


def _gpus() -> dict[str, str]:
    """Return the names of GPUs by UUID; of one that is split, those of its slices. None where nobody can tell."""
    try:
        import pynvml
    except ImportError:
        return {}
    if _or(None, _initialised, pynvml) is None:
        return {}
    found: dict[str, str] = {}
    try:
        for index in range(_or(0, pynvml.nvmlDeviceGetCount)):
            gpu = _or(None, pynvml.nvmlDeviceGetHandleByIndex, index)
            if gpu is not None:
                found |= _of_gpu(pynvml, gpu)
    finally:
        _or(None, pynvml.nvmlShutdown)
    return found


def _initialised(pynvml: Any) -> bool:
    pynvml.nvmlInit()
    return True


def _of_gpu(pynvml: Any, gpu: Any) -> dict[str, str]:
    is_split = _or([0], pynvml.nvmlDeviceGetMigMode, gpu)[0] == 1
    parts = [gpu]
    if is_split:
        n_most = _or(0, pynvml.nvmlDeviceGetMaxMigDeviceCount, gpu)
        slices = (_or(None, pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, index) for index in range(n_most))
        parts = [part for part in slices if part is not None]
    named = {_or("", pynvml.nvmlDeviceGetUUID, part): part for part in parts}
    return {uuid: _or("", pynvml.nvmlDeviceGetName, part) for uuid, part in named.items() if uuid}


def _or(otherwise: Found, ask: Callable[..., Found], *args: Any) -> Found:
    """Return what NVML answers; where it does not, what stands for that."""
    import pynvml

    try:
        return ask(*args)
    except pynvml.NVMLError:
        return otherwise
