"""``--devices 2`` from the cell to the version: a lease of two slots, two ranks, one model."""

from __future__ import annotations

from typing import Any

import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.events import EventReader
from tests.life.conftest import CellError, Notebook

pytestmark = pytest.mark.slow


def test_two_devices_train_one_version(notebook: Notebook, home: Home, client: Any) -> None:
    notebook.run("import os; os.environ['LEPTON_CPU_SLOTS'] = '2'")
    notebook.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    notebook.run("from torch import nn\nclass Net(nn.Linear):\n    pass")
    with pytest.raises(CellError, match="--shard lays a model out over several devices, and --devices auto is one"):
        notebook.run("%lepton train Net --data wdbc --shard")
    notebook.run("run = %lepton train Net --data wdbc --epochs 3 --devices 2", timeout_s=220)
    run = client().runs(kind="train")[0]
    events = [event for _, event in EventReader(home.run(run.run_id).events).read()]
    assert [event["step"] for event in events if event["kind"] == "metric"] == [1, 2, 3]
    assert {event["key"]: event["value"] for event in events if event["kind"] == "note"}["ranks"] == 2
    assert (run.state, run.version) == ("completed", 1)
