"""The image runs: its own interpreter, its own libraries, its own files and nothing else."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.graphs import ROW, expected_logit
from tests.serving.test_text import ROW as TEXT_ROW
from tests.serving.test_text import text_bundle
from tests.stages.deploy.export.images import ask, export_to, members, running, unpack, until_ready

pytestmark = pytest.mark.slow


def test_it_answers_from_its_own_files_alone(
    process: tuple[subprocess.Popen[bytes], int], root: Path, eventually: Callable[..., Any]
) -> None:
    started, port = process
    until_ready(started, port, eventually)
    status, answer = ask(port, "/predict", {"rows": [ROW]})
    assert status == 200
    told = json.loads(answer)
    logit = expected_logit(ROW["age"], ROW["children"], ROW["island"])
    assert told["version"] == "Net@3"
    assert (told["predictions"][0]["probability_yes"] > 0.5) == (logit > 0)
    for path in ("/metrics", "/version", "/v2", "/v2/models/Net"):
        assert ask(port, path)[0] == 200, path
    mapped = set(re.findall(r" (/\S+)$", Path(f"/proc/{started.pid}/maps").read_text(), flags=re.MULTILINE))
    assert [path for path in mapped if ".so" in path] != []
    assert [path for path in mapped if not path.startswith(str(root))] == []
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=20) == 0


def test_nothing_was_compiled_or_written_beside_the_state(
    process: tuple[subprocess.Popen[bytes], int], root: Path, image: Path, eventually: Callable[..., Any]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    started, port = process
    until_ready(started, port, eventually)
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=20) == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_image_of_a_version_that_reads_prose_has_what_reads_it(
    tmp_path: Path, image: Path, eventually: Callable[..., Any]
) -> None:
    assert not [member for member, _ in members(image) if "/tokenizers/" in member.name]
    layout = tmp_path / "image"
    about = export_to(layout, text_bundle(tmp_path / "bundle"))
    assert "tokenizers" in about.packages
    assert sum(size for part, size in about.parts.items() if part != "interpreter") < 200e6
    (tmp_path / "root").mkdir()
    root = unpack(layout, tmp_path / "root")
    with running(layout, root, tmp_path / "state") as (started, port):
        until_ready(started, port, eventually)
        status, answer = ask(port, "/predict", {"rows": [TEXT_ROW]})
        assert (status, json.loads(answer)["predictions"]) == (200, [{"prediction": 156.0}])
