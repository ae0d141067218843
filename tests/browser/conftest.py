"""A real JupyterLab in a process of its own, and the Chromium that is installed, driven by playwright.

Run it by its own command (``make browser``): pytest-jupyter's event loop and playwright's do not share a process.
Pictures go to the folder of ``LEPTON_SHOTS``, else to pytest's temporary one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home
from tests.browser.lab import Lab

EXAMPLES = Path(__file__).resolve().parents[2] / "example_notebooks"
CHROMIUM = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync")  # fmt: skip
TOKEN = "browser-tests"
NO_NEWS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests, with the reason, where there is no browser."""
    here = Path(__file__).parent
    for item in items:
        if CHROMIUM is None and here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="no Chromium on PATH (apt-get install chromium)"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh profile and one page; what its console calls an error is in ``page.errors``."""
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.errors = []
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    yield page
    context.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go."""
    said = os.environ.get("LEPTON_SHOTS")
    folder = Path(said).absolute() if said else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def lab_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A LEPTON_HOME for Lab; whatever runs in it is ended afterwards."""
    runtime = Path(tempfile.mkdtemp(prefix="lp", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEPTON_HOME", str(tmp_path_factory.mktemp("lepton") / "home"))
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        for name in ("LEPTON_RUN", "MLFLOW_TRACKING_URI", "JPY_PARENT_PID"):
            patch.delenv(name, raising=False)
        home = Home.current().make()
        yield home
        if home.runtime().root.exists():
            from lepton_jupyter.client.shutdown import shut_down

            shut_down(home)
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture(scope="session")
def lab_server(lab_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """JupyterLab with our extensions: its address and its root folder, in which the examples' data lie."""
    root, base = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("jupyter")
    for name in ("breast_cancer.csv", "new_patients.csv"):
        shutil.copy(EXAMPLES / name, root)
    (base / "config" / "labconfig").mkdir(parents=True)
    (base / "config" / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(NO_NEWS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = base / "lab.log"
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        f"--LabApp.workspaces_dir={base / 'workspaces'}", f"--LabApp.user_settings_dir={base / 'settings'}",
    ]  # fmt: skip
    places = {f"JUPYTER_{name}_DIR": str(base / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    env = {**os.environ, **places, "IPYTHONDIR": str(base / "ipython")}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    _wait_for(url, process, log)
    yield url, root
    os.killpg(process.pid, signal.SIGTERM)  # a session of its own: Lab and its kernels only
    process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(f"{url}/api/status?token={TOKEN}", timeout=2):
                return
        except OSError:
            if process.poll() is not None or monotonic() > deadline:
                raise AssertionError(log.read_text()[-4000:]) from None
            sleep(0.1)


@pytest.fixture
def lab(lab_server: tuple[str, Path], page: Any, shots: Path) -> Lab:
    """A person in front of that Lab."""
    url, root = lab_server
    return Lab(page, url=url, token=TOKEN, root=root, shots=shots)
