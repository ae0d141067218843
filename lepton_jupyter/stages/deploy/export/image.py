"""One image before it is written: its parts, and what its configuration says. Both formats are written from this."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import MANIFEST, TOKENIZER, Bundle, encode
from lepton_jupyter.formats.endpoint import EndpointConfig, Options
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.stages.deploy.export.base import DEFAULT_PATH, Base, architecture
from lepton_jupyter.stages.deploy.export.elf import needs_of
from lepton_jupyter.stages.deploy.export.interpreter import PYTHON, interpreter_tree
from lepton_jupyter.stages.deploy.export.packages import (
    OF_IMAGES,
    OF_PROSE,
    SITE,
    STATE,
    USER_ID,
    dependencies_tree,
    server_tree,
)
from lepton_jupyter.stages.deploy.export.tree import Tree

PORT = 8080
BUNDLE = "opt/lepton/bundle"
RELEASE = "opt/lepton/endpoint.json"
MODULE = "lepton_jupyter.serving.container"
LABELS = "org.opencontainers.image."
OWN_LABELS = "lepton-jupyter."
USER = f"{USER_ID}:{USER_ID}"


@dataclass(frozen=True)
class Image:
    """What an image is made of.

    Attributes
    ----------
    parts : dict of str to Tree
        The layers above the base by what they hold, the lowest first.
    python : str
        The interpreter's program in the image.
    labels : dict of str to str
    created : str
        RFC 3339.
    mtime : int
        Time of all files, seconds since 1970.
    base : Base or None
        None: the interpreter is taken along.
    packages : dict of str to str
        Versions of what was taken along.
    """

    parts: Mapping[str, Tree]
    python: str
    labels: Mapping[str, str]
    created: str
    mtime: int
    base: Base | None
    packages: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """What the image sets; the base's own first."""
        inherited = self.base.environment if self.base is not None else {}
        is_known = self.python.startswith("/")  # else the base is one that we have not seen, and its own path holds
        return {
            **({"PATH": DEFAULT_PATH} if is_known else {}),
            **inherited,
            "PYTHONPATH": f"/{SITE}",
            "PYTHONSAFEPATH": "1",
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUTF8": "1",
            "PYTHONCOERCECLOCALE": "0",
            "ORT_DISABLE_TELEMETRY": "1",
            "OPENBLAS_NUM_THREADS": "1",  # numpy only packs rows here; its threads would be one a core, for nothing
            "LEPTON_PORT": str(PORT),
            "LEPTON_STATE": f"/{STATE}",
        }

    @property
    def entrypoint(self) -> list[str]:
        """The command."""
        return [self.python, "-m", MODULE]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of an OCI image, without what its layers say."""
        return {
            "created": self.created,
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": USER,
                "Env": [f"{name}={value}" for name, value in self.environment.items()],
                "Entrypoint": self.entrypoint,
                "ExposedPorts": {f"{PORT}/tcp": {}},
                "WorkingDir": "/",
                "Labels": dict(self.labels),
                "StopSignal": "SIGTERM",
            },
        }


def plan_image(version: VersionView, bundle: Bundle, *, base: Base | str | None, forced: str = "") -> Image:
    """Gather what an image of a version holds.

    Parameters
    ----------
    version : VersionView
    bundle : Bundle
        Its own; each file is compared with the manifest as it is read.
    base : Base, str or None
        A local base; the name of one that the builder knows, which is not looked into; None: this interpreter is
        taken along.
    forced : str
        Why a version that failed its evaluation is exported all the same.

    Raises
    ------
    LeptonError
        If a file of the bundle was changed, or something that the image needs is not here or not in the base.
    """
    if sys.platform != "linux":
        raise LeptonError(
            f"An image holds packages for Linux; those here are for {sys.platform}.", "Export on Linux.", code="refused"
        )
    epoch, model = _source_date_epoch(), _model_tree(version, bundle)
    more = (*(OF_IMAGES if bundle.schema.image is not None else ()), *(OF_PROSE if bundle.has(TOKENIZER) else ()))
    dependencies, packages = dependencies_tree(*more)
    parts: dict[str, Tree] = {}
    if base is None:
        parts["interpreter"], python = interpreter_tree(dependencies)
    elif isinstance(base, str):
        python = PYTHON
    else:
        python = base.python(PYTHON)
        base.check_libraries(_wanted_libraries(dependencies))
    parts |= {"packages": dependencies, "server": server_tree(), "model": model}
    created = datetime.fromtimestamp(epoch if epoch is not None else int(version.created_at), UTC)
    local = base if isinstance(base, Base) else None
    inherited = local.config.get("Labels") or {} if local is not None else {}
    return Image(
        parts=parts,
        python=python,
        labels=inherited | _labels(version, bundle, forced),
        created=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        mtime=epoch or 0,
        base=local,
        packages={"python": sys.version.partition(" ")[0], **packages},
    )


def _source_date_epoch() -> int | None:
    """Return what reproducible builds agree on as the time of a build, where it is set."""
    said = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not said:
        return None
    if not said.isdecimal():
        raise LeptonError(f"SOURCE_DATE_EPOCH is '{said}'; wanted: whole seconds since 1970.", "Unset it, or mend it.")
    return int(said)


def _wanted_libraries(tree: Tree) -> set[str]:
    """Return the shared libraries that extension modules ask for and that do not come with them."""
    wanted: set[str] = set()
    own = set()
    for path, entry in tree.entries():
        if ".so" in path and isinstance(entry.content, Path):
            own.add(path.rpartition("/")[2])
            needs = needs_of(entry.content)
            wanted.update(needs.libraries if needs else ())
    return wanted - own


def _model_tree(version: VersionView, bundle: Bundle) -> Tree:
    tree = Tree()
    for name in sorted(bundle.manifest.files):
        tree.add(f"{BUNDLE}/{name}", bundle.read(name))
    tree.add(f"{BUNDLE}/{MANIFEST}", (bundle.root / MANIFEST).read_bytes())
    release = EndpointConfig(
        name=version.model,
        release=1,
        model=version.model,
        version=version.ref,
        bundle=BUNDLE.rpartition("/")[2],  # beside this file
        manifest_hash=bundle.manifest_hash,
        port=PORT,
        token_hashes=(),  # the container is given its tokens
        options=Options(host="0.0.0.0"),  # noqa: S104  a container is reached from outside, or not at all
    )
    tree.add(RELEASE, encode(release))
    return tree


def _labels(version: VersionView, bundle: Bundle, forced: str) -> dict[str, str]:
    return {
        f"{LABELS}title": version.model,
        f"{LABELS}version": version.ref.rpartition("@")[2],
        f"{LABELS}description": f"{version.ref} behind HTTP: /predict, /v2/models/{version.model}/infer, /metrics",
        f"{OWN_LABELS}model": version.model,
        f"{OWN_LABELS}version": version.ref,
        f"{OWN_LABELS}manifest": f"sha256:{bundle.manifest_hash}",
        f"{OWN_LABELS}live": f"http:{PORT}/healthz",
        f"{OWN_LABELS}ready": f"http:{PORT}/readyz",
        **({f"{LABELS}licenses": bundle.card.license} if bundle.card.license else {}),
        **({f"{OWN_LABELS}forced": forced} if forced else {}),
    }
