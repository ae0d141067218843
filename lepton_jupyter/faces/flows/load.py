"""``lepton.load``, ``lepton.save``, ``lepton.log`` and friends: take along, bring, and say from inside a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.names import check_name, parse
from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.meaning import find_version, known_names, name_of, reference
from lepton_jupyter.faces.objects.version import Version
from lepton_jupyter.formats.bundle import Bundle, open_bundle
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.stages.train.spec import TrainCell

if TYPE_CHECKING:
    from lepton_jupyter.runner.session import RunSession


def load(asker: Asker, ref: Any) -> Any:
    """Return a dataset's rows as a DataFrame, or a model with ``.predict`` and ``.weights``.

    Where a model and a dataset share the name, the model is meant: say dataset/NAME (or a split) for the rows.
    """
    text = reference(ref)
    parsed = parse(text)
    if parsed.kind == "dataset" or (parsed.kind is None and parsed.split):
        return dataset_table(text)
    if parsed.kind in ("model", "run"):
        return open_version(find_version(asker, text))
    if parsed.kind is None:
        known = known_names(asker, ("model", "dataset"))
        if parsed.name in known["dataset"] and parsed.name not in known["model"]:
            return dataset_table(text)
        if parsed.name in known["model"] or parsed.may_be_run:
            return open_version(find_version(asker, text))
        raise unknown("model or dataset", parsed.name, [*known["model"], *known["dataset"]])
    raise LeptonError(f"'{text}' is a {parsed.kind}; load takes a dataset or a model.")


def dataset_table(ref: str) -> Any:
    """Return the rows of a dataset or of one split as a polars DataFrame."""
    from lepton_jupyter.stages.data.store import Store

    parsed = parse(ref, "dataset")
    return Store(Home.current()).open(parsed).table(parsed.split)


def version_bundle(version: VersionView) -> Bundle:
    """Return the bundle of a version, compared with the hash that was registered."""
    from pathlib import Path

    return open_bundle(Path(version.bundle), version.manifest_hash or None)


def open_version(version: VersionView) -> Any:
    """Return a version ready to predict."""
    from lepton_jupyter.stages.deploy.scoring import LoadedModel

    return LoadedModel(version_bundle(version))


def in_run() -> bool:
    """Whether this process is the kernel of a run."""
    return bool(os.environ.get("LEPTON_RUN"))


def _is_program() -> bool:
    """Whether a version saved here is that of the run itself; a notebook of the user makes runs of its own."""
    if not in_run():
        return False
    from lepton_jupyter.runner import session

    return session.current().record.kind in ("cell", "train")


def log(values: Mapping[str, float], *, step: int | None = None) -> None:
    """Record metrics of the run whose kernel this is.

    Raises
    ------
    LeptonError
        Outside of a run.
    """
    _session("log").log(step=step, **values)


def checkpoint(state: Mapping[str, Any]) -> None:
    """Keep what the run whose kernel this is goes on from.

    Raises
    ------
    LeptonError
        Outside of a run, or for what a checkpoint cannot hold.
    """
    from lepton_jupyter.runner import going_on

    going_on.checkpoint(_session("checkpoint"), state)


def restore() -> dict[str, Any] | None:
    """Return what the run whose kernel this is goes on from; None where it has just begun.

    Raises
    ------
    LeptonError
        Outside of a run.
    """
    from lepton_jupyter.runner import going_on

    return going_on.restore(_session("restore"))


def _session(word: str) -> RunSession:
    if not in_run():
        raise LeptonError(
            f"lepton.{word} works inside a run; this notebook is none.",
            "Put '%%lepton train --name NAME' on top of the cell, or run the notebook: %lepton run NOTEBOOK",
        )
    from lepton_jupyter.runner import session

    return session.current()


def save(asker: Asker, model: Any, *, name: str | None, data: Any, example: Any) -> Any:
    """Make a version of a model that is trained already: in a run its own, in a notebook one of kind ``save``."""
    if _is_program():
        from lepton_jupyter.runner import session

        return session.save(model, name=name, data=reference(data) if data is not None else None, example=example)
    return _registered(asker, model, name=name or name_of(asker, model), data=data, example=example)


def _registered(asker: Asker, model: Any, *, name: str | None, data: Any, example: Any) -> Version:
    from lepton_jupyter.faces.flows.ask import new_record
    from lepton_jupyter.faces.flows.follow import raise_if_failed, wait_for
    from lepton_jupyter.runner.request import cell_notebook, prepare_run
    from lepton_jupyter.stages.data.store import Store
    from lepton_jupyter.stages.train.saving import save as write_bundle_of

    if name is None:
        raise LeptonError("A model that is saved needs a name.", "lepton.save(model, name='NAME', data='DATASET')")
    check_name(name, "model")
    dataset = Store(asker.home).open(parse(reference(data), "dataset")) if data is not None else None
    client = asker.client
    spec = TrainCell(name=name, data=dataset.ref if dataset else None)
    asker.command = f"lepton.save({name_of(asker, model) or type(model).__name__}, name='{name}')"
    record = new_record(asker, "save", name, spec, model=name, dataset=dataset.ref if dataset else None)
    folder = prepare_run(
        asker.home, record, notebook=cell_notebook(asker.command, name), captured=None, environment=os.environ
    )
    try:
        write_bundle_of(
            model=model, name=name, run_id=record.run_id, folder=folder.bundle, dataset=dataset, example=example
        )
    except BaseException:
        _forget(folder.root)
        raise
    client.submit(record.run_id)
    view = wait_for(asker, record.run_id)
    raise_if_failed(asker, view)
    return Version(find_version(asker, f"run/{record.run_id}"), asker)


def _forget(folder: Any) -> None:
    """Remove the folder of a run that the backend never heard of."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
