"""What NVML tells of the GPUs that a run holds; whatever it does not tell is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil

MIB = 2**20


class Gpus:
    """The GPUs of a run.

    Parameters
    ----------
    devices : sequence of str
        What the run holds; NVML is asked for the UUIDs among them (``GPU-…``, ``MIG-…``) only.
    nvml : module, optional
        None for `pynvml`.
    """

    def __init__(self, devices: Sequence[str], nvml: Any = None) -> None:
        self._nvml = nvml
        self._handles: list[Any] = []
        uuids = [name for name in devices if name.startswith(("GPU-", "MIG-"))]
        if not uuids:
            return
        if self._nvml is None:
            import pynvml  # lazy: most runs hold no GPU

            self._nvml = pynvml
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError:
            return
        found = [self._told("nvmlDeviceGetHandleByUUID", uuid) for uuid in uuids]
        self._handles = [handle for handle in found if handle is not None]

    def names(self) -> list[str]:
        """Return what they are: ``NVIDIA H100 80GB HBM3``."""
        found = [self._told("nvmlDeviceGetName", gpu) for gpu in self._handles]
        return [name.decode() if isinstance(name, bytes) else str(name) for name in found if name is not None]

    def sample(self) -> dict[str, float]:
        """Return ``gpu_share`` (mean, 0–1), ``gpu_bytes`` and ``gpu_total_bytes`` (sums), as far as they are told."""
        values: dict[str, float] = {}
        busy = [self._told("nvmlDeviceGetUtilizationRates", gpu) for gpu in self._handles]
        memory = [self._told("nvmlDeviceGetMemoryInfo", gpu) for gpu in self._handles]
        shares = [float(each.gpu) / 100 for each in busy if each is not None]
        if shares:
            values["gpu_share"] = sum(shares) / len(shares)
        for key, name in (("gpu_bytes", "used"), ("gpu_total_bytes", "total")):
            told = [float(getattr(each, name)) for each in memory if each is not None]
            if told:
                values[key] = sum(told)
        return values

    def held_by_kernels(self, ours: frozenset[int]) -> list[str]:
        """Return who else of this user's Jupyter kernels holds memory on these GPUs, a sentence each.

        Parameters
        ----------
        ours : frozenset of int
            Processes of the run itself.
        """
        told: dict[int, int] = {}
        for gpu in self._handles:
            for process in self._told("nvmlDeviceGetComputeRunningProcesses", gpu) or ():
                told[process.pid] = told.get(process.pid, 0) + (getattr(process, "usedGpuMemory", None) or 0)
        return [
            sentence
            for pid, size in told.items()
            if pid not in ours and (sentence := _kernel_of_ours(pid, size)) is not None
        ]

    def _told(self, function: str, what: Any) -> Any:
        """Return what a function of NVML says; None where it says that it cannot."""
        try:
            return getattr(self._nvml, function)(what)
        except self._nvml.NVMLError:
            return None


def _kernel_of_ours(pid: int, size: int) -> str | None:
    """Return a sentence about a process that is a Jupyter kernel of this user; None for any other."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            is_kernel = any("ipykernel" in word for word in process.cmdline())
            if not is_kernel or process.uids().real != psutil.Process().uids().real:
                return None
            where = process.cwd()
    except (psutil.Error, OSError):
        return None
    held = f"{size / MIB:.0f} MiB of " if size else ""
    return f"Your notebook's kernel (process {pid}, in {where}) holds {held}this run's GPU: restart it to have it back."
