"""Who may start, and with which lease."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.backend.devices import Devices
from lepton_jupyter.backend.queue import Lease, Slots, descendants, in_order, waits_for_device
from lepton_jupyter.core.devices import is_cpu
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import RunView


def view(run_id: str, parent: str | None = None) -> RunView:
    return RunView(run_id=run_id, kind="train", title="t", state="queued", created_at=0.0, parent=parent)


def test_a_run_inside_a_run_with_a_device_needs_none() -> None:
    needs = {"a": True, "b": False, "c": True}
    parents = {"a": None, "b": "a", "c": "b"}
    assert not waits_for_device(view("c", "b"), needs, parents)
    assert waits_for_device(view("c", "b"), {**needs, "a": False}, parents)
    assert not waits_for_device(view("b", "a"), needs, parents)


def test_descendants_come_deepest_first() -> None:
    assert list(descendants("a", {"a": None, "b": "a", "c": "b", "x": None})) == ["c", "b"]


@pytest.fixture
def slots(home: Home, monkeypatch: pytest.MonkeyPatch) -> Slots:
    """Two GPUs and two slots of the CPU."""
    monkeypatch.setenv("LEPTON_DEVICES_FAKE", "GPU-a,GPU-b")
    monkeypatch.setenv("LEPTON_CPU_SLOTS", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Slots(home)


def taken(slots: Slots, said: str, not_to_be_had: Collection[str] = ()) -> Lease:
    lease = slots.take(slots.choose(said), not_to_be_had)
    assert lease is not None
    return lease


def test_a_slot_is_taken_once(slots: Slots) -> None:
    first, second = taken(slots, "cpu"), taken(slots, "cpu")
    assert {*first.names, *second.names} == {"cpu-0", "cpu-1"}
    assert slots.take(slots.choose("cpu"), ()) is None
    first.release()
    assert slots.take(slots.choose("cpu"), first.names) is None  # its run is still there
    third = taken(slots, "cpu")
    assert third.names == first.names
    for lease in (second, third):
        lease.release()


def test_auto_is_a_gpu_and_several_are_taken_together_or_not_at_all(slots: Slots) -> None:
    one = taken(slots, "auto")
    assert one.names == ("GPU-a",)
    assert slots.take(slots.choose("2"), ()) is None
    assert not slots.folder.is_held("GPU-b")
    one.release()
    both = taken(slots, "0,1")
    assert both.names == ("GPU-a", "GPU-b")
    both.release()


@pytest.mark.parametrize("said", ["99", "3", "0,7", "0", "", "x", "1.5", "0,0", "GPU-a,cpu-0", "-1"])
def test_what_can_never_be_had_is_named_with_what_there_is(slots: Slots, said: str) -> None:
    with pytest.raises(LeptonError, match="--devices") as caught:
        slots.choose(said)
    assert said in caught.value.message
    assert caught.value.hint


def test_gpus_that_the_backend_may_not_see_are_not_given_away(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert slots.choose("auto").names == ("GPU-b",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Slots(Home.current()).choose("auto").names == ("cpu-0", "cpu-1")


def test_a_machine_without_a_driver_has_slots_of_its_cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pynvml = pytest.importorskip("pynvml")
    monkeypatch.delenv("LEPTON_DEVICES_FAKE", raising=False)

    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert all(is_cpu(name) for name in Devices().names)


def test_a_split_gpu_is_its_slices_and_an_error_hides_one_device_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed: NVML's own functions, answering as a driver with one whole, one split, one lost card does."""
    pynvml = pytest.importorskip("pynvml")
    monkeypatch.delenv("LEPTON_DEVICES_FAKE", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def answer(*args: Any) -> Any:
        if "lost" in args or args[-1] == 3:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return args

    answers: dict[str, Callable[..., Any]] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": lambda index: ("whole", "split", "lost")[index],
        "nvmlDeviceGetMigMode": lambda gpu: [1 if gpu == "split" else 0, 0],
        "nvmlDeviceGetMaxMigDeviceCount": lambda gpu: 4,
        "nvmlDeviceGetMigDeviceHandleByIndex": lambda gpu, index: answer(gpu, index) and f"slice{index}",
        "nvmlDeviceGetUUID": lambda part: answer(part) and f"{'MIG' if part.startswith('slice') else 'GPU'}-{part}",
        "nvmlDeviceGetName": lambda part: "H100",
    }
    for name, function in answers.items():
        monkeypatch.setattr(pynvml, name, function)
    devices = Devices()
    assert [name for name in devices.names if not is_cpu(name)] == [
        "GPU-whole", "MIG-slice0", "MIG-slice1", "MIG-slice2",
    ]  # fmt: skip
    assert devices.label("MIG-slice0") == "H100"


def test_who_has_waited_longest_takes_next_and_keeps_what_it_wants_free(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    here, there = Slots(home), Slots(other)
    here.folder.check()
    names = {"cpu-0", "cpu-1"}
    here.settle(names, has_taken=False)
    there.settle(names, has_taken=False)
    assert here.ahead() == set()
    assert there.ahead() == names
    here.settle(names, has_taken=True)  # it was its turn: it goes behind
    assert here.ahead() == names
    assert there.ahead() == set()
    there.settle((), has_taken=True)
    assert here.ahead() == set()
    here.settle((), has_taken=False)
    assert [path.name for path in here.folder.root.iterdir()] == []


def test_priorities_come_first_and_inside_one_the_order_of_asking() -> None:
    asked = [("a", "low"), ("b", "normal"), ("c", "high"), ("d", "normal"), ("e", "high")]
    records = [
        RunRecord(run_id=name, kind="train", title="", created_at=0.0, python="", cwd="", priority=priority)
        for name, priority in asked
    ]
    assert [record.run_id for record in in_order(records)] == ["c", "e", "b", "d", "a"]
