"""How the machine does beside a run: real processes, and an NVML that tells little (none is on most machines)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lepton_jupyter.core.processes import Identity
from lepton_jupyter.formats.events import EventReader, EventWriter
from lepton_jupyter.runner.gpus import Gpus
from lepton_jupyter.runner.machine import MachineWatch

BUSY = "x = bytearray(64 << 20)\nprint(flush=True)\nwhile True: pass"
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose child computes."""
    process = subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    os.killpg(process.pid, 9)
    process.wait()
    process.stdout.close()


def test_what_the_kernel_and_its_children_use_is_told(
    busy: subprocess.Popen[bytes], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    path = tmp_path / "events.jsonl"
    kernel = Identity.of(busy.pid)
    assert kernel is not None
    events = EventWriter(path)
    watch = MachineWatch(events, kernel).start()
    eventually(lambda: [e for _, e in EventReader(path).read() if e["kind"] == "telemetry"])
    watch.stop()
    told = [event for _, event in EventReader(path).read()]
    assert told[0]["key"] == "hardware"
    assert told[0]["value"]["cores"] >= 1
    values = told[1]["values"]
    assert 0 < values["cpu_cores"] <= (os.cpu_count() or 1) + 0.1
    assert values["rss_bytes"] > 64 << 20
    assert set(values) == {"cpu_cores", "rss_bytes"}  # it holds no GPU
    events.close()


def test_a_kernel_that_is_gone_tells_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    identity = Identity.of(process.pid) or Identity(process.pid, 0, "")
    process.wait()
    watch = MachineWatch(EventWriter(tmp_path / "e"), identity, Gpus(()))
    assert watch.sample() == {}


class Nvml:
    """An NVML of a driver that knows some of what is asked."""

    class NVMLError(Exception):
        pass

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def __getattr__(self, name: str) -> Any:
        def ask(*_: Any) -> Any:
            if name not in self.answers:
                raise self.NVMLError(name)
            return self.answers[name]

        return ask


def test_each_figure_of_a_gpu_is_told_or_left_out_by_itself() -> None:
    memory = SimpleNamespace(used=3 << 30, total=80 << 30)
    some = Nvml(nvmlInit=None, nvmlDeviceGetHandleByUUID=object(), nvmlDeviceGetMemoryInfo=memory)
    assert Gpus(("GPU-1", "GPU-2"), some).sample() == {"gpu_bytes": 6 << 30, "gpu_total_bytes": 160 << 30}
    assert Gpus(("GPU-1",), some).names() == []
    busy = Nvml(nvmlInit=None, nvmlDeviceGetHandleByUUID=1, nvmlDeviceGetUtilizationRates=SimpleNamespace(gpu=50))
    assert Gpus(("MIG-1", "cpu-0"), busy).sample() == {"gpu_share": 0.5}
    assert Gpus(("GPU-1",), Nvml()).sample() == {}  # no driver
    assert Gpus(("cpu-0",), Nvml(nvmlInit=None, nvmlDeviceGetHandleByUUID=1)).sample() == {}
    assert set(Gpus(("GPU-of-nobody",)).sample()) == set()  # the real one


def test_a_notebooks_kernel_that_holds_the_gpu_is_named(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", "ipykernel_launcher"]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE) as kernel:
        assert kernel.stdout is not None
        kernel.stdout.readline()
        holders = [
            SimpleNamespace(pid=kernel.pid, usedGpuMemory=512 << 20),
            SimpleNamespace(pid=os.getpid(), usedGpuMemory=1 << 20),  # no kernel
            SimpleNamespace(pid=2**22 + 1, usedGpuMemory=None),  # of another container
        ]
        nvml = Nvml(nvmlInit=None, nvmlDeviceGetHandleByUUID=1, nvmlDeviceGetComputeRunningProcesses=holders)
        gpus = Gpus(("GPU-1",), nvml)
        (told,) = gpus.held_by_kernels(frozenset())
        assert str(kernel.pid) in told
        assert "512 MiB" in told
        assert str(tmp_path) in told
        assert gpus.held_by_kernels(frozenset({kernel.pid})) == []
        kernel.kill()
