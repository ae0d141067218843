"""Search the settings of a training, and make a version of the best trial."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.session import Session
from lepton_jupyter.formats.bundle import Bundle, encode
from lepton_jupyter.formats.records import Card
from lepton_jupyter.formats.tuning import TuningRecord
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.engine import make_card
from lepton_jupyter.stages.train.job import settle_task
from lepton_jupyter.stages.train.judged import is_greater_better
from lepton_jupyter.stages.train.preflight import is_estimator
from lepton_jupyter.stages.tune.kept import Keeper
from lepton_jupyter.stages.tune.searching import Asked, Searching
from lepton_jupyter.stages.tune.single import find_unfinished, run_singly
from lepton_jupyter.stages.tune.space import Space, parse_space, settled
from lepton_jupyter.stages.tune.spec import Tune, training_of
from lepton_jupyter.stages.tune.study import Study, record_of
from lepton_jupyter.stages.tune.summary import as_text
from lepton_jupyter.stages.tune.trial import OnOneDevice, Question, metric_of

RESULT = "result.json"


@dataclass
class Tuned:
    """What a search left.

    Attributes
    ----------
    record : TuningRecord
    card : Card
        Of the best trial's version.
    bundle : Bundle
    """

    record: TuningRecord
    card: Card
    bundle: Bundle

    def summary(self) -> str:
        """Return what came out as lines of text, for the run's notebook."""
        if self.card.is_deployable:
            last = "The graph is proved equal to the model: this version can be deployed."
        else:
            last = f"This version cannot be deployed. {self.card.why_not}"
        return f"{as_text(self.record)}\n{last}"


def tune(
    session: Session, model: Any, dataset: Dataset, spec: Tune, *, names: Mapping[str, object] | None = None
) -> Tuned:
    """Search until ``--trials`` have ended, going on from what the run's folder holds of an earlier process.

    Parameters
    ----------
    session : Session
        Its folder gets ``study.db``, ``result.json``, ``checkpoints/`` (the best weights) and ``bundle/``.
    model : class, instance, factory or estimator
    dataset : Dataset
    spec : Tune
    names : Mapping, optional
        Objects of the notebook that the flags name.

    Raises
    ------
    LeptonError
        If the data, the model, a flag or the search does not fit, every trial fails, or it is stopped before one ended.
    """
    __tracebackhide__ = True
    started = time.time()
    search = open_search(session, model, dataset, spec, names or {})
    session.note("task", search.question.dataset.schema.task)
    session.note("metric", search.question.metric)
    if search.study.n_before:
        session.note("resumed", {"trials": search.study.n_before})
    how = run_search(search)
    return _finished(search, how=how, took_s=time.time() - started)


def run_search(search: Searching) -> str:
    """Train trials on all devices of the run until there are enough; return how."""
    __tracebackhide__ = True
    from lepton_jupyter.stages.tune.workers import Workers

    find_unfinished(search.session.folder, search.study, {one.name for one in search.space})
    devices = search.session.devices
    workers = Workers(search, devices[1 : search.study.n_left])
    try:
        how = train_trials(search)
        workers.wait()
    finally:
        workers.end()
    return f"on {len(devices)} devices, {how}" if len(devices) > 1 else how


def train_trials(asked: Asked, slot: str = "here") -> str:
    """Train trials in this process, many as one program where that is faster, until there are enough; return how.

    Parameters
    ----------
    slot : str
        Names this process among those of the search.
    """
    __tracebackhide__ = True
    batching: Any = "an estimator"
    if not is_estimator(asked.question.model):
        from lepton_jupyter.stages.tune import batched  # torch

        batching = batched.settle(asked)
    how = f"one after the other: {batching}" if isinstance(batching, str) else batching.how
    asked.session.note("how", how)
    if isinstance(batching, str):
        run_singly(asked, slot)
    else:
        batched.run_batched(asked, batching)
        how = batching.how
    return how


def finish_stopped(
    session: Session, model: Any, dataset: Dataset, spec: Tune, *, names: Mapping[str, object] | None = None
) -> Tuned:
    """Make a version of the best trial of a search that was stopped and whose kernel was ended: in a second kernel."""
    return _finished(open_search(session, model, dataset, spec, names or {}), how="", took_s=0.0)


def is_maximized(spec: Tune, metric: str, task: Any) -> bool:
    """Whether a greater value of the metric is better: as the metric has it, unless ``--direction`` says."""
    return is_greater_better(metric, task) if spec.direction == "auto" else spec.direction == "maximize"


