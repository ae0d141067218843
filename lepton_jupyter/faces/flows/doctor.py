"""``doctor``: look at everything that a run needs, and say what to do about what is wrong."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.objects.table import Table
from lepton_jupyter.stages.verbs import Verb

ROOM_BYTES = 2**30
TRACKING_S = 5.0  # a backend that has just started is still loading MLflow
NEEDED = ("torch", "papermill", "mlflow", "polars", "onnxruntime", "ipykernel", "jupyterlab")


class Check(NamedTuple):
    """One thing that was looked at. `state` is ``ok``, ``warning`` or ``problem``."""

    what: str
    state: str
    found: str
    do: str = ""


def doctor(asker: Asker, spec: Verb, objects: Mapping[str, Any]) -> Table[Check]:
    """Check home, disk, runtime folder, packages and backend."""
    checks = [
        check for look in (_python, _home, _disk, _runtime, _packages, _backend) for check in _safely(look, asker)
    ]
    return Table(
        "doctor", checks, columns=("what", "state", "found", "do"), rows=[tuple(c) for c in checks], pills=("state",)
    )


def _safely(look: Callable[[Asker], Iterator[Check]], asker: Asker) -> list[Check]:
    try:
        return list(look(asker))
    except LeptonError as error:
        return [Check(look.__name__.strip("_"), "problem", error.message, error.hint)]


def _python(asker: Asker) -> Iterator[Check]:
    is_fit = sys.version_info >= (3, 11) and platform.system() in ("Linux", "Darwin")
    found = f"{platform.python_version()} on {platform.system()}: {sys.executable}"
    yield Check(
        "python", "ok" if is_fit else "problem", found, "" if is_fit else "Python 3.11 on Linux (WSL2) or macOS."
    )


def _home(asker: Asker) -> Iterator[Check]:
    root = asker.home.root
    is_ours = os.access(root, os.W_OK)
    yield Check(
        "home", "ok" if is_ours else "problem", str(root), "" if is_ours else "Set LEPTON_HOME to a folder of yours."
    )
    mode = root.stat().st_mode & 0o077
    if mode:
        yield Check("home's mode", "warning", f"others may look in ({mode:03o})", f"chmod 700 {root}")


def _disk(asker: Asker) -> Iterator[Check]:
    free = shutil.disk_usage(asker.home.root).free
    has_room = free >= ROOM_BYTES
    yield Check(
        "disk", "ok" if has_room else "warning", f"{free / 2**30:.1f} GiB free", "" if has_room else "Make room."
    )


def _runtime(asker: Asker) -> Iterator[Check]:
    yield Check("runtime folder", "ok", str(asker.home.runtime().make().root))


def _packages(asker: Asker) -> Iterator[Check]:
    for name in NEEDED:
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            yield Check(name, "problem", "not installed", f"pip install {name}")


def _backend(asker: Asker) -> Iterator[Check]:
    health = asker.client.health()
    until = time.monotonic() + TRACKING_S
    while not health.is_tracking_up and time.monotonic() < until:
        time.sleep(0.1)
        health = asker.client.health()
    yield Check("backend", "ok", f"{health.version}, {health.n_active} active runs, {health.python}")
    is_up = health.is_tracking_up
    advice = "Runs go on, and are recorded once it answers. Look at MLFLOW_TRACKING_URI."
    yield Check("mlflow", "ok" if is_up else "warning", health.tracking, "" if is_up else advice)
