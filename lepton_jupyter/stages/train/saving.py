"""Make a version of a model that was trained elsewhere: `lepton.save`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.session import Quiet, Session
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.formats.records import Card
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.bundling import bundle_of, now
from lepton_jupyter.stages.train.examples import read_example
from lepton_jupyter.stages.train.frameworks.registry import framework_of
from lepton_jupyter.stages.train.job import Fitted, Given, Job, settle_task
from lepton_jupyter.stages.train.spec import Train


def save(
    *,
    model: Any,
    name: str,
    run_id: str,
    folder: Path,
    dataset: Dataset | None,
    example: Any = None,
    session: Session | None = None,
) -> Bundle:
    """Write the bundle of a fitted model, without training it.

    Parameters
    ----------
    model : torch.nn.Module, estimator of scikit-learn, XGBoost or LightGBM, or a booster of theirs
        Trained. It is not changed.
    name : str
        Of the model, for the card.
    run_id : str
        Names the version.
    folder : Path
        Where the bundle goes; it must not exist.
    dataset : Dataset, optional
        Its schema becomes the model's. A module must take the raw numeric columns.
    example : array, tensor or DataFrame, optional
        Rows as the model takes them, where there is no dataset: [n, d] makes columns x0 …, a DataFrame its own columns.
    session : Session, optional
        Hears of the parity check.

    Returns
    -------
    Bundle
        Training rows are unknown in its card. Not deployable where the model cannot be exported or proved equal.

    Raises
    ------
    LeptonError
        If the model is of no framework known, is not fitted, or does not fit the data.
    """
    __tracebackhide__ = True
    framework = framework_of(model, name)
    quiet = Quiet(run_id, folder.parent) if session is None else session
    if dataset is not None:
        spec = Train(model=name, data=dataset.record.name, preprocess="none")
        dataset = settle_task(dataset, "auto")
        fitted: Fitted = framework.adopt(model, Job(quiet, spec, dataset, name))
        rows: Given | None = None
    elif example is not None:
        given = read_example(example)
        spec = Train(model=name, data="example", preprocess="none")
        given = given.with_schema(**framework.describe(model, Job(quiet, spec, given, name)))
        fitted = framework.adopt(model, Job(quiet, spec, given, name))
        rows = given.rows_of(fitted.schema)
    else:
        raise LeptonError(
            f"To save '{name}' its columns must be known.", f"Say data= or example=: lepton.save({name}, example=x)."
        )
    card = Card(
        model=name,
        run_id=run_id,
        framework=fitted.framework,
        is_deployable=False,  # settled by the parity check
        created_at=now(),
        notes={"remark": "training rows unknown"},
    )
    bundle, _ = bundle_of(fitted, card, folder=folder, dataset=dataset, example=rows, session=session)
    return bundle
