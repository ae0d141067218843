"""A recorded training, repeated."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.runner.capture import Captured
from lepton_jupyter.runner.recipe import recipe_of, repeat
from lepton_jupyter.runner.request import cell_notebook, prepare_run, read_record

PARENT = RunRecord(
    run_id="fedcba987654", kind="retrain", title="Net", created_at=2.0, python="p", cwd="/", lepton_version="9"
)


def _trained(home: Home, tmp_path: Path, **more: Any) -> RunFolder:
    """Write the folder of a training run, as a client does."""
    about: dict[str, Any] = {
        "run_id": "0123456789ab",
        "kind": "train",
        "title": "Net",
        "created_at": 1.0,
        "python": sys.executable,
        "cwd": str(tmp_path),
        "command": "%lepton train Net --data d@1",
        "spec": {"model": "Net", "data": "d@1", "epochs": 7, "name": "Net"},
        "parameters": {"epochs": 7},
        "model": "Net",
        "dataset": "d@1",
        "needs_device": True,
    }
    record = RunRecord(**(about | more))
    captured = Captured({"objects.pkl": b"net", "tables/0.npy": b"numbers"}, "", (), 10)
    return prepare_run(
        home, record, notebook=cell_notebook("x = 1", "Net"), captured=captured, environment={"SECRET": "s"}
    )


def _version(run_id: str = "0123456789ab") -> VersionView:
    return VersionView(
        model="Net", run_id=run_id, number=1, bundle="", manifest_hash="", is_deployable=True, created_at=1.0
    )


def test_a_repetition_is_the_same_but_for_its_data(home: Home, tmp_path: Path) -> None:
    recorded = _trained(home, tmp_path)
    again = repeat(home, recipe_of(home, _version()), dataset="d@2", parent=PARENT)
    folder = home.run(again.run_id)
    assert read_record(folder) == again
    assert again.spec == {"model": "Net", "data": "d@2", "epochs": 7, "name": "Net"}
    assert (again.dataset, again.parent, again.asked_by) == ("d@2", "fedcba987654", "retrain")
    assert (again.recipe, again.model, again.needs_device) == ("0123456789ab", "Net", True)
    assert again.command == "%lepton train Net --data d@1  # again on d@2"
    for name in ("objects.pkl", "tables/0.npy"):
        assert (folder.payload / name).read_bytes() == (recorded.payload / name).read_bytes()
    assert json.loads(folder.environment.read_bytes()) == {"SECRET": "s"}
    assert folder.source.read_bytes() == recorded.source.read_bytes()
    for path in [folder.root, *folder.root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_repetition_can_be_repeated_and_names_the_first(home: Home, tmp_path: Path) -> None:
    _trained(home, tmp_path)
    once = repeat(home, recipe_of(home, _version()), dataset="d@2", parent=PARENT)
    twice = repeat(home, recipe_of(home, _version(once.run_id)), dataset="d@3", parent=PARENT)
    assert (twice.recipe, twice.dataset) == ("0123456789ab", "d@3")
    assert twice.command == "%lepton train Net --data d@1  # again on d@3"


def test_a_repetition_outlives_what_it_repeats(home: Home, tmp_path: Path) -> None:
    import shutil

    recorded = _trained(home, tmp_path)
    once = repeat(home, recipe_of(home, _version()), dataset="d@2", parent=PARENT)
    shutil.rmtree(recorded.root)
    assert (home.run(once.run_id).payload / "objects.pkl").read_bytes() == b"net"
    assert recipe_of(home, _version(once.run_id)) == once


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "save"}, "it was saved from a notebook, where it was trained already"),
        ({"kind": "cell"}, "which rows a cell sees is not known"),
        ({"python": "/gone/bin/python"}, "the interpreter '/gone/bin/python' that trained it is gone"),
        ({"cwd": "/gone/folder"}, "its folder '/gone/folder' is gone"),
    ],
)
def test_what_cannot_be_repeated_is_refused_with_the_reason(
    home: Home, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    folder = _trained(home, tmp_path)
    write_atomic(folder.record, encode(msgspec.structs.replace(read_record(folder), **change)))
    with pytest.raises(LeptonError) as caught:
        recipe_of(home, _version())
    assert caught.value.message.startswith("Net@1 cannot be trained again by itself: ")
    assert reason in caught.value.message
    assert caught.value.hint


def test_a_run_that_was_removed_has_no_recipe(home: Home, tmp_path: Path) -> None:
    with pytest.raises(LeptonError, match="the run 0123456789ab that trained it is gone"):
        recipe_of(home, _version())
    folder = _trained(home, tmp_path)
    folder.environment.unlink()
    with pytest.raises(LeptonError, match=r"environment.json' is gone"):
        recipe_of(home, _version())


def test_a_repetition_that_cannot_be_written_leaves_nothing(home: Home, tmp_path: Path) -> None:
    recorded = _trained(home, tmp_path)
    record = recipe_of(home, _version())
    recorded.source.unlink()
    with pytest.raises(LeptonError, match="cannot be repeated"):
        repeat(home, record, dataset="d@2", parent=PARENT)
    assert [path.name for path in home.runs.iterdir()] == ["0123456789ab"]
