"""``lepton.checkpoint`` and ``lepton.restore``: a cell goes on where it was, random numbers and all."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import lepton_jupyter as lepton
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, RunFolder, new_run_id
from lepton_jupyter.formats.events import EventReader
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner import session
from lepton_jupyter.runner.request import cell_notebook, prepare_run


@pytest.fixture
def folder(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    record = RunRecord(
        run_id=new_run_id(), kind="cell", title="net", created_at=time.time(), python=sys.executable,
        cwd=str(tmp_path), spec={"name": "net"},
    )  # fmt: skip
    folder = prepare_run(home, record, notebook=cell_notebook("", "t"), captured=None, environment={})
    monkeypatch.setenv("LEPTON_RUN", str(folder.root))
    return folder


def draw() -> tuple[float, float, float]:
    """Return a number from every library's generator."""
    return random.random(), float(np.random.random()), float(torch.rand(()))


def begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do as a second kernel does: it has no session yet."""
    monkeypatch.setattr(session, "_current", None)


def test_the_first_start_has_nothing_to_restore(folder: RunFolder) -> None:
    assert lepton.restore() is None


def test_a_cell_that_goes_on_draws_the_same_numbers_and_counts_on(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_again(monkeypatch)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    lepton.log(loss=1.0)
    lepton.checkpoint({"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "by": (1, None)})
    drawn = draw()
    lepton.log(loss=0.5)
    draw()

    begin_again(monkeypatch)
    state = lepton.restore()
    assert state is not None
    assert draw() == drawn
    assert (state["epoch"], state["by"], sorted(state)) == (3, (1, None), ["by", "epoch", "model", "optimizer"])
    assert torch.equal(state["model"]["weight"], model.weight)
    torch.optim.Adam(model.parameters()).load_state_dict(state["optimizer"])
    lepton.log(loss=0.5)
    events = [event for _, event in EventReader(folder.kernel_events).read()]
    assert [event["step"] for event in events if event["kind"] == "metric"] == [1, 2, 2]
    assert [event["value"] for event in events if event.get("key") == "resumed"] == [{"step": 1}]
    assert [path.name for path in folder.checkpoints.iterdir()] == ["state.safetensors"]


def test_what_a_checkpoint_cannot_hold_is_named_and_the_last_one_stays(folder: RunFolder) -> None:
    lepton.checkpoint({"epoch": 1})
    with pytest.raises(LeptonError, match=r"state\.model: it is a Linear"):
        lepton.checkpoint({"model": torch.nn.Linear(1, 1)})
    with pytest.raises(LeptonError, match="wanted: a dict"):
        lepton.checkpoint(3)  # type: ignore[arg-type]
    assert lepton.restore() == {"epoch": 1}


def test_a_full_disk_is_noted_and_stops_nothing(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_again(monkeypatch)
    folder.checkpoints.write_text("no folder can be made here")
    lepton.checkpoint({"epoch": 1})
    events = [event for _, event in EventReader(folder.kernel_events).read()]
    assert [event["key"] for event in events] == ["checkpoint_error"]


def test_outside_of_a_run_both_say_where_they_work(home: Home) -> None:
    for word, call in (("checkpoint", lambda: lepton.checkpoint({})), ("restore", lepton.restore)):
        with pytest.raises(LeptonError, match=f"lepton.{word} works inside a run"):
            call()
