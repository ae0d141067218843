"""``retrain``: everything is checked before anything is asked for; then once, now, or on a schedule."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.core.paths import new_run_id
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.ask import run_to_its_end
from lepton_jupyter.faces.flows.follow import follow
from lepton_jupyter.faces.flows.schedule import define, new_schedule
from lepton_jupyter.faces.objects.retraining import Retrained
from lepton_jupyter.faces.objects.shown import publish
from lepton_jupyter.formats.records import DatasetRecord, RunRecord
from lepton_jupyter.formats.schedule import ScheduleRecord
from lepton_jupyter.formats.views import EndpointView, VersionView
from lepton_jupyter.stages.evaluate.requirements import parse_requirement
from lepton_jupyter.stages.maintain.spec import Retrain

CHAMPION = "champion"
SCHEDULING = ("every", "tz", "catch_up", "overlap", "retries", "notify")  # flags that mean nothing once, now


@dataclass(frozen=True)
class Plan:
    """What a retrain is going to do.

    Attributes
    ----------
    base : VersionView
        Whose recipe is repeated: the champion, else the newest version.
    champion : VersionView or None
        Whom the new version must beat.
    recipe : RunRecord
        Of the training that made `base`.
    dataset : DatasetRecord
        The newest version of what it was trained on; its source is read again.
    source : str
        That source: an absolute path or glob.
    require : tuple of str
        What the new version must meet.
    """

    model: str
    base: VersionView
    champion: VersionView | None
    recipe: RunRecord
    dataset: DatasetRecord
    source: str
    require: tuple[str, ...]


def retrain(asker: Asker, spec: Retrain, objects: Mapping[str, Any]) -> Any:
    """Train a model again on its newest data, and promote what is better: once, now; with --every on a schedule."""
    plan = plan_of(asker, spec.model, spec.require)
    spec = msgspec.structs.replace(spec, model=plan.model)
    record = _schedule(asker, spec, plan)
    if spec.every is not None:
        return define(asker, record)
    _refuse_scheduling(asker, spec)
    return _once(asker, record, is_detached=spec.detach)


def _once(asker: Asker, schedule: ScheduleRecord, *, is_detached: bool) -> Any:
    from lepton_jupyter.runner.request import prepare_run
    from lepton_jupyter.runner.scheduled import run_of

    asked_by = "shell" if asker.face == "shell" else "kernel"
    record, notebook = run_of(
        asker.home, schedule, run_id=new_run_id(), now=time.time(), asked_by=asked_by, parent=asker.parent
    )
    prepare_run(asker.home, record, notebook=notebook, captured=None, environment=os.environ)
    view = asker.client.submit(record.run_id)
    if is_detached:
        return run_to_its_end(asker, view, is_detached=True)
    done = Retrained(follow(asker, view), asker)
    if asker.is_kernel:  # in the place of the live card
        publish(done._repr_mimebundle_(), display_id=f"lepton-run-{view.run_id}", is_update=True)
        done.mark_shown()
    return done


def define_on_alert(asker: Asker, endpoint: EndpointView, *, notify: tuple[str, ...] = ()) -> str:
    """Define the retrain that a firing alert starts, and return its schedule's name; one with a clock stays as it is.

    Parameters
    ----------
    asker : Asker
    endpoint : EndpointView
        Whose model is trained again.
    notify : tuple of str
        Channels that hear what came of it.

    Raises
    ------
    LeptonError
        If the endpoint's model could not be trained again: as `plan_of`.
    """
    plan = plan_of(asker, endpoint.model, ())
    name = schedule_name(plan.model)
    if endpoint.follows is None:
        asker.warn(
            f"Endpoint '{endpoint.name}' follows no alias: a better champion will not be served by it. To change that: "
            f"{asker.type_next(f'deploy {plan.model}@champion --as {endpoint.name}')}"
        )
    there = next((view for view in asker.client.schedules() if view.name == name), None)
    if there is None or not there.every:
        define(asker, _schedule(asker, Retrain(model=plan.model, notify=notify), plan))
    return name


def schedule_name(model: str) -> str:
    """Return the name of the schedule that trains a model again."""
    return f"retrain-{model}"


def _schedule(asker: Asker, spec: Retrain, plan: Plan) -> ScheduleRecord:
    """Return the definition; what must be met is pinned, so that a later evaluation does not change it."""
    return new_schedule(
        asker,
        spec,
        name=schedule_name(plan.model),
        kind="retrain",
        subject=plan.model,
        parameters={"require": list(plan.require)},
        notify_on="report",
    )


def _refuse_scheduling(asker: Asker, spec: Retrain) -> None:
    plain = Retrain(model=spec.model)
    given = [f"--{name.replace('_', '-')}" for name in SCHEDULING if getattr(spec, name) != getattr(plain, name)]
    if given:
        raise LeptonError(
            f"{', '.join(given)} belongs to a schedule, and this retrain is once, now.",
            f"Say how often: {asker.type_next(f'retrain {spec.model} --every 1d …')}",
        )


def plan_of(asker: Asker, model: str, require: Sequence[str]) -> Plan:
    """Return what a retrain of a model does.

    Raises
    ------
    LeptonError
        If there is no such model, its training cannot be repeated, its data cannot be read again, or nothing says what
        a new version must meet.
    """
    from lepton_jupyter.runner.recipe import recipe_of
    from lepton_jupyter.stages.data.refresh import source_of
    from lepton_jupyter.stages.data.store import Store

    for text in require:
        parse_requirement(text)
    name = _name(asker, model)
    asker.client.version(name)  # says what is known where there is no such model
    versions = [view for view in asker.client.models() if view.model == name]
    champion = next((view for view in versions if CHAMPION in view.aliases), None)
    base = champion or versions[0]
    recipe = recipe_of(asker.home, base)
    dataset = Store(asker.home).latest(parse(str(recipe.dataset), "dataset").name)
    source = source_of(dataset, folder=Path(recipe.cwd))
    return Plan(name, base, champion, recipe, dataset, source, _required(asker, base, require))


def _name(asker: Asker, text: str) -> str:
    ref = parse(text, "model")
    if not ref.is_latest or ref.split:
        raise LeptonError(
            f"'{text}' names a version; retrain takes the model and goes by its champion.",
            f"Write {asker.type_next(f'retrain {ref.name}')}; to go by another version, promote it first.",
        )
    return ref.name


def _required(asker: Asker, base: VersionView, said: Sequence[str]) -> tuple[str, ...]:
    recorded = tuple(str(one["text"]) for one in base.evaluation.get("requirements", ()))
    found = tuple(said) or recorded
    for text in found:
        parse_requirement(text, base.task)  # type: ignore[arg-type]  # the wire carries it as text
    if not found:
        judged = "evaluated without a requirement" if base.verdict else "never evaluated"
        raise LeptonError(
            f"Nothing says what a new {base.model} must meet: {base.ref} was {judged}.",
            f"Say it: {asker.type_next(f'retrain {base.model} --require')} {_example(base.task)}",
            code="refused",
        )
    return found


def _example(task: str | None) -> str:
    from lepton_jupyter.stages.evaluate.metrics import PRIMARY, metric_named

    if task not in PRIMARY:
        return '"METRIC >= NUMBER"'
    metric = metric_named(PRIMARY[task], task)
    return f'"{metric.name} >= 0.9"' if metric.greater_is_better else f'"{metric.name} <= NUMBER"'
