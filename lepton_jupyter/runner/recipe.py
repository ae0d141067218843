"""The recipe of a version: what its training was given, kept in its run's folder, to be repeated on newer data."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import Home, RunFolder, new_run_id
from lepton_jupyter.formats.bundle import encode, open_bundle
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.runner import payload
from lepton_jupyter.runner.request import read_record, stage_notebook
from lepton_jupyter.stages.data.spec import DataFlags

AGAIN = "  # again on "
WHERE = ("model", "data", "name")  # of a training's struct: which model and rows, not how


def recipe_of(home: Home, version: VersionView) -> RunRecord:
    """Return the record of the training that made a version, if it can be repeated; of a search, its best trial's.

    Raises
    ------
    LeptonError
        If there was no training of ours (a model that was saved, a cell), or its run, interpreter or folder is gone.
    """
    ref, folder = version.ref, home.run(version.run_id)
    try:
        record = read_record(folder)
    except LeptonError as error:
        raise _no_recipe(ref, f"the run {version.run_id} that trained it is gone", "Train it again.") from error
    if record.kind == "cell":
        reason = "a cell trained it, and which rows a cell sees is not known, so no new version could be shown better"
        raise _no_recipe(ref, reason, "Train it by name: %lepton train MODEL --data NAME")
    if record.kind not in ("train", "tune") or record.dataset is None:
        raise _no_recipe(ref, "it was saved from a notebook, where it was trained already", "Train it: %lepton train …")
    for path in (folder.payload, folder.source, folder.environment):
        if not path.exists():
            raise _no_recipe(ref, f"'{path}' is gone", "Train it again.")
    if not Path(record.python).exists():
        hint = "Put the environment back, or train it again in another one."
        raise _no_recipe(ref, f"the interpreter '{record.python}' that trained it is gone", hint)
    if not Path(record.cwd).is_dir():
        raise _no_recipe(ref, f"its folder '{record.cwd}' is gone", "Put it back, or train it again.")
    return _of_best_trial(record, version) if record.kind == "tune" else record


def _of_best_trial(record: RunRecord, version: VersionView) -> RunRecord:
    """Return the record of a search as one of a training with its best trial's settings, which the card holds."""
    of_data = {info.name for info in msgspec.structs.fields(DataFlags)} | {*WHERE}
    how = open_bundle(Path(version.bundle), version.manifest_hash or None).card.params
    spec = {key: value for key, value in record.spec.items() if key in of_data} | how
    command = f"{record.command}  # its best trial"
    return msgspec.structs.replace(record, kind="train", spec=spec, parameters=how, command=command)


def _no_recipe(ref: str, reason: str, hint: str) -> LeptonError:
    return LeptonError(f"{ref} cannot be trained again by itself: {reason}.", hint, code="refused")


def root_of(record: RunRecord) -> str:
    """Return the id of the run whose recipe this one has: of all its repetitions it is the same."""
    return record.recipe or record.run_id


def repeat(home: Home, recorded: RunRecord, *, dataset: str, parent: RunRecord) -> RunRecord:
    """Write the folder of a run that repeats a training on another version of its dataset: whole, or not there.

    Parameters
    ----------
    home : Home
    recorded : RunRecord
        Of the training, whose folder is there; see `recipe_of`.
    dataset : str
        ``NAME@3``.
    parent : RunRecord
        Of the run that asks.

    Raises
    ------
    LeptonError
        If the folder cannot be written.
    """
    changes: dict[str, Any] = {
        "run_id": new_run_id(),
        "created_at": time.time(),
        "dataset": dataset,
        "spec": {key: value for key, value in recorded.spec.items() if key != "resume"} | {"data": dataset},
        "resumes": None,
        "command": f"{recorded.command.partition(AGAIN)[0]}{AGAIN}{dataset}",
        "parent": parent.run_id,
        "lepton_version": parent.lepton_version,
        "asked_by": "retrain",
        "recipe": root_of(recorded),
        "packages": {},  # those of then
    }
    record = msgspec.structs.replace(recorded, **changes)
    old, new = home.run(recorded.run_id), home.run(record.run_id)
    temporary = RunFolder(home.runs / f".{record.run_id}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.root.mkdir(mode=0o700)
        shutil.copytree(old.payload, temporary.payload, copy_function=_link)
        write_atomic(temporary.source, _notebook(old, recorded), is_durable=False)
        write_atomic(temporary.environment, old.environment.read_bytes(), is_durable=False)
        write_atomic(temporary.record, encode(record))
        temporary.root.rename(new.root)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(temporary.root, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise LeptonError(f"The training cannot be repeated in '{home.runs}': {reason}.", code="failed") from error
    return record


def _notebook(old: RunFolder, recorded: RunRecord) -> bytes:
    """Return what is executed: what was, or where a search's best trial is trained again, a training's notebook."""
    if read_record(old).kind == recorded.kind:
        return old.source.read_bytes()
    source = payload.read_index(old.payload).source
    return encode(stage_notebook(recorded.kind, title=recorded.title, source=source))


def _link(source: str, target: str) -> None:
    """Give a file another name; a payload is written once, so both may share it. Where that cannot be, copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
