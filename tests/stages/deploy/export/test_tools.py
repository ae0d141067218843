"""Other people's tools take what we write: skopeo, umoci, podman, buildah, debootstrap; skipped where they are not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.stages.deploy.export.interpreter import PYTHON
from lepton_jupyter.stages.deploy.export.place import RECORD
from tests.serving.graphs import ROW
from tests.serving.test_container import ask
from tests.stages.deploy.export.images import export_to

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

TOKEN = "a-token-for-a-container"
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="needs root")
# runc, and limits that may be set, as on machines with hybrid control groups
RUN = (
    "podman", "--runtime", "runc", "run", "--rm", "--network", "host",
    "--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:2048",
)  # fmt: skip


def needs(*tools: str) -> Any:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def tell(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def forget_images() -> Iterator[None]:
    """Take what podman was given of ours out of its store again."""
    yield
    if shutil.which("podman") is not None:
        ours = tell("podman", "images", "--quiet", "--filter", "label=lepton-jupyter.version=Net@3").split()
        for image_id in set(ours):
            tell("podman", "rmi", "--force", image_id)


@needs("skopeo")
def test_skopeo_reads_the_layout_and_copies_it_unchanged(image: Path, tmp_path: Path) -> None:
    record = json.loads((image / RECORD).read_bytes())
    told = json.loads(tell("skopeo", "inspect", f"oci:{image}"))
    assert told["Digest"] == record["digest"]
    assert told["Labels"]["lepton-jupyter.version"] == "Net@3"
    assert len(told["Layers"]) == 4
    tell("skopeo", "copy", f"oci:{image}", f"oci:{tmp_path / 'copy'}:latest")
    assert json.loads(tell("skopeo", "inspect", f"oci:{tmp_path / 'copy'}"))["Digest"] == record["digest"]


@ROOT_ONLY
@needs("umoci", "chroot")
def test_umoci_unpacks_the_layout_and_its_interpreter_runs_there(image: Path, tmp_path: Path) -> None:
    tell("umoci", "unpack", "--image", f"{image}:latest", str(tmp_path / "unpacked"))
    config = json.loads((tmp_path / "unpacked" / "config.json").read_bytes())
    assert (config["process"]["user"]["uid"], config["process"]["user"]["gid"]) == (65532, 65532)
    root = tmp_path / "unpacked" / "rootfs"
    state = (root / "var/lib/lepton").stat()
    assert (state.st_uid, state.st_mode & 0o777) == (65532, 0o700)
    line = "import onnxruntime, numpy, uvloop, ssl, lepton_jupyter.serving.app; print(onnxruntime.__file__)"
    told = tell(
        "chroot", "--userspec=65532:65532", str(root), "/usr/local/bin/python3", "-c",
        f"import sys; sys.path.insert(0, '/opt/lepton/site-packages'); {line}",
    )  # fmt: skip
    assert told.strip() == "/opt/lepton/site-packages/onnxruntime/__init__.py"


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Run an image by podman until it is ready; return its port."""
    names: list[str] = []

    def run(image: str, *flags: str) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        names.append(f"lepton-test-{os.getpid()}-{len(names)}")
        token = f"LEPTON_TOKEN={TOKEN}"
        tell(*RUN, "--detach", "--name", names[-1], *flags, "--env", token, "--env", f"LEPTON_PORT={port}", image)
        return port

    yield run
    for name in names:
        subprocess.run(["podman", "rm", "--force", "--time", "5", name], capture_output=True, check=False)


def _is_ready(port: int) -> bool:
    try:
        return ask(port, "/readyz")[0] == 200
    except OSError:
        return False


def _answers(port: int, eventually: Callable[..., Any]) -> None:
    eventually(lambda: _is_ready(port), timeout_s=60, what="ready")
    status, answer = ask(port, "/predict", {"rows": [ROW]})
    assert (status, answer["version"]) == (200, "Net@3")
    assert ask(port, "/predict", {"rows": [ROW]}, token=None)[0] == 401


@ROOT_ONLY
@needs("podman", "runc")
@pytest.mark.parametrize("flags", [(), ("--read-only", "--cap-drop", "ALL")], ids=["plain", "read-only"])
def test_podman_runs_the_layout_and_its_user_is_not_root(
    image: Path, serve: Callable[..., int], eventually: Callable[..., Any], flags: tuple[str, ...]
) -> None:
    port = serve(f"oci:{image}", *flags)
    _answers(port, eventually)
    whoami = [*RUN, "--entrypoint", "/usr/local/bin/python3", f"oci:{image}", "-c", "import os; print(os.getuid())"]
    assert tell(*whoami).strip() == "65532"


@ROOT_ONLY
@needs("podman", "runc")
def test_a_container_without_a_token_ends_with_the_reason(image: Path) -> None:
    done = subprocess.run([*RUN, f"oci:{image}"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "There is no token" in done.stderr


@ROOT_ONLY
@needs("podman", "runc", "buildah", "unshare")
def test_a_context_is_built_without_a_network_and_runs(
    bundle: Bundle, tmp_path: Path, serve: Callable[..., int], eventually: Callable[..., Any]
) -> None:
    export_to(tmp_path / "context", bundle, format="docker")
    name = f"localhost/lepton-test-{os.getpid()}"
    build = ("buildah", "build", "--isolation", "chroot", "--tag", name, str(tmp_path / "context"))
    tell("unshare", "--net", *build)
    _answers(serve(name), eventually)


@ROOT_ONLY
@needs("podman", "runc", "debootstrap")
@pytest.mark.skipif(PYTHON != "python3.11", reason="Debian bookworm's Python is 3.11")
def test_a_base_by_debootstrap_takes_our_layers_and_runs(
    bundle: Bundle, tmp_path: Path, serve: Callable[..., int], eventually: Callable[..., Any]
) -> None:
    base = tmp_path / "bookworm"
    argv = ["debootstrap", "--variant=minbase", "--include=python3", "bookworm", str(base)]
    made = subprocess.run(argv, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no mirror of Debian is reached: {made.stdout[-200:]}")
    first = export_to(tmp_path / "image", bundle, base=str(base))
    assert sum(first.parts.values()) < 200e6
    assert export_to(tmp_path / "again", bundle, base=str(base)).digest == first.digest
    _answers(serve(f"oci:{tmp_path / 'image'}"), eventually)
