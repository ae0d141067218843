"""``monitor``: a report on an endpoint, once or on a schedule; everything is checked before anything is asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.core.paths import RunFolder, new_run_id
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.follow import follow
from lepton_jupyter.faces.flows.schedule import define, new_schedule, watched
from lepton_jupyter.faces.objects.report import Report
from lepton_jupyter.faces.objects.run import Run
from lepton_jupyter.faces.objects.schedule import Schedule
from lepton_jupyter.faces.objects.text import Text
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.formats.monitor import MonitorRecord
from lepton_jupyter.formats.schedule import ScheduleRecord
from lepton_jupyter.formats.views import EndpointView
from lepton_jupyter.stages.monitor.rules import CHECK_NAMES, checks_of_notebook, parse_rule
from lepton_jupyter.stages.monitor.spec import Monitor

SCHEDULING = (  # flags that mean nothing once, now
    "tz", "catch_up", "overlap", "retries", "notify", "alert", "for_reports", "notify_on", "on_alert",
)  # fmt: skip


def monitor(asker: Asker, spec: Monitor, objects: Mapping[str, Any]) -> Report | Run | Schedule | Text:
    """Report on an endpoint: once, now; with --every on a schedule; with --eject only write our notebook."""
    name = parse(spec.endpoint, "endpoint").name
    if spec.eject is not None:
        return _eject(asker, spec, name)
    if spec.every is None:
        _refuse_scheduling(asker, spec, name)
    path = Path(spec.notebook).expanduser().absolute() if spec.notebook else None
    known = _checks_of(path)
    endpoint = asker.client.endpoint(name)
    _check_rules(asker, spec, endpoint, known)
    record = _schedule(asker, msgspec.structs.replace(spec, endpoint=name), path)
    if spec.every is None:
        return _once(asker, record)
    if spec.on_alert == "retrain":
        from lepton_jupyter.faces.flows.retrain import define_on_alert

        define_on_alert(asker, endpoint, notify=spec.notify)
    if endpoint.state not in ("ready", "starting", "updating"):
        asker.warn(f"Endpoint '{name}' is {endpoint.state}: reports will find no traffic until it is deployed again.")
    return define(asker, record)


def _eject(asker: Asker, spec: Monitor, name: str) -> Text:
    from lepton_jupyter.runner.report import eject

    path = Path(str(spec.eject)).expanduser().absolute()
    if path.suffix != ".ipynb":
        raise LeptonError(f"'{spec.eject}' is no notebook's name.", f"Write --eject {path.with_suffix('.ipynb').name}")
    if path.exists():
        raise LeptonError(f"'{path}' is there already, and perhaps edited.", "Give it another name, or remove it.")
    eject(path)
    line = asker.type_next(f"monitor {name} --notebook {spec.eject}")
    return Text(f"Our report was written to {path}. Edit it, then: {line}")


def _checks_of(path: Path | None) -> Any:
    """Return the checks that the report makes: ours, those of the user's notebook, or None where nobody can tell."""
    if path is None:
        return CHECK_NAMES
    from lepton_jupyter.runner.request import user_notebook

    return checks_of_notebook(user_notebook(path))


def _check_rules(asker: Asker, spec: Monitor, endpoint: EndpointView, known: Collection[str] | None) -> None:
    """Read the rules against the endpoint's columns; where its bundle cannot be read, without them."""
    try:
        columns = open_bundle(asker.home.bundles / endpoint.run_id).schema.columns
    except LeptonError:
        columns = None
    words = {f"unseen({column.name})" for column in columns or () if column.kind == "string"}
    for text in spec.alert:
        rule = parse_rule(text, known=known, columns=None if columns is None else [column.name for column in columns])
        if columns is not None and rule.check.startswith("unseen(") and rule.check not in words:
            raise LeptonError(
                f"'{text}' would never be met: that column is of numbers, and has no categories.",
                'Of numbers, rows outside the range of training are counted: --alert "outside > 10".',
            )


def _refuse_scheduling(asker: Asker, spec: Monitor, name: str) -> None:
    plain = Monitor(endpoint=spec.endpoint)
    given = [f"--{field.replace('_', '-')}" for field in SCHEDULING if getattr(spec, field) != getattr(plain, field)]
    if given:
        belong = "belong" if len(given) > 1 else "belongs"
        raise LeptonError(
            f"{', '.join(given)} {belong} to a schedule, and this report is once, now.",
            f"Say how often: {asker.type_next(f'monitor {name} --every 1h …')}",
        )


def _schedule(asker: Asker, spec: Monitor, path: Path | None) -> ScheduleRecord:
    from lepton_jupyter.runner.scheduled import source_hash
    from lepton_jupyter.runner.timing import parse_span

    return new_schedule(
        asker,
        spec,
        name=f"monitor-{spec.endpoint}",
        kind="monitor",
        subject=spec.endpoint,
        notebook=str(path) if path else None,
        source_hash=source_hash(path) if path else "",
        window_s=parse_span(spec.window) if spec.window else None,
        on_alert=spec.on_alert,
        **watched(spec),
    )


def _once(asker: Asker, schedule: ScheduleRecord) -> Report | Run:
    from lepton_jupyter.runner.request import prepare_run
    from lepton_jupyter.runner.scheduled import run_of

    record, notebook = run_of(
        asker.home,
        schedule,
        run_id=new_run_id(),
        now=time.time(),
        window_start=asker.client.window_start(schedule.subject),
        asked_by="shell" if asker.face == "shell" else "kernel",
        parent=asker.parent,
    )
    prepare_run(asker.home, record, notebook=notebook, captured=None, environment=os.environ)
    view = follow(asker, asker.client.submit(record.run_id))
    found = read_report(RunFolder(asker.home.run(view.run_id).root))
    if found is None:  # the user's own report leaves its checks, and its notebook
        run = Run(view, asker)
        if asker.is_kernel:
            run.mark_shown()
        return run
    if asker.is_kernel:
        found.show_in_place(view.run_id)
    return found


def read_report(folder: RunFolder) -> Report | None:
    """Return what a report of ours found; None where the run left none."""
    try:
        return Report(msgspec.json.decode(folder.result.read_bytes(), type=MonitorRecord), folder)
    except (OSError, msgspec.DecodeError):
        return None
