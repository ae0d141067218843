"""An export appears whole, and takes the place of nothing but a former export."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.deploy.export.place import RECORD, Exported, check_place, new_folder, write_record

ABOUT = Exported(format="oci", version="Net@3", model="Net", manifest_hash="0" * 64)


def _export(to: Path, content: str) -> None:
    with new_folder(to) as folder:
        (folder / "index.json").write_text(content)
        write_record(folder, ABOUT)


def test_a_new_an_empty_and_a_former_place_are_taken(tmp_path: Path) -> None:
    to = tmp_path / "image"
    _export(to, "first")
    assert sorted(path.name for path in to.iterdir()) == ["index.json", RECORD]
    _export(to, "second")
    assert (to / "index.json").read_text() == "second"
    (tmp_path / "empty").mkdir()
    _export(tmp_path / "empty", "third")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "image"]


def test_what_no_export_wrote_is_not_touched(tmp_path: Path) -> None:
    to = tmp_path / "image"
    _export(to, "first")
    (to / "mine.txt").write_text("kept")
    with pytest.raises(LeptonError, match=r"holds what no export wrote: mine.txt.\nName a folder"):
        _export(to, "second")
    assert (to / "mine.txt").read_text() == "kept"
    other = tmp_path / "work"
    other.mkdir()
    (other / "index.json").write_text("no export")
    with pytest.raises(LeptonError, match=r"index.json"):
        check_place(other)
    with pytest.raises(LeptonError, match="is a file; --to takes a folder"):
        check_place(other / "index.json")
    with pytest.raises(LeptonError, match="There is no folder"):
        check_place(tmp_path / "nowhere" / "image")


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    to = tmp_path / "image"
    _export(to, "first")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(to)
    assert (to / "index.json").read_text() == "first"
    with pytest.raises(LeptonError, match="No space left on device"), new_folder(to):
        raise OSError(28, os.strerror(28))
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def _interrupted(to: Path) -> None:
    with new_folder(to) as folder:
        (folder / "index.json").write_text("half")
        raise KeyboardInterrupt


def test_an_export_that_was_worked_in_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    to = tmp_path / "image"
    _export(to, "first")
    with pytest.raises(LeptonError, match=r"mine.txt"), new_folder(to):
        (to / "mine.txt").write_text("kept")
    assert (to / "mine.txt").exists()
