"""Others' own clients work against an endpoint unchanged; they live in an environment of their own."""

from __future__ import annotations

import os
import re
import subprocess
import venv
from pathlib import Path

import pytest

from tests.serving.graphs import TOKEN, Server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

CLIENTS = Path(__file__).parent / "clients"
WANTED = ("tritonclient[http]", "kserve", "schemathesis>=4")
N_EXAMPLES = 700  # of each operation that takes a body: over two thousand together


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has them; `LEPTON_CLIENTS` names one that is there already."""
    if found := os.environ.get("LEPTON_CLIENTS"):
        return found
    folder = tmp_path_factory.mktemp("clients")
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", *WANTED], check=True)
    return str(folder / "bin" / "python")


def run(python: str, *argv: str) -> str:
    done = subprocess.run([python, *argv], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def port_of(server: Server) -> int:
    status = server.status()
    assert status is not None
    return status.port


def test_tritons_clients_work(server: Server, python: str) -> None:
    said = run(python, str(CLIENTS / "triton.py"), f"127.0.0.1:{port_of(server)}", TOKEN, "Net")
    assert "all well" in said


def test_kserves_client_works(server: Server, python: str) -> None:
    said = run(python, str(CLIENTS / "kserve_client.py"), f"http://127.0.0.1:{port_of(server)}", TOKEN, "Net")
    assert "all well" in said


def test_two_thousand_requests_drawn_from_the_document_are_answered_as_it_says(server: Server, python: str) -> None:
    said = run(
        str(Path(python).parent / "schemathesis"), "run",
        f"http://127.0.0.1:{port_of(server)}/openapi.json", "-H", f"Authorization: Bearer {TOKEN}", "--seed", "1",
        "--max-examples", str(N_EXAMPLES), "--checks", "all", "--mode", "all", "--no-color",
        "--exclude-checks", "positive_data_acceptance",  # no schema can say that columns are of one length
    )  # fmt: skip
    found = re.search(r"(\d[\d,]*) generated", said)
    print(said[-1500:])
    assert found is not None and int(found[1].replace(",", "")) >= 2000, said[-3000:]
