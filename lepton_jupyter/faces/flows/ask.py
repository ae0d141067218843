"""What every verb that makes a run does: write the payload, tell the backend, follow."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.devices import choose
from lepton_jupyter.core.paths import new_run_id
from lepton_jupyter.faces.arguments import render
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.follow import follow
from lepton_jupyter.faces.objects.run import Run
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.stages.verbs import Verb


def new_record(asker: Asker, kind: str, title: str, spec: Verb, **more: Any) -> RunRecord:
    """Return the record of a run that is asked for now, here, by this interpreter."""
    return RunRecord(
        run_id=new_run_id(),
        kind=kind,
        title=title,
        created_at=time.time(),
        python=sys.executable,
        cwd=str(Path.cwd()),
        command=asker.command or f"%lepton {render(spec)}",
        spec=msgspec.to_builtins(spec),
        parent=asker.parent,
        asked_by="shell" if asker.face == "shell" else "kernel",
        lepton_version=_version(),
        **{"kernel": asker.kernel, **more},
    )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lepton_jupyter")
    except PackageNotFoundError:
        return ""


def check_devices(asker: Asker, said: str) -> None:
    """See that this machine can ever have what ``--devices`` says; a backend is asked only where it says something.

    Raises
    ------
    LeptonError
        If it cannot.
    """
    if said not in ("auto", "cpu"):
        choose(said, [device.name for device in asker.client.devices()])


def submit(
    asker: Asker,
    record: RunRecord,
    *,
    notebook: dict[str, Any],
    captured: Any = None,
    checkpoints: Path | None = None,
) -> RunView:
    """Write the run's folder, then hand it to the backend.

    Raises
    ------
    LeptonError
        If the folder cannot be written, or the backend does not take the run.
    """
    from lepton_jupyter.runner.request import prepare_run, scrubbed_environment

    client = asker.client  # before anything is written: no backend, no run
    environment = scrubbed_environment(os.environ)
    prepare_run(
        asker.home,
        record,
        notebook=notebook,
        captured=captured,
        environment=environment,
        checkpoints=checkpoints,
    )
    return client.submit(record.run_id)


def run_to_its_end(asker: Asker, view: RunView, *, is_detached: bool = False) -> Run:
    """Follow the run and return it; with `is_detached` return it at once."""
    if is_detached:
        run = Run(view, asker)
        asker.say(f"Run {view.run_id} of {view.title} goes on by itself. {asker.type_next(f'show run/{view.run_id}')}")
        return run
    run = Run(follow(asker, view), asker)
    if asker.is_kernel:  # the live card has become the last one; a terminal has seen lines
        run.mark_shown()
    return run


def parameters_of(spec: Verb, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a verb's struct as a notebook's parameters, without what is empty."""
    values: Mapping[str, Any] = msgspec.to_builtins(spec)
    return {key: value for key, value in values.items() if key not in leave_out and value not in (None, [], (), {})}
