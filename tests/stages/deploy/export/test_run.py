"""The image runs: its own interpreter, its own libraries, its own files and nothing else."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.stages.deploy.export.elf import loader_of
from tests.serving.graphs import ROW, expected_logit
from tests.stages.deploy.export.images import read_image

pytestmark = pytest.mark.slow

TOKEN = "a-token-for-an-image"


@pytest.fixture
def process(image: Path, root: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The image's command with the image's environment, its paths moved to where it was unpacked."""
    config = read_image(image)[1]["config"]
    program, *arguments = config["Entrypoint"]
    program = root / program.lstrip("/")
    loader = root / loader_of(program).lstrip("/")
    libraries = next(root.rglob("libc.so.6")).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = dict(line.split("=", 1) for line in config["Env"])
    environment |= {
        "PYTHONPATH": f"{root}{environment['PYTHONPATH']}",
        "LEPTON_STATE": str(tmp_path / "state"),
        "LEPTON_RELEASE": str(root / "opt/lepton/endpoint.json"),
        "LEPTON_HOST": "127.0.0.1",
        "LEPTON_PORT": str(port),
        "LEPTON_TOKEN": TOKEN,
    }
    argv = [str(loader), "--library-path", str(libraries), str(program), *arguments]
    started = subprocess.Popen(argv, env=environment, cwd="/", stderr=subprocess.PIPE)
    yield started, port
    started.kill()
    started.communicate()


def _ask(port: int, path: str, body: Any = None) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_it_answers_from_its_own_files_alone(
    process: tuple[subprocess.Popen[bytes], int], root: Path, eventually: Callable[..., Any]
) -> None:
    started, port = process

    def is_ready() -> bool:
        assert started.poll() is None, started.communicate()[1].decode()
        try:
            return _ask(port, "/readyz")[0] == 200
        except OSError:
            return False

    eventually(is_ready, what="ready")
    status, answer = _ask(port, "/predict", {"rows": [ROW]})
    assert status == 200
    told = json.loads(answer)
    logit = expected_logit(ROW["age"], ROW["children"], ROW["island"])
    assert told["version"] == "Net@3"
    assert (told["predictions"][0]["probability_yes"] > 0.5) == (logit > 0)
    for path in ("/metrics", "/version", "/v2", "/v2/models/Net"):
        assert _ask(port, path)[0] == 200, path
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

    def is_up() -> bool:
        try:
            return _ask(port, "/readyz")[0] == 200
        except OSError:
            return False

    eventually(is_up, what="ready")
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=20) == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
