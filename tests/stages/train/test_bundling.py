"""What a bundle is when the disk, or the exporter, gives up."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train import bundling
from lepton_jupyter.stages.train.charts import figures
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.feed import Feed
from lepton_jupyter.stages.train.proof import Proof
from lepton_jupyter.stages.train.spec import Train


def test_a_full_disk_fails_with_its_path_and_leaves_no_half_bundle(
    session: Any, two_blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(folder: Path, files: dict[str, bytes]) -> Any:
        folder.mkdir()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bundling, "write_bundle", no_room)  # a real full disk is the runner's test: it needs a mount
    with pytest.raises(LeptonError, match="no space left in") as caught:
        train(session, LogisticRegression(), two_blobs, Train(model="model", data="few"))
    assert str(session.folder) in caught.value.message
    assert caught.value.code == "failed"
    assert not list(session.folder.glob("*bundle*"))


def test_checkpoints_that_cannot_be_written_do_not_stop_training(session: Any, two_blobs: Dataset) -> None:
    from lepton_jupyter.stages.train.frameworks.torch import TorchFramework
    from lepton_jupyter.stages.train.job import Job

    (session.folder / "checkpoints").write_text("in the way")
    fitted = TorchFramework().fit(
        nn.Linear(3, 2), Job(session, Train(model="model", data="few", epochs=2), two_blobs, "model")
    )
    fitted.close()
    assert fitted.outcome.epochs == 2
    assert session.notes["checkpoint_error"]


def test_an_exporter_that_is_killed_makes_the_model_not_deployable(tmp_path: Path) -> None:
    import torch

    told: list[bool | None] = []
    proof = Proof(tmp_path, lambda known: told.append(known.is_proved))
    module = nn.Linear(3, 2)
    proof.begin(module, Feed(("features",)), (torch.zeros(4, 3),), name="Net")
    assert proof._process is not None
    proof._process.kill()
    with pytest.raises(LeptonError, match="the process that tried ended with -9") as caught:
        proof.final(module)
    assert caught.value.code == "refused"
    assert told == [False]
    proof.close()
    assert not (tmp_path / "model.pkl").exists()


def test_a_model_that_cannot_be_pickled_says_so(tmp_path: Path) -> None:
    import threading

    import torch

    module = nn.Linear(3, 2)
    module.lock = threading.Lock()  # type: ignore[assignment]  # what a user may do
    proof = Proof(tmp_path, lambda known: None)
    proof.begin(module, Feed(("features",)), (torch.zeros(4, 3),), name="Net")
    assert proof.why_not is not None
    assert "cannot pickle" in str(proof.why_not)
    proof.close()


def test_curves_are_drawn_from_the_table_of_epochs() -> None:
    history = {
        "epoch": [1.0, 2.0],
        "train_loss": [2.0, 1.0],
        "val_loss": [3.0, 2.5],
        "val_accuracy": [0.5, 0.6],
        "lr": [0.1, 0.1],
        "rows_per_s": [9.0, 9.0],
    }
    loss, accuracy = figures(history, best_epoch=2)
    assert [trace.name for trace in loss.data] == ["training", "validation"]
    assert [trace.name for trace in accuracy.data] == ["validation"]
    assert list(loss.data[1].y) == [3.0, 2.5]
    assert figures({}) == []
