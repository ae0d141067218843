"""Who may start, and with which lease."""

from __future__ import annotations

from lepton_jupyter.backend.queue import Slots, descendants, waits_for_device
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Lock
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


def test_a_slot_is_taken_once(home: Home) -> None:
    runtime = home.runtime().make()
    slots = Slots(runtime, 2)
    first, second = slots.take(()), slots.take(())
    assert first is not None and second is not None
    assert {*first.names, *second.names} == {"cpu-0", "cpu-1"}
    assert slots.take(()) is None
    first.release()
    assert slots.take(first.names) is None  # its run is still there, though the lock was swept
    third = slots.take(())
    assert third is not None and third.names == first.names
    for lease in (second, third):
        lease.release()
    assert Lock.take(runtime.lease("cpu-0")) is not None
