"""How the machine does while a run computes: sampled beside the supervisor, never in the training's own process."""

from __future__ import annotations

import os
import platform
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

from lepton_jupyter.core.devices import n_cores
from lepton_jupyter.core.processes import Identity
from lepton_jupyter.formats.events import EventWriter, pause_s
from lepton_jupyter.runner.gpus import Gpus

FAMILY_EVERY = 10  # samples between two looks for children


class MachineWatch:
    """A thread that writes telemetry of a run's processes and GPUs into the supervisor's events.

    Parameters
    ----------
    events : EventWriter
    kernel : Identity
        Whose processes are counted: it and its descendants.
    gpus : Gpus, optional
        None for those of ``LEPTON_DEVICES``.
    """

    def __init__(self, events: EventWriter, kernel: Identity, gpus: Gpus | None = None) -> None:
        self.events = events
        self.gpus = gpus
        self._kernel = kernel
        self._family: dict[int, psutil.Process] = {}
        self._n_samples = 0
        self._before: tuple[float, float] | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="machine", daemon=True)

    def start(self) -> MachineWatch:
        """Begin, and return self."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End; nothing is written afterwards."""
        self._end.set()
        self._thread.join(timeout=5)

    def _watch(self) -> None:
        began = monotonic()
        if self.gpus is None:
            self.gpus = Gpus(os.environ.get("LEPTON_DEVICES", "").split(","))
        self.events.write("note", key="hardware", value=hardware(self.gpus))
        self.sample()  # of processor time two are needed
        while not self._end.wait(pause_s(monotonic() - began)):
            if values := self.sample():
                self.events.write("telemetry", values=values)
            if self._n_samples == 2 and (held := self.gpus.held_by_kernels(frozenset(self._family))):
                self.events.write("note", key="gpu_held", value=" ".join(held))

    def sample(self) -> dict[str, float]:
        """Return what can be told now.

        ``cpu_cores`` is how many cores were busy on average since the last sample, ``rss_bytes`` the memory of all
        processes (pages that they share count for each).
        """
        if self._n_samples % FAMILY_EVERY <= 1:  # an exporter, loaders and ranks come early
            self._look_for_family()
        self._n_samples += 1
        cpu_s, rss_bytes, now = 0.0, 0, monotonic()
        for pid, process in list(self._family.items()):
            try:
                with process.oneshot():
                    spent = process.cpu_times()
                    rss_bytes += process.memory_info().rss
            except psutil.Error:
                del self._family[pid]
                continue
            cpu_s += spent.user + spent.system
        values = {"rss_bytes": float(rss_bytes)} if rss_bytes else {}
        if self._before is not None and now > self._before[0]:
            values["cpu_cores"] = max(0.0, cpu_s - self._before[1]) / (now - self._before[0])
        self._before = (now, cpu_s)
        return {**values, **(self.gpus.sample() if self.gpus is not None else {})}

    def _look_for_family(self) -> None:
        try:
            kernel = psutil.Process(self._kernel.pid)
            found = [kernel, *kernel.children(recursive=True)]
        except psutil.Error:
            return
        self._family = {process.pid: self._family.get(process.pid, process) for process in found}


def hardware(gpus: Gpus) -> dict[str, Any]:
    """Return what the run computes on: ``cpu``, ``cores``, ``memory``, ``gpus``, ``system``."""
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": n_cores(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "gpus": ", ".join(gpus.names()),
        "system": f"{platform.system()} {platform.release()}",
    }
    return {key: value for key, value in found.items() if value}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
