"""What code inside a run says and asks, in this process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, new_run_id
from lepton_jupyter.core.session import Session
from lepton_jupyter.formats.bundle import write_bundle
from lepton_jupyter.formats.events import EventReader
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner import session
from lepton_jupyter.runner.asked import Asked
from lepton_jupyter.runner.interrupts import Interrupts
from lepton_jupyter.runner.request import cell_notebook, prepare_run
from lepton_jupyter.runner.session import RunSession


@pytest.fixture
def run(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSession:
    record = RunRecord(
        run_id=new_run_id(),
        kind="train",
        title="Net",
        created_at=time.time(),
        python=sys.executable,
        cwd=str(tmp_path),
        spec={"model": "Net", "data": "wdbc@1", "epochs": 3, "params": {"hidden": 8}},
    )
    folder = prepare_run(home, record, notebook=cell_notebook("", "t"), captured=None, environment={})
    monkeypatch.setenv("LEPTON_RUN", str(folder.root))
    return session.current()


def _events(run: RunSession) -> list[dict[str, Any]]:
    return [event for _, event in EventReader(run.files.kernel_events).read()]


def test_it_is_the_session_that_engines_are_handed(run: RunSession) -> None:
    engine_side: Session = run
    assert engine_side.folder == run.home.runs / run.run_id
    assert run.spec.epochs == 3 and run.spec.params == {"hidden": 8}
    assert session.current() is run


def test_metrics_count_their_steps_and_refuse_what_is_no_number(run: RunSession) -> None:
    run.log(loss=0.5)
    run.log(loss=np.float32(0.25), acc=True)
    run.log(step=10, loss=float("nan"))
    run.log(loss=1)
    assert [(e["step"], e["values"]) for e in _events(run)] == [
        (1, {"loss": 0.5}), (2, {"loss": 0.25, "acc": 1.0}), (10, {"loss": None}), (11, {"loss": 1.0}),
    ]  # fmt: skip
    with pytest.raises(LeptonError, match="The metric 'loss' is 'low'"):
        run.log(loss="low")  # type: ignore[arg-type]


def test_notes_take_what_json_does_not_know(run: RunSession) -> None:
    run.note("threads", np.int64(2))
    run.note("odd", {"path": Path("/x"), "array": np.arange(2)})
    run.result(verdict="PASS", metrics={"auc": 0.9})
    assert [e.get("value") for e in _events(run)[:2]] == [2, {"path": "/x", "array": [0, 1]}]
    assert _events(run)[2]["verdict"] == "PASS"


def test_progress_is_throttled_but_its_end_is_said(run: RunSession) -> None:
    for done in range(1, 1001):
        run.progress(done, 1000, "steps")
    said = [event["done"] for event in _events(run)]
    assert said[0] == 1 and said[-1] == 1000 and len(said) < 100


def test_a_full_disk_costs_events_and_nothing_else(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunRecord(
        run_id=new_run_id(), kind="cell", title="t", created_at=0.0, python=sys.executable, cwd=str(tmp_path)
    )
    folder = prepare_run(home, record, notebook=cell_notebook("", "t"), captured=None, environment={})
    folder.kernel_events.symlink_to("/dev/full")
    run = RunSession(folder)
    for _ in range(3):
        run.log(loss=1.0)
    assert capsys.readouterr().err.count("No space left on device") == 1


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)


def test_an_interrupt_is_a_flag_while_a_loop_looks_at_it_and_an_exception_elsewhere() -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupts = Interrupts()
    try:
        interrupts.install()
        with pytest.raises(KeyboardInterrupt):
            _interrupt()
        interrupts.is_asked = False
        interrupts.is_polled = True
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.is_asked
        interrupts.install()  # the next cell has no loop that looks
        with pytest.raises(KeyboardInterrupt):
            _interrupt()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stop_is_acknowledged_once(run: RunSession) -> None:
    assert not run.should_stop()
    run.interrupts.is_asked = True
    assert run.should_stop() and run.should_stop()
    assert [event.get("state") for event in _events(run) if event["kind"] == "state"] == ["stopping"]
    assert {"key": "stopping", "value": True}.items() <= _events(run)[0].items()


def test_the_reserve_is_taken_and_given_back(run: RunSession) -> None:
    run.reserve_room()
    assert run.files.reserve.stat().st_size > 2**20
    run.release_reserve()
    assert not run.files.reserve.exists()


def test_outside_of_a_run_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEPTON_RUN", raising=False)
    assert not session.is_inside()
    with pytest.raises(LeptonError, match="executes no run"):
        session.log(loss=1.0)


def test_what_is_judged_is_the_bundle_that_was_registered(home: Home, tmp_path: Path) -> None:
    """Who rewrites a bundle with its manifest cannot have the change judged under the version's name."""
    first = write_bundle(home.bundles / "a1", {"graph.onnx": b"g"})
    second = write_bundle(home.bundles / "b2", {"graph.onnx": b"h"})
    record = RunRecord(
        run_id=new_run_id(),
        kind="evaluate",
        title="Net",
        created_at=time.time(),
        python=sys.executable,
        cwd=str(tmp_path),
        model_version="a1",
        against="b2",
        pins={"a1": first.manifest_hash, "b2": second.manifest_hash},
    )
    folder = prepare_run(home, record, notebook=cell_notebook("", "t"), captured=None, environment={})
    asked = Asked(folder)
    assert asked.bundle.read("graph.onnx") == b"g" and asked.against == second
    write_bundle(home.bundles / "a1", {"graph.onnx": b"rewritten"})
    write_bundle(home.bundles / "b2", {"graph.onnx": b"rewritten"})
    again = Asked(folder)
    for name in ("bundle", "against"):
        with pytest.raises(LeptonError, match="not the one that was registered"):
            getattr(again, name)
