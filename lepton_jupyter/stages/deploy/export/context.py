"""``--format docker``: a build context that docker, podman and buildah make the same image of, without a network."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.deploy.export.base import Base
from lepton_jupyter.stages.deploy.export.image import PORT, USER, Image
from lepton_jupyter.stages.deploy.export.layout import LEVEL
from lepton_jupyter.stages.deploy.export.oci import write_base
from lepton_jupyter.stages.deploy.export.tree import write_folder

DOCKERFILE = "Dockerfile"
BASE = "base-{}.tar.gz"
EMPTY = "state"
READY = (  # whatever certificate it shows: it asks itself, and says nothing
    "import os, ssl, urllib.request as web; any = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); "
    "any.check_hostname, any.verify_mode = False, ssl.CERT_NONE; "
    "address = ('https' if os.environ.get('LEPTON_TLS_CERT') else 'http') + '://127.0.0.1:'; "
    f"web.urlopen(address + os.environ.get('LEPTON_PORT', '{PORT}') + '/readyz', timeout=3, context=any)"
)


def write_context(image: Image, folder: Path, *, base_name: str = "") -> None:
    """Write a build context into an empty folder: the image's parts as folders, and a Dockerfile.

    Parameters
    ----------
    image : Image
    folder : Path
    base_name : str
        A base that the builder knows by this name; empty where the image has its own.

    Raises
    ------
    LeptonError
        If the base is a layout whose layers remove files, which a Dockerfile cannot say.
    OSError
        As the file system says.
    """
    lines = [f"FROM {base_name or 'scratch'}"]
    if image.base is not None:
        lines += _write_base(image.base, folder)
    (folder / EMPTY).mkdir()
    for part, tree in image.parts.items():
        (folder / part).mkdir()
        written_to = [path for path, entry in tree.entries() if entry.is_written_to]
        write_folder(tree, folder / part, without=written_to, mtime=image.mtime)
        lines.append(f"COPY {part}/ /")
        lines += [f"COPY --chown={USER} {EMPTY}/ /{path}/" for path in written_to]
    lines += [f"ENV {name}={_quoted(value)}" for name, value in image.environment.items()]
    lines += [f"LABEL {_quoted(name)}={_quoted(value)}" for name, value in sorted(image.labels.items())]
    lines += [
        f"USER {USER}",
        "WORKDIR /",
        f"EXPOSE {PORT}",
        "STOPSIGNAL SIGTERM",
        f"HEALTHCHECK --interval=30s --start-period=30s CMD {json.dumps([image.python, '-c', READY])}",
        f"ENTRYPOINT {json.dumps(image.entrypoint)}",
    ]
    (folder / DOCKERFILE).write_text("\n".join(lines) + "\n")


def _write_base(base: Base, folder: Path) -> list[str]:
    if base.contents.has_whiteouts:
        raise LeptonError(
            f"The base '{base.name}' has layers that remove files, which a Dockerfile cannot add.",
            f"Load it (podman pull oci:{base.name}), and give the name that it then has: --base NAME",
            code="refused",
        )
    lines = []
    for number, source in enumerate(base.sources):
        name = BASE.format(number)
        out: Any
        with (folder / name).open("wb") as file, gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as out:
            write_base(source.path, out)
        lines.append(f"ADD {name} /")
    return lines


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("$", "\\$")
