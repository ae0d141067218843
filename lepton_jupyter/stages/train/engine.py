"""Train a model on a dataset and make a bundle of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.session import Session
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.formats.records import Card
from lepton_jupyter.stages.data.spec import DataFlags
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.construct import construct, is_free_factory
from lepton_jupyter.stages.train.examples import Example
from lepton_jupyter.stages.train.frameworks.registry import framework_of
from lepton_jupyter.stages.train.job import Fitted, History, InRanks, Job, settle_task
from lepton_jupyter.stages.train.spec import Train

NOT_PARAMS = (
    "model",
    "data",
    "name",
    "detach",
    "license",
)  # fields of the verb that say where from and where to, not how


@dataclass
class Trained:
    """What a training left.

    Attributes
    ----------
    history : dict of list
        ``epoch`` and each metric, one value an epoch; empty where there were no epochs.
    metrics : dict
        Those of the epoch that was kept.
    card : Card
    bundle : Bundle
    """

    history: History
    metrics: dict[str, float]
    card: Card
    bundle: Bundle
    notes: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> str:
        """Return what came out as lines of text, for the run's notebook."""
        card = self.card
        lines = [f"{name:>14}  {value:.6g}" for name, value in self.metrics.items()]
        if card.best_epoch is not None:
            lines.append(f"{'best epoch':>14}  {card.best_epoch} of {card.epochs}")
        if card.parity:
            lines.append(f"{'parity':>14}  {card.parity['worst']:.2g} at most over {card.parity['rows']} rows")
        if remark := card.notes.get("remark"):
            lines.append(f"{'remark':>14}  {remark}")
        if card.is_deployable:
            lines.append("The graph is proved equal to the model: this version can be deployed.")
        else:
            lines.append(f"This version cannot be deployed. {card.why_not}")
        return "\n".join(lines)


def train(
    session: Session,
    model: Any,
    dataset: Dataset | Example,
    spec: Train,
    *,
    names: Mapping[str, object] | None = None,
    ranks: InRanks | None = None,
) -> Trained:
    """Train a model, and write its checkpoints and bundle below the session's folder.

    Parameters
    ----------
    session : Session
    model : class, instance, factory or estimator
    dataset : Dataset, or the notebook's own loaders
    spec : Train
    names : Mapping, optional
        Objects of the notebook for ``optimizer``, ``loss``, ``lr_scheduler`` where the spec names one.
    ranks : callable, optional
        How to train in as many processes as the session has devices: see `Job`. None: in this one.

    Raises
    ------
    LeptonError
        If the data, the model or a flag does not fit (before the first step), or the loss became NaN. Errors of the
        user's own code pass as they are.
    """
    __tracebackhide__ = True
    is_several = ranks is not None and len(session.devices) > 1
    about = {"ranks": ranks} if is_several else {}
    return _train(session, model, dataset, spec, names=names or {}, **about)


def finish_stopped(
    session: Session,
    model: Any,
    dataset: Dataset | Example,
    spec: Train,
    *,
    names: Mapping[str, object] | None = None,
) -> Trained:
    """Bundle the best checkpoint of a run that was stopped and whose kernel was ended: called in a second kernel.

    Parameters are those of `train`, from the same payload and folder.

    Raises
    ------
    LeptonError
        With code ``stopped`` if no epoch had ended.
    """
    return _train(session, model, dataset, spec, names=names or {}, is_finishing=True)


def _train(
    session: Session, model: Any, dataset: Dataset | Example, spec: Train, *, names: Mapping[str, object], **about: Any
) -> Trained:
    __tracebackhide__ = True
    model, dataset, job = make_job(session, model, dataset, spec, names=names, **about)
    session.note("task", job.task)
    if job.schema.positive is not None:
        session.note("positive", job.schema.positive)
    framework = framework_of(model, spec.model)
    refuse_devices(job, framework.name)
    return _finished(framework.fit(model, job), job, name=spec.name or spec.model, dataset=dataset)


