"""``tune``: the search is read first, then captured and asked for as a training is, then followed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows import train as training
from lepton_jupyter.faces.flows.ask import new_record, parameters_of, run_to_its_end, submit
from lepton_jupyter.faces.flows.data import dataset_for, loader_value, made
from lepton_jupyter.faces.flows.meaning import model_value
from lepton_jupyter.faces.objects.run import Run
from lepton_jupyter.faces.objects.tuning import Tuning
from lepton_jupyter.formats.tuning import TuningRecord
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.stages.tune.spec import Tune, training_of


def tune(asker: Asker, spec: Tune, objects: Mapping[str, Any]) -> Run:
    """Search in a kernel of its own, and return what was found (with --detach the run, at once)."""
    from lepton_jupyter.runner.capture import capture_names
    from lepton_jupyter.runner.request import stage_notebook

    name = training.model_name(spec.model, spec.name)
    value = objects["model"] if "model" in objects else model_value(asker, spec.model)
    training.check_model(spec.model, value)
    if loader_value(asker, spec.data, objects) is not None:
        raise LeptonError(
            f"'{spec.data}' is a torch Dataset or DataLoader; a search wants a dataset, which every trial reads anew.",
            "Add it: %lepton data NAME FILE, or give the tensors: a tuple (x, y) of the notebook.",
        )
    dataset, making, table = dataset_for(asker, spec, spec.data, objects, model_name=name)
    if spec.name is None:
        training.check_same_data(asker, name, dataset.partition("@")[0])
    names, namespace = training.names_of(asker, spec, objects, value)
    own = {key: namespace[word] for key, word in names.items() if key != "model" and word in namespace}
    check_search(value, spec, named=names, data=dataset.partition("@")[0], own=own)
    captured = capture_names(names, namespace, cwd=Path.cwd())
    pinned = made(asker, dataset, making, table)
    spec = msgspec.structs.replace(spec, data=pinned, name=name)
    record = new_record(
        asker,
        "tune",
        name,
        spec,
        model=name,
        dataset=pinned,
        needs_device=True,
        devices=spec.devices,
        priority=spec.priority,
        parameters=parameters_of(spec, ("model", "data", "name", "detach")),
    )
    notebook = stage_notebook("tune", title=name, source=captured.source)
    run = run_to_its_end(asker, submit(asker, record, notebook=notebook, captured=captured), is_detached=spec.detach)
    found = None if spec.detach else tuning_of(asker, asker.client.run(run.run_id))
    if found is None:
        return run
    if asker.is_kernel:
        found.show_in_place(record.run_id)
    return found


def check_search(model: Any, spec: Tune, *, named: Mapping[str, str], data: str, own: Mapping[str, Any]) -> None:
    """Refuse what the run would refuse after its start: of the search, and of every end of it.

    Raises
    ------
    LeptonError
        For a search that is empty or names nothing, and as `train` does for its own flags.
    """
    from lepton_jupyter.stages.train.preflight import is_estimator, preflight
    from lepton_jupyter.stages.tune.space import parse_space, settled

    if spec.resume is not None:
        raise LeptonError(
            "--resume means nothing for a search: one that was killed goes on by itself.",
            "Leave it out, and search on with more --trials in a new run.",
        )
    if spec.shard:
        raise LeptonError("--shard means nothing for a search: each trial has one device.", "Leave it out.")
    asked = training_of(spec)
    if is_estimator(model):
        asked = msgspec.structs.replace(asked, metric="val_loss")
    for one in parse_space(spec.search, model, asked):
        for value in one.ends():
            preflight(model, settled(asked, (one,), {one.name: value}), named=named, data=data, own=own)


def tuning_of(asker: Asker, view: RunView) -> Tuning | None:
    """Return what a search found, or None where it has left nothing."""
    folder = RunFolder(asker.home.run(view.run_id).root)
    if view.state not in ENDED or not folder.result.exists():
        return None
    try:
        record = msgspec.json.decode(folder.result.read_bytes(), type=TuningRecord)
    except (OSError, msgspec.DecodeError):
        return None
    return Tuning(view, asker, record)
