"""``train --resume RUN``: whether another run's last checkpoint is one to go on from."""

from __future__ import annotations

from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.runs import find_run
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.stages.train.spec import Train

SAME = {  # what makes the model, its optimizer, and the order of its rows
    "params": "-p",
    "optimizer": "--optimizer",
    "loss": "--loss",
    "batch_size": "--batch-size",
    "seed": "--seed",
    "preprocess": "--preprocess",
    "task": "--task",
}


def resumed_run(asker: Asker, spec: Train, name: str) -> RunView:
    """Return the run that ``--resume`` names.

    Raises
    ------
    LeptonError
        If there is none, or it is not one from which this training can go on; what to type instead is said.
    """
    view = find_run(asker, str(spec.resume))
    what = f"Run {view.run_id}"
    if view.kind != "train":
        raise LeptonError(
            f"{what} is no training of a model by the engine, but of kind '{view.kind}': --resume takes such a one.",
            f"List them: {asker.type_next('runs')}",
        )
    if view.state not in ENDED:
        raise LeptonError(
            f"{what} is {view.state}: it goes on by itself.",
            f"See it: {asker.type_next(f'show run/{view.run_id}')}",
            code="conflict",
        )
    if view.model != name:
        raise LeptonError(
            f"{what} trained '{view.model}', and this would go on as '{name}'.",
            f"Say --name {view.model}, or no --resume.",
        )
    folder = RunFolder(asker.home.run(view.run_id).root)
    _check_checkpoint(what, folder)
    _check_data(asker, what, view)
    _check_flags(what, spec, _record(what, folder))
    done = int(view.progress.get("done") or 0)
    if view.state == "completed" and done >= spec.epochs:
        raise LeptonError(
            f"{what} has trained all of its {done} epochs; --epochs {spec.epochs} leaves nothing to do.",
            f"Say how many in all: --epochs {2 * done}",
        )
    return view


def check_rows(resumed: RunView, pinned: str | None) -> None:
    """See that a training goes on with the rows that it began with; None: those of the notebook's own loader.

    Raises
    ------
    LeptonError
        If the dataset, or its version, is another one.
    """
    if resumed.dataset != pinned:
        own = "a loader of the notebook"
        raise LeptonError(
            f"Run {resumed.run_id} was trained on {resumed.dataset or own}; this is {pinned or own}.",
            f"Say --data {resumed.dataset or 'LOADER'}, or no --resume.",
        )


def _check_data(asker: Asker, what: str, view: RunView) -> None:
    from lepton_jupyter.stages.data.store import Store

    if view.dataset is None:
        return  # the notebook's own loader, which this one brings as well
    try:
        Store(asker.home).record(parse(view.dataset, "dataset"))
    except LeptonError as error:
        raise LeptonError(
            f"{what} was trained on {view.dataset}, which is gone: it cannot go on.",
            "Train again, without --resume.",
            code="not_found",
        ) from error


def _check_checkpoint(what: str, folder: RunFolder) -> None:
    if not folder.root.is_dir():
        raise LeptonError(
            f"The data of {what[0].lower() + what[1:]} are gone: there is no folder '{folder.root}'.",
            "Train again, without --resume.",
            code="not_found",
        )
    if not (folder.checkpoints / "last.safetensors").exists():
        raise LeptonError(
            f"{what} left no checkpoint in '{folder.checkpoints}': it ended before its first, or its model has none.",
            "Train again, without --resume.",
            code="not_found",
        )


def _record(what: str, folder: RunFolder) -> RunRecord:
    from lepton_jupyter.runner.request import read_record

    try:
        return read_record(folder)
    except LeptonError as error:
        raise LeptonError(f"{what} cannot go on: {error.message}", "Train again, without --resume.") from error


def _check_flags(what: str, spec: Train, record: RunRecord) -> None:
    """See that what the checkpoint was made with is as it was: else it would not fit, or not mean the same."""
    for field, flag in SAME.items():
        mine: Any = getattr(spec, field)
        theirs: Any = record.spec.get(field, mine)
        if mine == theirs:
            continue
        if isinstance(theirs, dict):
            said = " ".join(f"{flag} {key}={value}" for key, value in theirs.items()) or f"nothing by {flag}"
        else:
            said = f"{flag} {theirs}"
        raise LeptonError(f"{what} was trained with {said}, not {mine}.", f"Say {said}, or no --resume.")
