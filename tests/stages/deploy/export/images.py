"""Make exports, and look into layouts by hand."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.stages.deploy.export.elf import loader_of
from lepton_jupyter.stages.deploy.export.engine import check, export
from lepton_jupyter.stages.deploy.export.place import Exported
from lepton_jupyter.stages.deploy.spec import Export

TOKEN = "a-token-for-an-image"
MADE_AT = 1_700_000_000.9  # 2023-11-14T22:13:20Z


def version_of(bundle: Bundle, **changes: Any) -> VersionView:
    """Return Net@3, whose bundle it is."""
    return VersionView(
        **{
            "model": "Net", "run_id": "abc123", "number": 3, "bundle": str(bundle.root),
            "manifest_hash": bundle.manifest_hash, "is_deployable": True, "created_at": MADE_AT, "verdict": "PASS",
        } | changes
    )  # fmt: skip


def export_to(folder: Path, bundle: Bundle, **flags: Any) -> Exported:
    """Export Net@3 as the verb does."""
    spec = Export(model="Net@3", to=str(folder), **flags)
    check(spec)
    return export(spec, version_of(bundle), bundle)


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    """Return a blob that is what its descriptor says."""
    content = (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
    assert len(content) == descriptor["size"]
    return content


def read_image(layout: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return manifest and configuration of the one image."""
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(blob(layout, entry))
    return manifest, json.loads(blob(layout, manifest["config"]))


def members(layout: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield what is in all layers, the lowest first."""
    manifest, _ = read_image(layout)
    for layer in manifest["layers"]:
        name = layer["digest"].removeprefix("sha256:")
        with tarfile.open(layout / "blobs" / "sha256" / name, "r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() else None
                yield member, file.read() if file is not None else b""


def unpack(layout: Path, root: Path) -> Path:
    """Lay all layers over each other in a folder, owned by whoever runs this."""
    for member, content in members(layout):
        place = root / member.name
        if member.isdir():
            place.mkdir(exist_ok=True)
        elif member.issym():
            place.symlink_to(member.linkname)
        else:
            place.write_bytes(content)
            place.chmod(member.mode)
    return root


@contextmanager
def running(
    layout: Path, root: Path, state: Path, *, token: str = TOKEN
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run an image's command with its environment, its paths moved to where it was unpacked; give process and port."""
    config = read_image(layout)[1]["config"]
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
        "LEPTON_STATE": str(state),
        "LEPTON_RELEASE": str(root / "opt/lepton/endpoint.json"),
        "LEPTON_HOST": "127.0.0.1",
        "LEPTON_PORT": str(port),
        "LEPTON_TOKEN": token,
    }
    argv = [str(loader), "--library-path", str(libraries), str(program), *arguments]
    started = subprocess.Popen(argv, env=environment, cwd="/", stderr=subprocess.PIPE)
    try:
        yield started, port
    finally:
        started.kill()
        started.communicate()


def ask(port: int, path: str, body: Any = None, *, kind: str = "application/json") -> tuple[int, bytes]:
    """Return status and body of an answer; what is no bytes is sent as JSON."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body)
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
        connection.request("POST" if body else "GET", path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def until_ready(started: subprocess.Popen[bytes], port: int, eventually: Callable[..., Any]) -> None:
    """Wait until an image's endpoint answers; one that has ended is told with what it said."""

    def is_ready() -> bool:
        assert started.poll() is None, started.communicate()[1].decode()
        try:
            return ask(port, "/readyz")[0] == 200
        except OSError:
            return False

    eventually(is_ready, what="ready")
