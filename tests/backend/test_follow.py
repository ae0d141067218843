"""Events of a run: merged once, whatever happens to whoever merges them."""

from __future__ import annotations

from collections.abc import Callable

from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.formats.events import EventReader, EventWriter
from lepton_jupyter.runner.request import read_record

Prepare = Callable[..., RunFolder]


def follow(folder: RunFolder) -> FollowedRun:
    return FollowedRun(folder, read_record(folder))


def merged(folder: RunFolder) -> list[dict]:
    return [event for _, event in EventReader(folder.events).read()]


def test_events_are_merged_exactly_once_over_restarts(prepare: Prepare) -> None:
    folder = prepare()
    kernel, supervisor = EventWriter(folder.kernel_events), EventWriter(folder.supervisor_events)
    for step in range(30):
        kernel.write("metric", step=step, values={"loss": float(step)})
        if step % 10 == 0:
            supervisor.write("cell", index=step // 10, n=3, status="running")
        if step % 7 == 0:
            follow(folder).pull()  # a backend that dies without a word after each
    run = follow(folder)
    run.pull()
    events = merged(folder)
    assert [event["step"] for event in events if event["kind"] == "metric"] == list(range(30))
    assert [event["seq"] for event in events] == list(range(1, 34))
    assert run.view.seq == 33
    assert run.view.metrics == {"loss": 29.0}


def test_a_torn_line_of_a_killed_backend_is_merged_again(prepare: Prepare) -> None:
    folder = prepare()
    kernel = EventWriter(folder.kernel_events)
    kernel.write("metric", step=0, values={"loss": 1.0})
    kernel.write("metric", step=1, values={"loss": 2.0})
    follow(folder).pull()
    content = folder.events.read_bytes()
    folder.events.write_bytes(content[:-9])
    run = follow(folder)
    run.pull()
    assert [event["step"] for event in merged(folder)] == [0, 1]
    assert [event["seq"] for event in merged(folder)] == [1, 2]


def test_the_end_is_not_seen_before_it_was_registered(prepare: Prepare) -> None:
    folder = prepare()
    supervisor = EventWriter(folder.supervisor_events)
    supervisor.write("state", state="running")
    run = follow(folder)
    supervisor.write("state", state="completed")
    run.pull()
    assert run.view.state == "running"
    assert run.ending is not None
    assert follow(folder).pull() is False  # a backend that starts again comes to the same place
    run.end("completed", version=3)
    assert (run.view.state, run.view.version) == ("completed", 3)
    assert [event["state"] for event in merged(folder)] == ["running", "completed"]
    assert follow(folder).is_ended


def test_a_nan_changes_no_metric(prepare: Prepare) -> None:
    folder = prepare()
    kernel = EventWriter(folder.kernel_events)
    kernel.write("metric", step=0, values={"loss": 1.0})
    kernel.write("metric", step=1, values={"loss": float("nan")})
    run = follow(folder)
    run.pull()
    assert run.view.metrics == {"loss": 1.0}


def test_what_a_full_disk_refuses_is_still_told(prepare: Prepare) -> None:
    folder = prepare()
    folder.events.mkdir()  # as good as no space: it cannot be opened for writing
    run = follow(folder)
    run.add("state", state="starting")
    run.end("failed")
    assert run.view.state == "failed"
    folder.events.rmdir()
    told = list(run.events_after(0, EventReader(folder.events)))
    assert [event["state"] for event in told] == ["starting", "failed"]


def test_a_run_says_from_the_first_which_code_it_comes_from(prepare: Prepare) -> None:
    git = {"commit": "8c3f0ab77d15", "branch": "main", "is_dirty": True}
    folder = prepare("pass", git=git, packages={"torch": "2.13.0"})
    (folder.payload / "index.json").write_text('{"labels": {"<cell-a>": "3", "<cell-b>": "notebook"}}')
    followed = FollowedRun(folder, read_record(folder))
    assert followed.view.notes == {
        "git": "8c3f0ab77d on main, with changes",
        "cells": "In[3]",
        "packages": {"torch": "2.13.0"},
    }
    followed.add("note", key="threads", value=2)
    assert followed.view.notes["git"]
    followed.close()
