"""``schedule``, ``schedules``, ``tick``: notebooks with a clock; everything is checked before anything is defined."""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_jupyter.core.errors import LeptonError, did_you_mean, unknown
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.names import check_name, parse
from lepton_jupyter.core.paths import ScheduleFolder, new_run_id
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.ask import new_record
from lepton_jupyter.faces.flows.deploy import who
from lepton_jupyter.faces.flows.follow import wait_for
from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.run import Run
from lepton_jupyter.faces.objects.schedule import Schedule, outcome
from lepton_jupyter.faces.objects.table import Table
from lepton_jupyter.faces.objects.when import local, span
from lepton_jupyter.formats.schedule import ScheduleKind, ScheduleRecord, ScheduleView
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.stages.monitor import spec as specs
from lepton_jupyter.stages.monitor.rules import checks_of_notebook, parse_rule
from lepton_jupyter.stages.verbs import Verb

TOLD_S = 60.0  # a try to send takes as long at most
LOOK_S = 0.2


def schedule(asker: Asker, spec: specs.Schedule, objects: Mapping[str, Any]) -> Schedule:
    """Execute a notebook of the user whenever it is due."""
    from lepton_jupyter.runner.request import user_notebook
    from lepton_jupyter.runner.scheduled import source_hash

    path = Path(spec.notebook).expanduser().absolute()
    notebook = user_notebook(path)
    if spec.every is None:
        raise LeptonError(
            "schedule needs --every: how often, such as 30s, 5m, daily or a cron expression in quotes.",
            f"Once, now: {asker.type_next(f'run {spec.notebook}')}",
        )
    known = checks_of_notebook(notebook)
    for text in spec.alert:
        parse_rule(text, known=known)
    name = _name(asker, spec, path)
    _warn_of_parameters(asker, notebook, spec.params, path.name)
    record = new_schedule(
        asker,
        spec,
        name=name,
        kind="notebook",
        subject=path.name,
        cwd=str(path.parent),
        notebook=str(path),
        source_hash=source_hash(path),
        parameters=spec.params,
        **watched(spec),
    )
    return define(asker, record)


def _name(asker: Asker, spec: specs.Schedule, path: Path) -> str:
    """Return the schedule's name; without ``--name`` one that does not take another notebook's place."""
    if spec.name is not None:
        return check_name(spec.name, "schedule")
    try:
        name = check_name(name_from(path.stem) or path.stem, "schedule")
    except LeptonError as error:
        raise LeptonError(error.message, f"Give it one: {asker.type_next(_again(spec, 'weekly_report'))}") from error
    there = next((view for view in asker.client.schedules() if view.name == name), None)
    if there is not None and there.notebook and there.notebook != str(path) and Path(there.notebook).exists():
        raise LeptonError(
            f"Schedule '{name}' executes '{there.notebook}'; this is '{path}'.",
            f"To have both, name this one: {asker.type_next(_again(spec, name + '-2'))}",
            code="conflict",
        )
    return name


