"""The wheel of `make wheel` brings its own front end: it installs, and is listed, where there is no node."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak

ROOT = Path(__file__).resolve().parents[2]
LISTS = {
    "labextension": "import sys; from jupyterlab.labextensions import main; sys.exit(main())",
    "server extension": "import sys; from jupyter_server.extension.serverextension import main; sys.exit(main())",
}


def _run(*command: str | Path, cwd: Path, path: str | None = None) -> str:
    env = {**os.environ, **({"PATH": path} if path else {})}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on PATH: a wheel is built with node")
def test_a_wheel_installs_and_is_listed_without_node(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in _run("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    _run("make", "wheel", f"PYTHON={sys.executable}", cwd=source)
    (wheel,) = (source / "dist").glob("*.whl")

    _run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    purelib = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    (Path(purelib) / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    bare = str(python.parent)  # neither node nor npm
    _run(python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel, cwd=tmp_path, path=bare)
    for code in LISTS.values():
        listed = _run(python, "-c", code, "list", cwd=tmp_path, path=bare)
        ours = listed[listed.index("lepton") :]
        assert "enabled" in ours.partition("\n")[0]
        assert "OK" in ours
