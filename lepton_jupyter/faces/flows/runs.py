"""``run``, ``logs``, ``open``, ``stop``: notebooks of the user, and what can be done with any run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.files import tail
from lepton_jupyter.core.names import parse
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.ask import check_devices, new_record, run_to_its_end, submit
from lepton_jupyter.faces.flows.meaning import kinds_of, newest_run
from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.run import Run
from lepton_jupyter.faces.objects.schedule import Schedule
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.faces.objects.text import Text
from lepton_jupyter.faces.objects.version import Endpoint
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.runner import spec as specs

LOG_LINES = 200
FOLLOW_S = 0.3


def run(asker: Asker, spec: specs.Run, objects: Mapping[str, Any]) -> Run:
    """Execute a notebook of the user once, in a kernel of its own."""
    from lepton_jupyter.runner.request import user_notebook

    path = Path(spec.notebook).expanduser().absolute()
    notebook = user_notebook(path)
    output = str(Path(spec.to).expanduser().absolute()) if spec.to else None
    if output and not Path(output).parent.is_dir():
        raise LeptonError(f"There is no folder '{Path(output).parent}' for --to '{spec.to}'.", "Make it first.")
    devices = str(spec.devices) if spec.devices > 1 else "auto"
    check_devices(asker, devices)
    record = new_record(
        asker,
        "notebook",
        path.name,
        spec,
        parameters=spec.params,
        needs_device=spec.devices > 0,
        devices=devices,
        output=output,
    )
    record = msgspec.structs.replace(record, cwd=str(path.parent))
    return run_to_its_end(asker, submit(asker, record, notebook=notebook), is_detached=spec.detach)


def find_run(asker: Asker, text: str) -> RunView:
    """Return the run that a reference means: its id, a prefix, or a model's name for its newest training.

    Raises
    ------
    LeptonError
        If there is none; it lists the newest.
    """
    ref = parse(text)
    if ref.kind not in (None, "run", "model"):
        raise LeptonError(f"'{text}' is a {ref.kind}; a run is wanted here.")
    view = newest_run(asker, ref.name) if ref.is_latest else None
    if view is not None:
        return view
    if not ref.is_latest:
        version = asker.client.version(f"{ref.name}@{ref.version if ref.version is not None else ref.alias}")
        return asker.client.run(version.run_id)
    if ref.may_be_run:
        return asker.client.run(ref.name)
    known = [f"{view.run_id} ({view.title})" for view in asker.client.runs(limit=8)]
    raise unknown("run", text, known, f"Type {asker.type_next('runs')} for all.")


def logs(asker: Asker, spec: specs.Logs, objects: Mapping[str, Any]) -> Text:
    """Return the end of a log; with --follow print it on until the run ends or the cell is interrupted."""
    kind, path, is_over = _log_of(asker, spec.ref)
    if not spec.follow:
        return Text(tail(path, LOG_LINES, 400 * LOG_LINES) or f"The log of this {kind} is empty: {path}")
    offset = 0
    while True:
        was_over = is_over()
        with path.open("rb") if path.exists() else _nothing() as file:
            offset = min(offset, file.seek(0, 2))  # a log that grew too long was cut in its middle
            file.seek(offset)
            content = file.read()
        offset += len(content)
        if content:
            asker.say(content.decode("utf-8", "replace").rstrip("\n"))
        if was_over:
            return Text(f"{kind} {spec.ref} has ended.")
        time.sleep(FOLLOW_S)


def _nothing() -> Any:
    import io

    return io.BytesIO()


def _log_of(asker: Asker, text: str) -> tuple[str, Path, Any]:
    kind = _kind_of(asker, text)
    if kind == "endpoint":
        name = parse(text).name
        return kind, asker.home.endpoint(name).log, lambda: asker.client.endpoint(name).state == "stopped"
    view = find_run(asker, text)
    folder = RunFolder(asker.home.run(view.run_id).root)
    return "run", folder.log, lambda: asker.client.run(view.run_id).state in ENDED


def _kind_of(asker: Asker, text: str, kinds: tuple[str, ...] = ("endpoint", "run")) -> str:
    ref = parse(text)
    if ref.kind in kinds:
        return ref.kind
    if ref.kind == "model" or not ref.is_latest:
        return "run"
    return kinds_of(asker, text, kinds)[0]


class Link(Shown):
    """Where an executed notebook lies."""

    def __init__(self, view: RunView, path: Path) -> None:
        self.run_id = view.run_id
        self.path = path
        self._title = f"{view.kind} {view.title}"
        self._is_there = path.exists()

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def _href(self) -> str | None:
        """A link from the notebook's own folder, where Jupyter can follow it."""
        try:
            return str(self.path.relative_to(Path.cwd()))
        except ValueError:
            return None

    def _text(self) -> str:
        state = "" if self._is_there else " (not written yet)"
        return f"{self._title}, run {self.run_id}{state}: {self.path}"

    def _html(self) -> str:
        href = self._href
        inner = f'<a href="{html.escape(href)}">{html.escape(self.path)}</a>' if href else html.escape(self.path)
        return html.card(self._title, f'<div style="margin-top:6px">{inner}</div>', subtitle=f"run {self.run_id}")


def open_run(asker: Asker, spec: specs.Open, objects: Mapping[str, Any]) -> Link:
    """Return where a run's executed notebook lies."""
    view = find_run(asker, spec.run)
    folder = RunFolder(asker.home.run(view.run_id).root)
    return Link(view, folder.notebook)


def stop(asker: Asker, spec: specs.Stop, objects: Mapping[str, Any]) -> Run | Endpoint | Schedule:
    """Stop a run, whose best checkpoint is kept, or an endpoint; pause a schedule."""
    from lepton_jupyter.faces.flows.follow import wait_for
    from lepton_jupyter.faces.flows.schedule import pause

    kind = _kind_of(asker, spec.ref, ("endpoint", "schedule", "run"))
    if kind == "schedule":
        return pause(asker, spec.ref)
    if kind == "endpoint":
        view = asker.client.stop_endpoint(parse(spec.ref).name)
        return Endpoint(view, asker)
    found = find_run(asker, spec.ref)
    if found.state in ENDED:
        asker.say(f"Run {found.run_id} has ended already: {found.state}.")
        return Run(found, asker)
    asker.client.stop_run(found.run_id, "you asked for it")
    return Run(wait_for(asker, found.run_id), asker)