def name_from(stem: str) -> str:
    """Return what a name may keep of a file's: ``01 weekly report`` is ``weekly_report``.

    Examples
    --------
    >>> name_from("01_weekly report (north)")
    'weekly_report_north'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", re.sub(r"^[^A-Za-z]+", "", stem)).strip("_.-")[:64]


def _again(spec: specs.Schedule, name: str) -> str:
    return f'schedule {spec.notebook} --every "{spec.every}" --name {name}'


def _warn_of_parameters(asker: Asker, notebook: dict[str, Any], params: Mapping[str, Any], name: str) -> None:
    """Say where papermill would put parameters that nobody reads. A notebook may still take them so."""
    if not params:
        return
    tagged = [cell for cell in notebook.get("cells", []) if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if not tagged:
        asker.warn(f"{name} has no cell tagged 'parameters': they go to its top, where a later cell may undo them.")
        return
    known = _assigned("".join(tagged[0].get("source", "")))
    for key in params:
        if known and key not in known:
            asker.warn(f"{name} has no parameter '{key}'. Known: {', '.join(known)}.{did_you_mean(key, known)}")


def _assigned(source: str) -> list[str]:
    """Return the names that a cell of Python gives values; none where it is not Python."""
    try:
        lines = ast.parse(source).body
    except SyntaxError:
        return []
    targets = [target for line in lines if isinstance(line, ast.Assign) for target in line.targets]
    targets += [line.target for line in lines if isinstance(line, ast.AnnAssign)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def new_schedule(
    asker: Asker, spec: specs.Repeated, *, name: str, kind: ScheduleKind, subject: str, **more: Any
) -> ScheduleRecord:
    """Return the definition of a schedule that is asked for now, here, by this interpreter.

    Raises
    ------
    LeptonError
        If its clock or its time-out says nothing sensible.
    """
    from lepton_jupyter.runner.timing import check_zone, local_zone, parse_every, parse_span

    now = time.time()
    tz = check_zone(spec.tz) if spec.tz else local_zone()
    if spec.every is not None:
        parse_every(spec.every, tz, now)
    template = new_record(asker, kind, subject, spec)
    settings: dict[str, Any] = {
        "python": template.python,
        "cwd": template.cwd,
        "kernel": template.kernel,
        "created_at": now,
        "every": spec.every or "",
        "tz": tz,
        "catch_up": spec.catch_up,
        "overlap": spec.overlap,
        "timeout_s": parse_span(spec.timeout) if spec.timeout else None,
        "retries": spec.retries,
        "notify": spec.notify,
        "spec": template.spec,
        "command": template.command,
        "who": who(),
        "lepton_version": template.lepton_version,
    }
    return ScheduleRecord(name=name, kind=kind, subject=subject, **{**settings, **more})


def watched(spec: specs.Watched) -> dict[str, Any]:
    """Return what a definition takes from a verb with alerts."""
    return {"alerts": spec.alert, "for_reports": spec.for_reports, "notify_on": spec.notify_on}


def define(asker: Asker, record: ScheduleRecord) -> Schedule:
    """Hand a schedule to the backend and return it; one of that name is replaced.

    Raises
    ------
    LeptonError
        If a channel goes nowhere, the definition cannot be written, or the backend does not take it.
    """
    from lepton_jupyter.runner.channels import check_channel
    from lepton_jupyter.runner.request import scrubbed_environment

    environment = scrubbed_environment(os.environ)
    for text in record.notify:
        check_channel(text, environment)
    client = asker.client  # before anything is written: no backend, no schedule
    folder = asker.home.schedule(record.name, new_run_id())
    _write(folder, record, environment)
    try:
        view = client.define_schedule(record.name, folder.generation)
    except LeptonError as error:
        if error.code != "unavailable":  # else: it may have been taken, and is swept where it was not
            shutil.rmtree(folder.root, ignore_errors=True)
            _remove_empty(folder.root.parent)
        raise
    return Schedule(view, asker)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # another definition is in it


def _write(folder: ScheduleFolder, record: ScheduleRecord, environment: Mapping[str, str]) -> None:
    """Write the folder of a definition: whole, or not there."""
    import msgspec

    home = folder.root.parent
    temporary = ScheduleFolder(home / f".{folder.generation}.{secrets.token_hex(4)}.tmp")
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.root.mkdir(mode=0o700)
        write_atomic(temporary.environment, json.dumps(environment).encode())
        write_atomic(temporary.record, msgspec.json.format(msgspec.json.encode(record), indent=1))
        temporary.root.rename(folder.root)
    except OSError as error:
        shutil.rmtree(temporary.root, ignore_errors=True)
        raise LeptonError(
            f"The schedule cannot be written to '{home}': {error.strerror or error}.",
            "Make room, or set LEPTON_HOME to another disk.",
            code="failed",
        ) from error


def schedules(asker: Asker, spec: Verb, objects: Mapping[str, Any]) -> Table[Schedule]:
    """Return every schedule, newest first."""
    views = asker.client.schedules()
    return Table(
        "schedules",
        [Schedule(view, asker) for view in views],
        columns=("schedule", "state", "what", "every", "next", "last", "outcome", "alerts"),
        rows=[_row(view) for view in views],
        pills=("state",),
        empty=f"Make one: {asker.type_next('schedule NOTEBOOK.ipynb --every daily')}",
    )


def _row(view: ScheduleView) -> tuple[Any, ...]:
    what = view.subject if view.kind == "notebook" else f"{view.kind} {view.subject}"
    last = local(view.last.at, view.tz) if view.last else ""
    wrong = "its notebook is gone" if view.error else outcome(view.last)
    coming = local(view.next_due_at, view.tz) if view.state == "active" else ""
    return (
        view.name, view.state, what, view.every or "when asked", coming, last, wrong, view.n_alerts or "",
    )  # fmt: skip


def find_schedule(asker: Asker, text: str) -> Schedule:
    """Return the schedule that a reference means."""
    return Schedule(asker.client.schedule(parse(text, "schedule").name), asker)


def pause(asker: Asker, text: str) -> Schedule:
    """Pause a schedule; a run of it that is going goes on."""
    view = asker.client.pause_schedule(parse(text, "schedule").name)
    if view.last is not None and view.last.run_id and view.last.state == "fired" and not _has_ended(asker, view.last):
        going = asker.type_next(f"stop run/{view.last.run_id}")
        asker.say(f"Its run {view.last.run_id} goes on; to end that too: {going}")
    asker.say(f"Schedule '{view.name}' is paused. To have it go on, define it again: {view.command}")
    return Schedule(view, asker)


def _has_ended(asker: Asker, firing: Any) -> bool:
    return asker.client.run(firing.run_id).state in ENDED


class Fired(Table[Run]):
    """The runs that were fired; where there are none, a sentence that says what is next."""

    def _text(self) -> str:
        return super()._text() if len(self) else self._empty

    def _html(self) -> str:
        return super()._html() if len(self) else html.lines([self._empty])


def tick(asker: Asker, spec: specs.Tick, objects: Mapping[str, Any]) -> Fired:
    """Fire what is due, or the schedule that is named, and wait for what was fired."""
    if spec.schedule is not None:
        name = _known(asker, spec.schedule)
        run_ids: tuple[str, ...] = (asker.client.fire_schedule(name, f"{who() or 'somebody'} asked for it"),)
    else:
        run_ids = asker.client.tick().run_ids
    if spec.detach:
        views = [asker.client.run(run_id) for run_id in run_ids]
    else:
        views = [_seen_through(asker, run_id) for run_id in run_ids]
        _see_told(asker, {view.schedule for view in views if view.schedule})
    return Fired(
        "fired",
        [Run(view, asker) for view in views],
        columns=("schedule", "run", "state", "took", "outcome"),
        rows=[_run_row(view) for view in views],
        pills=("state",),
        empty=_nothing_due(asker),
    )


def _known(asker: Asker, text: str) -> str:
    name = parse(text, "schedule").name
    names = [view.name for view in asker.client.schedules()]
    if name not in names:
        raise unknown("schedule", name, names, f"List them: {asker.type_next('schedules')}")
    return name


def _seen_through(asker: Asker, run_id: str) -> RunView:
    view = asker.client.run(run_id)
    if view.state not in ENDED:
        asker.say(f"{view.schedule or view.title}: run {run_id} …")
        view = wait_for(asker, run_id)
    return view


def _see_told(asker: Asker, names: set[str]) -> None:
    """Wait until the firings are closed, their checks judged, and messages tried once: a job's machine may go then."""
    if not names:
        return
    asker.client.tick()
    deadline = time.monotonic() + TOLD_S
    while time.monotonic() < deadline:
        told = [delivery for alert in asker.client.alerts() if alert.schedule in names for delivery in alert.deliveries]
        if not any(delivery.state == "waiting" and delivery.attempts == 0 for delivery in told):
            return
        time.sleep(LOOK_S)


def _run_row(view: RunView) -> tuple[Any, ...]:
    took = span(view.ended_at - view.started_at) if view.started_at and view.ended_at else ""
    said = view.error.message if view.error else view.result.get("verdict") or view.result.get("decision") or ""
    return view.schedule or view.title, view.run_id, view.state, took, said


def _nothing_due(asker: Asker) -> str:
    coming = [view for view in asker.client.schedules() if view.next_due_at is not None and view.state == "active"]
    if not coming:
        return f"No schedule is active. {asker.type_next('schedules')} lists them."
    first = min(coming, key=lambda view: view.next_due_at or 0.0)
    return f"Nothing was due; '{first.name}' is next, {local(first.next_due_at, first.tz)}."
