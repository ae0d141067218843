"""The tables: ``datasets``, ``models``, ``runs``, ``endpoints``, ``devices``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.deploy import endpoint_of
from lepton_jupyter.faces.objects.dataset import DatasetCard
from lepton_jupyter.faces.objects.run import Run
from lepton_jupyter.faces.objects.table import Table
from lepton_jupyter.faces.objects.version import Endpoint, Version, described
from lepton_jupyter.faces.objects.when import clock, span
from lepton_jupyter.formats.records import DatasetRecord
from lepton_jupyter.formats.views import DeviceView, RunView, VersionView
from lepton_jupyter.stages.verbs import Verb

HEADLINE = ("val_loss", "val_accuracy", "val_rmse", "loss")
JUDGED = ("roc_auc", "accuracy", "rmse")


def datasets(asker: Asker, spec: Verb, objects: Mapping[str, Any]) -> Table[DatasetCard]:
    """Return every dataset by its latest version, newest first."""
    from lepton_jupyter.stages.data.store import Store

    versions: dict[str, list[DatasetRecord]] = {}
    for record in Store(asker.home).all():
        versions.setdefault(record.name, []).append(record)
    cards = [
        DatasetCard(max(records, key=lambda r: r.version), versions=sorted(r.version for r in records))
        for records in versions.values()
    ]
    cards.sort(key=lambda card: card.record.created_at, reverse=True)
    return Table(
        "datasets",
        cards,
        columns=("dataset", "versions", "rows", "features", "target", "task", "findings", "made"),
        rows=[_dataset_row(card) for card in cards],
        empty=f"Make one: {asker.type_next('data NAME SOURCE --target COLUMN')}",
    )


def _dataset_row(card: DatasetCard) -> tuple[Any, ...]:
    record = card.record
    target = ", ".join(record.schema.targets)
    return (
        card.ref, len(card.versions), record.n_rows, len(record.schema.columns), target, record.schema.task,
        len(record.findings), clock(record.created_at),
    )  # fmt: skip


def models(asker: Asker, spec: Verb, objects: Mapping[str, Any]) -> Table[Version]:
    """Return every version of every model, newest first."""
    views = sorted(asker.client.models(), key=lambda view: view.created_at, reverse=True)
    return Table(
        "models",
        [Version(view, asker) for view in views],
        columns=("version", "alias", "verdict", "trained on", "task", "measured", "framework", "made", "remark"),
        rows=[_version_row(view) for view in views],
        pills=("verdict", "alias"),
        empty=f"Train one: {asker.type_next('train MODEL --data NAME')}",
    )


def _version_row(view: VersionView) -> tuple[Any, ...]:
    remark = view.remark or ("" if view.is_deployable else f"not deployable: {view.why_not}")
    return (
        view.ref, " ".join(view.aliases), view.verdict, view.dataset or "unknown", view.task, _measured(view),
        view.framework, clock(view.created_at), remark,
    )  # fmt: skip


def _measured(view: VersionView) -> str:
    judged = view.evaluation.get("metrics", {})
    for names, values in ((JUDGED, judged), (HEADLINE, view.metrics)):
        for name in names:
            if name in values:
                return f"{name} {values[name]:.4g}"
    return ""


def runs(asker: Asker, spec: Verb, objects: Mapping[str, Any]) -> Table[Run]:
    """Return the newest runs."""
    views = sorted(asker.client.runs(limit=50), key=lambda view: view.created_at, reverse=True)
    return Table(
        "runs",
        [Run(view, asker) for view in views],
        columns=("run", "kind", "title", "state", "version", "progress", "took", "asked"),
        rows=[_run_row(view) for view in views],
        pills=("state",),
        empty=f"Start one: {asker.type_next('train MODEL --data NAME')}",
    )


def _run_row(view: RunView) -> tuple[Any, ...]:
    progress = view.progress
    done = f"{progress.get('done', 0)}/{progress['total']} {progress.get('unit', '')}" if progress.get("total") else ""
    until = view.ended_at if view.state in ENDED else time.time()
    took = span(until - view.started_at) if view.started_at and until else ""
    version = f"{view.model}@{view.version}" if view.model and view.version is not None else ""
    waiting = view.needs if view.state == "queued" else done
    return view.run_id, view.kind, view.title, view.state, version, waiting, took, clock(view.created_at)


def endpoints(asker: Asker, spec: Verb, objects: Mapping[str, Any]) -> Table[Endpoint]:
    """Return every endpoint, newest first."""
    views = sorted(asker.client.endpoints(), key=lambda view: view.created_at, reverse=True)
    found = [endpoint_of(asker, view) for view in views]
    return Table(
        "endpoints",
        found,
        columns=("endpoint", "state", "replicas", "serves", "beside it", "follows", "address", "held"),
        rows=[
            (
                item.name,
                view.state,
                f"{view.n_ready} of {view.replicas}" if view.replicas > 1 else "",
                view.version,
                described(view.beside, is_short=True) if view.beside else "",
                item.follows,
                view.url,
                "rolled back" if view.is_held else "",
            )
            for item, view in zip(found, views, strict=True)
        ],
        pills=("state",),
        empty=f"Serve one: {asker.type_next('deploy MODEL --as NAME')}",
    )


def devices(asker: Asker, spec: Verb, objects: Mapping[str, Any]) -> Table[DeviceView]:
    """Return the devices and who holds them."""
    views = asker.client.devices()
    return Table(
        "devices",
        views,
        columns=("#", "device", "kind", "held by", "run"),
        rows=[
            (_number(views, view), view.name, view.label or view.kind, view.title or view.holder or "free", view.run_id)
            for view in views
        ],
    )


def _number(views: list[DeviceView], view: DeviceView) -> int | str:
    """Return the number by which ``--devices 0,1`` means a device."""
    pool = [other.name for other in views if other.kind == views[0].kind]
    return pool.index(view.name) if view.name in pool else ""
