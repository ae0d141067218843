"""Trials one after the other, in this process."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.stages.tune.searching import Asked, Begun
from lepton_jupyter.stages.tune.study import Study
from lepton_jupyter.stages.tune.trial import TrialSession

PARAMS = "params.json"


def find_unfinished(folder: Path, study: Study, names: set[str]) -> None:
    """Let the study ask first for what an earlier process had begun: its engine goes on from its checkpoint.

    Parameters
    ----------
    folder : Path
        The run's.
    names : set of str
        What is searched.
    """
    for path in sorted((folder / "trials").glob(f"*/{PARAMS}")):
        values = msgspec.json.decode(path.read_bytes())
        if names == set(values):
            study.enqueue(values)


def run_singly(asked: Asked, slot: str = "here") -> None:
    """Train trials one after the other until there are enough, or the run is to stop."""
    __tracebackhide__ = True
    while (begun := asked.begin()) is not None:
        if not _train(asked, begun, _folder_for(asked.session.folder / "trials", begun, slot)):
            return


def _train(asked: Asked, begun: Begun, folder: Path) -> bool:
    """Train a trial; return False where it was stopped in its middle: it is begun again when the search goes on."""
    __tracebackhide__ = True

    def on_epoch(epoch: int, value: float) -> bool:
        return asked.report(begun.number, epoch, value)

    session = TrialSession(asked.session, folder, metric=asked.question.metric, on_epoch=on_epoch)
    try:
        outcome = asked.question.fit(session, begun.training).outcome
    except Exception as error:
        if isinstance(error, LeptonError) and error.code == "stopped":
            return False
        shutil.rmtree(folder, ignore_errors=True)
        asked.fail(begun.number, error)
        return True
    value = asked.question.value_of(outcome)
    is_stopped = outcome.stopped_at is not None and not session.is_pruned
    if is_stopped and asked.has_best():
        return False
    if not session.is_pruned:  # one that was stopped is better than nothing at all
        asked.keep(begun.number, value, outcome, folder)
    asked.end(begun.number, "pruned" if session.is_pruned else "complete", value)
    shutil.rmtree(folder, ignore_errors=True)
    return not is_stopped


def _folder_for(trials: Path, begun: Begun, slot: str) -> Path:
    """Return the folder of a trial: that in which it was begun by an earlier process, or a fresh one."""
    values = msgspec.json.encode(begun.values)
    for path in trials.glob(f"*/{PARAMS}"):
        if path.read_bytes() == values:
            return path.parent
    folder = trials / f"{slot}-{begun.number}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700, parents=True)
    write_atomic(folder / PARAMS, values, is_durable=False)
    return folder