def make_job(
    session: Session, model: Any, dataset: Dataset | Example, spec: Train, *, names: Mapping[str, object], **about: Any
) -> tuple[Any, Dataset | Example, Job]:
    """Return a model, called where it is a factory of anything; a dataset as its task sees it; the job of training.

    Parameters are those of `train`; further ones are fields of `Job`.
    """
    __tracebackhide__ = True
    if isinstance(dataset, Example):
        spec = msgspec.structs.replace(spec, preprocess="none")  # a loader prepares its rows itself
    else:
        dataset = settle_task(dataset, spec.task, threshold=spec.threshold)
    if is_free_factory(model):  # it asks for nothing that the data knows: what it gives decides the framework
        from lepton_jupyter.stages.train.randomness import seed_everything

        seed_everything(spec.seed)
        model = construct(model, {}, spec.params, name=spec.model, data=dataset.ref.partition("@")[0])
        spec = msgspec.structs.replace(spec, params={})
    return model, dataset, Job(session, spec, dataset, spec.model, names, **about)


def refuse_devices(job: Job, framework: str) -> None:
    """Raise `LeptonError` for a model that cannot be trained on the devices of the run, or as ``--shard`` wants it."""
    n = len(job.session.devices)
    if job.ranks is not None and framework != "torch":
        raise LeptonError(
            f"'{job.name}' is a model of {framework}, which trains on one device; this run has {n}.",
            "Leave --devices out.",
        )
    if job.ranks is not None and isinstance(job.dataset, Example) and not job.dataset.is_exact:
        raise LeptonError(
            f"'{job.dataset.ref}' is a loader that draws its own order, which {n} processes could not share.",
            "Make a dataset of it (%lepton data), give a TensorDataset, or leave --devices out.",
        )
    if job.ranks is not None and job.spec.compile == "yes":
        raise LeptonError(f"--compile yes means nothing on several devices, and this run has {n}.", "Leave it at auto.")
    if job.spec.shard and n < 2:
        raise LeptonError(
            "--shard lays a model out over several devices; this run has one.",
            "Ask for more, such as --devices 2, or leave it out.",
        )
    if job.spec.shard and job.spec.optimizer.lower() == "muon":
        raise LeptonError("Muon steps whole matrices, and --shard lays them out in parts.", "Try --optimizer adamw.")


def _finished(fitted: Fitted, job: Job, *, name: str, dataset: Dataset | Example) -> Trained:
    """Bundle what was trained, and tell what came out."""
    from lepton_jupyter.stages.train.bundling import bundle_of

    session = job.session
    try:
        card = make_card(fitted, model=name, run_id=session.run_id, spec=job.spec, dataset=dataset)
        rows = {"example": dataset.rows} if isinstance(dataset, Example) else {"dataset": dataset}
        bundle, card = bundle_of(fitted, card, folder=session.folder / "bundle", session=session, **rows)
    finally:
        fitted.close()
    outcome = fitted.outcome
    session.result(
        metrics=card.metrics,
        best_epoch=outcome.best_epoch,
        epochs=outcome.epochs,
        stopped_at=outcome.stopped_at,
        is_deployable=card.is_deployable,
        why_not=card.why_not,
    )
    return Trained(outcome.history, card.metrics, card, bundle, outcome.notes)


def make_card(fitted: Fitted, *, model: str, run_id: str, spec: Train, dataset: Dataset | Example) -> Card:
    """Return the card of a version that was trained here."""
    outcome = fitted.outcome
    of_data = {one.name for one in msgspec.structs.fields(DataFlags)} - {"seed"}
    params = {
        name: value
        for name, value in msgspec.to_builtins(spec).items()
        if name not in of_data and name not in NOT_PARAMS and value not in (None, {}, ())
    }
    notes = dict(outcome.notes)
    has_validation = "validation" in dataset.splits() and outcome.epochs is not None
    if outcome.epochs is not None and not has_validation:
        notes["remark"] = "no validation split: the last epoch is the best"
    is_known = not isinstance(dataset, Example)
    if not is_known:
        notes["remark"] = "; ".join(filter(None, [notes.get("remark", ""), "trained by the notebook's own loader"]))
    if outcome.stopped_at is not None:
        notes["remark"] = f"stopped at epoch {outcome.stopped_at}"
    return Card(
        model=model,
        run_id=run_id,
        framework=fitted.framework,
        is_deployable=False,  # settled by the parity check
        created_at=time.time(),
        trained_on=dataset.ref if is_known else None,
        trained_splits=() if not is_known else ("train", "validation") if has_validation else ("train",),
        params=params,
        metrics={key: float(value) for key, value in outcome.metrics.items()},
        best_epoch=outcome.best_epoch,
        epochs=outcome.epochs,
        stopped_at=outcome.stopped_at,
        license=spec.license or "",
        notes=notes,
    )