def open_search(session: Session, model: Any, dataset: Dataset, spec: Tune, names: Mapping[str, object]) -> Searching:
    """Return a search that goes on from what the session's folder holds."""
    dataset = settle_task(dataset, spec.task, threshold=spec.threshold)
    training = training_of(spec)
    space = parse_space(spec.search, model, training)
    assert dataset.schema.task is not None  # `settle_task` saw to it
    metric = metric_of(model, training, dataset.schema.task)
    maximized = is_maximized(spec, metric, dataset.schema.task)
    study = Study(session.folder, spec, is_maximized=maximized, name=spec.name or spec.model)
    return Searching(
        session=session,
        question=Question(model, dataset, metric, names),
        training=training,
        space=space,
        study=study,
        keeper=Keeper(session.folder, maximized),
        on_end=lambda: _tell(session, study, metric),
    )


def _tell(session: Session, study: Study, metric: str) -> None:
    """Say how far it is, and what the last trial gave beside the best."""
    trials = study.trials()
    last, best = record_of(trials[-1]), study.best
    values = {metric: last.value} if last.value is not None and last.state == "complete" else {}
    if best is not None and best.value is not None:
        values[f"best_{metric}"] = best.value
    if values:
        session.log(step=len(trials), **values)
    session.progress(len(trials), study.spec.trials, "trials")


def _finished(search: Searching, *, how: str, took_s: float) -> Tuned:
    """Make a version of the best trial, and tell what came out."""
    from lepton_jupyter.stages.train.bundling import bundle_of

    session, study, best = search.session, search.study, search.study.best
    if best is None:
        raise _nothing(search)
    training = settled(search.training, search.space, best.params)
    fitted = _best_of(search, training, best.params)
    spec = study.spec
    try:
        card = make_card(
            fitted, model=spec.name or spec.model, run_id=session.run_id, spec=training, dataset=search.question.dataset
        )
        card = _with_notes(card, search, best.params)
        dataset = search.question.dataset
        shutil.rmtree(session.folder / "bundle", ignore_errors=True)  # of a process that died just behind it
        bundle, card = bundle_of(fitted, card, folder=session.folder / "bundle", dataset=dataset, session=session)
    finally:
        fitted.close()
    record = record_of_search(search, how=how, took_s=took_s)
    write_atomic(session.folder / RESULT, encode(record), is_durable=False)
    shutil.rmtree(session.folder / "trials", ignore_errors=True)
    session.result(
        metric=record.metric,
        value=best.value,
        best=best.number,
        params=best.params,
        trials=len(record.trials),
        is_deployable=card.is_deployable,
        why_not=card.why_not,
    )
    return Tuned(record, card, bundle)


def _best_of(search: Searching, training: Any, params: dict[str, Any]) -> Any:
    """Return the best trial's model: by its weights, which were kept, else trained once more."""
    kept = search.keeper.read()
    if kept is None or not search.keeper.has_weights(msgspec.to_builtins(params)):
        return search.question.fit(OnOneDevice(search.session), training)
    fitted = search.question.fit(OnOneDevice(search.session), training, is_finishing=True)
    outcome = fitted.outcome
    outcome.history, outcome.epochs, outcome.stopped_at = dict(kept.history), kept.epochs, None
    return fitted


def _with_notes(card: Card, search: Searching, params: dict[str, Any]) -> Card:
    remark = f"the best of {search.study.n_ended} trials"
    if search.study.n_left:
        remark = f"stopped: {remark} of {search.study.spec.trials}"
    said = card.notes.get("remark")
    notes = card.notes | {"tuned": params, "remark": f"{remark}; {said}" if said else remark}
    return msgspec.structs.replace(card, notes=notes)


def _nothing(search: Searching) -> LeptonError:
    study = search.study
    if not study.n_ended or search.session.should_stop():
        return LeptonError("The search was stopped before its first trial ended.", code="stopped")
    reasons = [record_of(trial).reason for trial in study.trials()]
    said = next((reason for reason in reversed(reasons) if reason), "every trial was pruned")
    return LeptonError(
        f"None of {study.n_ended} trials was completed. The last one: {said}",
        "Search smaller values, or say --pruner none.",
        code="failed",
    )


def record_of_search(search: Searching, *, how: str, took_s: float) -> TuningRecord:
    """Return all of a search as a record."""
    study, best = search.study, search.study.best
    return TuningRecord(
        run_id=search.session.run_id,
        model=study.spec.name or study.spec.model,
        dataset=search.question.dataset.ref,
        metric=search.question.metric,
        direction="maximize" if study.is_maximized else "minimize",
        space={one.name: one.text.partition("=")[2].strip() for one in search.space},
        log_names=_log_names(search.space),
        trials=tuple(record_of(trial) for trial in study.trials()),
        best=best.number if best is not None else None,
        importance=study.importance(),
        how=how,
        took_s=took_s,
    )


def _log_names(space: Space) -> tuple[str, ...]:
    return tuple(one.name for one in space if one.is_log)
