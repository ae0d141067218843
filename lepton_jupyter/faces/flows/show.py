"""``show`` and ``compare``: the card of anything, live while it moves; things side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.ask import run_to_its_end
from lepton_jupyter.faces.flows.data import card_of
from lepton_jupyter.faces.flows.deploy import endpoint_of
from lepton_jupyter.faces.flows.evaluate import read_evaluation
from lepton_jupyter.faces.flows.meaning import find_version, kinds_of, newest_run
from lepton_jupyter.faces.flows.monitor import read_report
from lepton_jupyter.faces.flows.runs import find_run
from lepton_jupyter.faces.flows.schedule import find_schedule
from lepton_jupyter.faces.flows.tune import tuning_of
from lepton_jupyter.faces.objects.comparison import Comparison, Side
from lepton_jupyter.faces.objects.history import History, read_events
from lepton_jupyter.faces.objects.journal import Journal
from lepton_jupyter.faces.objects.retraining import Retrained
from lepton_jupyter.faces.objects.run import NOTES_SHOWN, ORIGIN_SHOWN, Run
from lepton_jupyter.faces.objects.version import Version
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.runner.provenance import git_line
from lepton_jupyter.runner.spec import Compare, Show

KINDS = ("run", "model", "endpoint", "dataset", "schedule")


def show(asker: Asker, spec: Show, objects: Mapping[str, Any]) -> Any:
    """Return the object that a reference means; a run that moves is followed first."""
    ref = parse(spec.ref)
    if ref.kind is None and ref.is_latest and ref.split is None:
        moving = newest_run(asker, ref.name)
        if moving is not None and moving.state not in ENDED:
            return run_to_its_end(asker, moving)
    kind = "dataset" if ref.split else kinds_of(asker, spec.ref, KINDS)[0]
    if kind == "dataset":
        return card_of(asker, str(parse(spec.ref, "dataset")))
    if kind == "endpoint":
        return endpoint_of(asker, asker.client.endpoint(ref.name))
    if kind == "schedule":
        return find_schedule(asker, spec.ref)
    if kind == "model":
        version = asker.client.version(spec.ref.removeprefix("model/"))
        return Version(version, asker, journal=Journal(version.model, asker.client.journal(version.model)))
    view = find_run(asker, spec.ref)
    if view.state not in ENDED:
        return run_to_its_end(asker, view)
    folder = RunFolder(asker.home.run(view.run_id).root)
    if view.kind == "monitor":
        return read_report(folder) or Run(view, asker)
    if view.kind == "tune":
        return tuning_of(asker, view) or Run(view, asker)
    if view.kind == "retrain" and view.result.get("decision"):
        return Retrained(view, asker)
    return read_evaluation(folder) if view.kind == "evaluate" and folder.result.exists() else Run(view, asker)


def compare(asker: Asker, spec: Compare, objects: Mapping[str, Any]) -> Comparison:
    """Return runs or versions side by side: the settings that differ, the metrics, the curves over each other."""
    if len(spec.refs) < 2:
        raise LeptonError(
            f"compare takes two or more; '{' '.join(spec.refs)}' is one.",
            f"For instance: {asker.type_next('compare TumorNet@1 TumorNet@2')}",
        )
    return Comparison([_side(asker, text) for text in spec.refs])


def _side(asker: Asker, text: str) -> Side:
    ref = parse(text)
    if ref.kind == "model" or (ref.kind is None and any(view.model == ref.name for view in asker.client.models())):
        version = find_version(asker, text)
        settings = {**_settings(asker, version.run_id), "data": version.dataset, "framework": version.framework}
        judged = {f"{name} (evaluated)": value for name, value in version.evaluation.get("metrics", {}).items()}
        metrics = {**version.metrics, **judged, "verdict": version.verdict}
        return Side(version.ref, Version(version, asker), settings, metrics, _curves(asker, version.run_id))
    view: RunView = find_run(asker, text)
    settings = {**_settings(asker, view.run_id), "kind": view.kind, "data": view.dataset, "state": view.state}
    metrics = dict(view.metrics)
    if view.started_at and view.ended_at:
        metrics["seconds"] = view.ended_at - view.started_at
    return Side(f"run {view.run_id}", Run(view, asker), settings, metrics, _curves(asker, view.run_id))


def _curves(asker: Asker, run_id: str) -> dict[str, Any]:
    return History(read_events(RunFolder(asker.home.run(run_id).root))).series


def _settings(asker: Asker, run_id: str) -> dict[str, Any]:
    """Return what was asked for a run and what it told of itself: flags, parameters, notes, packages."""
    import msgspec

    folder = asker.home.run(run_id)
    try:
        record = msgspec.json.decode(folder.record.read_bytes(), type=RunRecord)
    except (OSError, msgspec.DecodeError):
        return {}
    spec = dict(record.spec)
    params = spec.pop("params", None) or {}
    asked = {key: value for key, value in spec.items() if key not in ("detach", "name")}
    notes = History(read_events(folder)).notes
    told = {key: value for key, value in notes.items() if key in (*NOTES_SHOWN, *ORIGIN_SHOWN) and key not in asked}
    told |= {"git": git_line(record.git), "packages": record.packages}
    for key in ("packages", "hardware"):
        told |= told.pop(key, None) or {}
    return {**asked, **params, **told}
