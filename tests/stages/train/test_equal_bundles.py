"""The same version packs to the same bytes wherever it was trained, and no path is in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lepton_jupyter.formats.bundle import CARD, MANIFEST, encode, open_bundle, write_bundle
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.saving import save

PROGRAM = Path(__file__).with_name("placed_run.py")
TABLES = (Path(__file__).parents[3] / "example_notebooks" / "penguins.csv", Path(__file__).parents[2] / "reviews.csv")
OF_ITS_RUN = (CARD, MANIFEST)  # the card says when and how fast it was trained; the manifest has the card's hash


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_files(first: Path, second: Path) -> set[str]:
    one, two = contents(first), contents(second)
    assert set(one) == set(two)
    return {name for name in one if one[name] == two[name]}


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_trained_in_another_place_it_is_the_same_but_for_its_card(table: Path, tmp_path: Path) -> None:
    bundles = []
    for place, seed in (("here", "1"), ("a/longer way/there", "2")):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        shutil.copyfile(table, folder / table.name)
        program = folder / "model.py"
        shutil.copyfile(PROGRAM, program)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "HOME": str(folder), "TZ": f"UTC+{seed}"}
        subprocess.run([sys.executable, str(program), str(folder), table.name], cwd=folder, env=environment, check=True)
        bundles.append(folder / "run" / "bundle")
    assert same_files(*bundles) == set(contents(bundles[0])) - {*OF_ITS_RUN}
    first, second = (json.loads((bundle / CARD).read_bytes()) for bundle in bundles)
    assert {key for key in first if first[key] != second[key]} <= {"created_at", "metrics", "notes"}
    for bundle in bundles:
        for name, content in contents(bundle).items():
            for path in (str(tmp_path), str(Path.home()), "model.py", "site-packages", os.uname().nodename):
                assert path.encode() not in content, (name, path)


def test_the_same_module_saved_twice_is_the_same_but_for_its_time(
    tmp_path: Path, penguins: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module, bundles = nn.Linear(len(penguins.schema.num), 3), []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        how: dict[str, Any] = {"example": torch.zeros(4, len(penguins.schema.num)), "dataset": None}
        bundles.append(save(model=module, name="mine", run_id="abc", folder=tmp_path / place / "bundle", **how))
    folders = [bundle.root for bundle in bundles]
    assert same_files(*folders) == set(contents(folders[0])) - {*OF_ITS_RUN}
    cards = [{**json.loads((folder / CARD).read_bytes()), "created_at": 0} for folder in folders]
    assert cards[0] == cards[1]


def test_files_pack_to_the_same_bytes_in_whatever_order_they_come(tmp_path: Path) -> None:
    files = {"graph.onnx": b"g", "card.json": b"{}", "schema.json": b"{}"}
    one = write_bundle(tmp_path / "one", files)
    two = write_bundle(tmp_path / "else" / "where", dict(reversed(files.items())))
    assert one.manifest_hash == two.manifest_hash == open_bundle(two.root).manifest_hash
    assert contents(one.root) == contents(two.root)
    assert contents(one.root)[MANIFEST] == encode(one.manifest)
