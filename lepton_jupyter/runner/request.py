"""What a client writes for a run before the backend hears of it: a whole folder, or none."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError, did_you_mean
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner.capture import Captured

SCRUBBED = re.compile(
    r"JPY_.*|JUPYTERHUB_.*|JUPYTER_.*TOKEN.*|JUPYTER_SERVER_.*|KERNEL_.*|CONFIGPROXY_AUTH_TOKEN"
    r"|IPY_INTERRUPT_EVENT|LEPTON_RUN|LEPTON_LEASE_FDS|LEPTON_DEVICES"
)


def scrubbed_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment less what belongs to Jupyter and the Hub: a run must outlive both."""
    return {name: value for name, value in environment.items() if not SCRUBBED.fullmatch(name)}


def prepare_run(
    home: Home,
    record: RunRecord,
    *,
    notebook: dict[str, Any],
    captured: Captured | None,
    environment: Mapping[str, str],
    checkpoints: Path | None = None,
) -> RunFolder:
    """Write the folder of a run: whole, or not there.

    Parameters
    ----------
    home : Home
    record : RunRecord
        Becomes ``run.json``.
    notebook : dict
        Becomes ``source.ipynb``: what is executed.
    captured : Captured or None
        Becomes ``payload/``.
    environment : mapping
        The notebook's; it is scrubbed here, and lies in ``environment.json`` (mode 0600) and nowhere else.
    checkpoints : Path, optional
        Those of another run, which are copied: this one goes on from them.

    Raises
    ------
    LeptonError
        If there is no room, or the folder cannot be written.
    """
    home.make()
    folder = home.run(record.run_id)
    temporary = RunFolder(home.runs / f".{record.run_id}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.root.mkdir(mode=0o700)
        temporary.payload.mkdir(mode=0o700)
        for name, content in (captured.files if captured else {}).items():
            path = temporary.payload / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, content, is_durable=False)
        if checkpoints is not None:
            shutil.copytree(checkpoints, temporary.checkpoints, ignore=shutil.ignore_patterns(".*.tmp"))
        write_atomic(temporary.environment, json.dumps(scrubbed_environment(environment)).encode(), is_durable=False)
        write_atomic(temporary.source, json.dumps(notebook, indent=1, ensure_ascii=False).encode(), is_durable=False)
        write_atomic(temporary.record, encode(record))
        temporary.root.rename(folder.root)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(temporary.root, ignore_errors=True)
        is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        reason = "no space left" if is_full else getattr(error, "strerror", None) or str(error)
        raise LeptonError(
            f"The run cannot be written to '{home.runs}': {reason}.",
            "Make room, or set LEPTON_HOME to another disk.",
            code="failed",
        ) from error
    except BaseException:
        shutil.rmtree(temporary.root, ignore_errors=True)
        raise
    return folder


def read_record(folder: RunFolder) -> RunRecord:
    """Return ``run.json`` of a run.

    Raises
    ------
    LeptonError
        If it is not there or cannot be read.
    """
    try:
        return msgspec.json.decode(folder.record.read_bytes(), type=RunRecord)
    except (OSError, msgspec.DecodeError) as error:
        raise LeptonError(f"The record of run '{folder.run_id}' cannot be read: {error}.", code="not_found") from error


def stage_notebook(verb: str, *, title: str, source: str) -> dict[str, Any]:
    """Return ``stages/VERB/notebook.ipynb`` with ``{{title}}`` and ``{{source}}`` filled in.

    In a markdown cell that has no code fence of its own, the source gets one.
    """
    path = Path(__file__).parents[1] / "stages" / verb / "notebook.ipynb"
    notebook = _read(path)
    for cell in notebook["cells"]:
        text = _text(cell)
        is_prose = cell.get("cell_type") == "markdown" and "```" not in text
        shown = f"```python\n{source}\n```" if is_prose and source else source
        cell["source"] = text.replace("{{title}}", title).replace("{{source}}", shown)
        if cell.get("cell_type") == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return notebook


def cell_notebook(source: str, title: str) -> dict[str, Any]:
    """Return the notebook of a ``%%lepton train`` cell: what was asked, and the cell."""
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": _metadata(),
        "cells": [
            {"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {title}"},
            {
                "cell_type": "code",
                "id": "program",
                "metadata": {},
                "source": source,
                "outputs": [],
                "execution_count": None,
            },
        ],
    }


def user_notebook(path: Path) -> dict[str, Any]:
    """Return a notebook of the user's as it lies on disk.

    Raises
    ------
    LeptonError
        If there is none, or it is not a notebook.
    """
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.ipynb")) if path.parent.is_dir() else []
        raise LeptonError(
            f"No notebook '{path}'. Here: {', '.join(near[:12]) or 'none'}.{did_you_mean(path.name, near)}",
            code="not_found",
        )
    notebook = _read(path)
    about = notebook.setdefault("metadata", {})
    language = about.get("kernelspec", {}).get("language", "python")
    about.setdefault("language_info", {}).setdefault("name", language)  # papermill writes parameters by it
    if not about.get("kernelspec", {}).get("name"):  # and reads the parameters' cell by a kernel's name
        about["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": language}
    return notebook


def _read(path: Path) -> dict[str, Any]:
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LeptonError(f"'{path}' cannot be read as a notebook: {error}.") from error
    if not isinstance(notebook, dict) or not ("cells" in notebook or "worksheets" in notebook):
        raise LeptonError(f"'{path}' is JSON, but no notebook: it has no cells.")
    return notebook


def _text(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def _metadata() -> dict[str, Any]:
    return {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "version": sys.version.split()[0]},
    }


def environment_of(folder: RunFolder) -> dict[str, str]:
    """Return the environment of a run's kernel: the notebook's, and where the run lies."""
    try:
        environment: dict[str, str] = json.loads(folder.environment.read_bytes())
    except OSError as error:
        raise LeptonError(
            f"The environment of run '{folder.run_id}' cannot be read: {error.strerror}.", code="failed"
        ) from error
    home = folder.root.parent.parent
    own = {"LEPTON_HOME": str(home), "LEPTON_RUN": str(folder.root)}
    return {"PATH": os.defpath, **environment, **own, **device_environment(os.environ.get("LEPTON_DEVICES", ""))}


def device_environment(devices: str) -> dict[str, str]:
    """Return the variables by which a run sees the devices that it holds, and no other GPU.

    Parameters
    ----------
    devices : str
        Names with commas between them: ``cpu-0,cpu-1`` or GPUs' UUIDs; empty where the run holds none.
    """
    if not devices:
        return {}
    gpus = [name for name in devices.split(",") if not name.startswith("cpu-")]
    return {"LEPTON_DEVICES": devices, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
