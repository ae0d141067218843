"""Judge a version on a split's rows, from its bundle alone."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.core.session import Session
from lepton_jupyter.formats.bundle import Bundle, encode
from lepton_jupyter.formats.evaluation import EvaluationRecord
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.evaluate.compare import Against, compare_versions
from lepton_jupyter.stages.evaluate.gate import judge
from lepton_jupyter.stages.evaluate.intervals import FEWEST_ROWS, intervals
from lepton_jupyter.stages.evaluate.metrics import PRIMARY, Metric, metric_named, metrics_of
from lepton_jupyter.stages.evaluate.requirements import parse_requirement
from lepton_jupyter.stages.evaluate.sample import Sample
from lepton_jupyter.stages.evaluate.scores import values, why_left_out
from lepton_jupyter.stages.evaluate.scoring import score_split
from lepton_jupyter.stages.evaluate.seen import remark_on, seen_rows
from lepton_jupyter.stages.evaluate.spec import Evaluate
from lepton_jupyter.stages.evaluate.tables import tables

N_STEPS = 3  # scored, measured, told


def evaluate(
    session: Session,
    bundle: Bundle,
    dataset: Dataset,
    split: str,
    *,
    spec: Evaluate,
    version: str,
    home: Home,
    against: Bundle | None = None,
    against_version: str = "",
) -> EvaluationRecord:
    """Measure a version on a split, judge it, and write ``result.json`` into the run's folder.

    Parameters
    ----------
    session : Session
    bundle : Bundle
        The version. Nothing but it is read: no torch, no code of the user's.
    dataset : Dataset
    split : str
        ``train``, ``validation`` or ``test``.
    spec : Evaluate
        `require` and `seed` are used.
    version : str
        ``NAME@3`` or a run's id.
    home : Home
        Where the datasets lie on which the versions were trained.
    against : Bundle, optional
        Another version to compare with, on rows that neither was trained on.
    against_version : str
        Its name.

    Returns
    -------
    EvaluationRecord

    Raises
    ------
    LeptonError
        If the data does not fit the version, or a requirement cannot be judged. Nothing is written then.
    """
    _check_asked(bundle, spec, version)
    session.progress(0, N_STEPS, "steps")
    sample = score_split(bundle, dataset, split, version=version)
    session.progress(1, N_STEPS, "steps")
    found = values(sample)
    spans = intervals(sample, found, seed=spec.seed)
    verdict, requirements = judge(spec.require, found, spans, n_rows=sample.n_rows)
    session.progress(2, N_STEPS, "steps")
    comparison = None
    if against is not None:
        asked = Against(against, against_version, _metric_to_compare(spec, sample, found), spec.seed)
        comparison = compare_versions(bundle, dataset, split, sample, asked=asked, home=home)
    record = EvaluationRecord(
        model=bundle.card.model,
        version=version,
        run_id=session.run_id,
        dataset=f"{dataset.ref}:{split}",
        task=sample.task,
        n_rows=sample.n_rows,
        verdict=verdict,
        metrics=found,
        intervals=spans,
        classes=sample.classes,
        positive=sample.classes[sample.positive] if sample.task == "binary" else None,
        requirements=requirements,
        comparison=comparison,
        remark=_remark(seen_rows(bundle, dataset, split, home=home), sample, found),
        tables=tables(sample, seed=spec.seed),
    )
    _tell(session, record)
    return record


def _check_asked(bundle: Bundle, spec: Evaluate, version: str) -> None:
    task = bundle.schema.task
    if task is None:
        raise LeptonError(
            f"{version} does not say what it predicts: it was saved without data.",
            "Save it again with data=NAME.",
            code="refused",
        )
    for text in spec.require:
        parse_requirement(text, task)


def _tell(session: Session, record: EvaluationRecord) -> None:
    """Write the result, then say it: whoever hears of it can read it."""
    write_atomic(RunFolder(session.folder).result, encode(record))
    session.log(step=None, **record.metrics)
    session.note("verdict", record.verdict)
    if record.remark:
        session.note("remark", record.remark)
    session.result(
        verdict=record.verdict,
        metrics=record.metrics,
        intervals={name: [span.low, span.high] for name, span in record.intervals.items()},
        dataset=record.dataset,
        n_rows=record.n_rows,
        remark=record.remark,
        comparison=msgspec.to_builtins(record.comparison),
    )
    session.progress(N_STEPS, N_STEPS, "steps")


def _remark(seen: NDArray[np.bool_] | None, sample: Sample, found: dict[str, float]) -> str:
    """Return what limits the answer, in one line; empty where nothing does."""
    remarks = [remark_on(seen)]
    if sample.n_rows < FEWEST_ROWS:
        remarks.append(f"no intervals under {FEWEST_ROWS} rows")
    reasons: dict[str, list[str]] = {}
    for metric in metrics_of(sample.task):
        if metric.name not in found:
            reasons.setdefault(why_left_out(metric, sample), []).append(metric.name)
    remarks += [f"{', '.join(names)} left out: {reason}" for reason, names in reasons.items()]
    return "; ".join(remark for remark in remarks if remark)


def _metric_to_compare(spec: Evaluate, sample: Sample, found: dict[str, float]) -> Metric:
    """Return the first required metric, else the task's first that is defined."""
    wanted = [parse_requirement(text).metric for text in spec.require] + [PRIMARY[sample.task]]
    return metric_named(next((name for name in wanted if name in found), next(iter(found))), sample.task)
