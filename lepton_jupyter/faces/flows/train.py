"""``train`` and ``%%lepton train``: capture what the cells define, ask for the run, follow it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import check_name
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.ask import check_devices, new_record, parameters_of, run_to_its_end, submit
from lepton_jupyter.faces.flows.data import check_loader_flags, dataset_for, loader_value, made
from lepton_jupyter.faces.flows.meaning import is_model, is_table, model_value
from lepton_jupyter.faces.flows.resume import check_rows, resumed_run
from lepton_jupyter.faces.objects.run import Run
from lepton_jupyter.stages.train.spec import Train, TrainCell

NAMEABLE = ("optimizer", "loss", "lr_scheduler")
TORCH_HOMES = {"optimizer": "torch.optim", "loss": "torch.nn", "lr_scheduler": "torch.optim.lr_scheduler"}
OURS = {
    "optimizer": (),
    "loss": ("auto",),
    "lr_scheduler": ("cosine", "constant", "one-cycle", "onecycle", "one_cycle", "step", "plateau"),
}


def train(asker: Asker, spec: Train, objects: Mapping[str, Any]) -> Run:
    """Train a model in a kernel of its own, and return its run when it has ended (at once with --detach)."""
    from lepton_jupyter.runner.capture import capture_names
    from lepton_jupyter.runner.request import stage_notebook
    from lepton_jupyter.stages.train.preflight import preflight

    name = model_name(spec.model, spec.name)
    check_devices(asker, spec.devices)
    value = objects["model"] if "model" in objects else model_value(asker, spec.model)
    check_model(spec.model, value)
    resumed = resumed_run(asker, spec, name) if spec.resume is not None else None
    loader = loader_value(asker, spec.data, objects)
    if loader is None:
        dataset, making, table = dataset_for(asker, spec, spec.data, objects, model_name=name)
        if spec.name is None:
            check_same_data(asker, name, dataset.partition("@")[0])
    else:
        dataset, making, table = check_loader_flags(spec), None, None
    names, namespace = names_of(asker, spec, objects, value)
    own = {key: namespace[word] for key, word in names.items() if key != "model" and word in namespace}
    preflight(value, spec, named=names, data=dataset.partition("@")[0], own=own)
    if loader is not None:
        names["data"] = spec.data
        namespace = namespace if namespace.get(spec.data) is loader else {**namespace, spec.data: loader}
    captured = capture_names(names, namespace, cwd=Path.cwd())
    pinned = made(asker, dataset, making, table) if loader is None else None
    if resumed is not None:
        check_rows(resumed, pinned)
    spec = msgspec.structs.replace(spec, data=pinned or spec.data, name=name)
    parameters = parameters_of(spec, ("model", "data", "name", "detach"))
    record = new_record(
        asker,
        "train",
        name,
        spec,
        model=name,
        dataset=pinned,
        needs_device=True,
        devices=spec.devices,
        priority=spec.priority,
        resumes=resumed.run_id if resumed is not None else None,
        parameters=parameters,
    )
    notebook = stage_notebook("train", title=name, source=captured.source)
    checkpoints = asker.home.run(resumed.run_id).checkpoints if resumed is not None else None
    view = submit(asker, record, notebook=notebook, captured=captured, checkpoints=checkpoints)
    return run_to_its_end(asker, view, is_detached=spec.detach)


def model_name(model: str, said: str | None) -> str:
    """Return the model's name: --name, else MODEL as typed; ``module:name`` gives ``name``."""
    return check_name(said or model.rpartition(":")[2], "model")


def check_model(text: str, value: Any) -> None:
    """Refuse what is no model."""
    if is_model(value) or (callable(value) and not isinstance(value, str)):
        return
    kind = "table" if is_table(value) else type(value).__name__
    raise LeptonError(
        f"'{text}' is a {kind}, not a model.", "Name a class, an instance, a factory or an estimator of the notebook."
    )


def check_same_data(asker: Asker, name: str, dataset: str) -> None:
    """Refuse to mix two datasets' versions under one model's name unless the name was said."""
    for version in asker.client.models():
        other = (version.dataset or "").partition("@")[0]
        if version.model == name and other and other != dataset:
            raise LeptonError(
                f"Model '{name}' has versions trained on '{other}'; this would add one trained on '{dataset}'.",
                f"Say which: --name {name} for the same model, or --name {name}-{dataset} for another.",
                code="conflict",
            )


def names_of(
    asker: Asker, spec: Train, objects: Mapping[str, Any], model: Any
) -> tuple[dict[str, str], Mapping[str, Any]]:
    """Return what is captured, by the key under which the run asks for it, and the namespace to find it in."""
    names = {"model": spec.model}
    extra: dict[str, Any] = {}
    if ":" not in spec.model and asker.namespace.get(spec.model) is not model:
        extra[spec.model] = model
    for key in NAMEABLE:
        word = str(getattr(spec, key))
        if key in objects:
            names[key] = word
            if asker.namespace.get(word) is not objects[key]:
                extra[word] = objects[key]
        elif word in asker.namespace and asker.has_variables and not _is_torchs(key, word):
            names[key] = word
    for word in spec.augment:
        found = objects.get(f"augment:{word}")
        if found is not None or _is_own_augment(asker, word):
            names[f"augment:{word}"] = word
        if found is not None and asker.namespace.get(word) is not found:
            extra[word] = found
    return names, ({**asker.namespace, **extra} if extra else asker.namespace)


def _is_own_augment(asker: Asker, word: str) -> bool:
    """Whether an augmentation is a function of the notebook."""
    from lepton_jupyter.stages.train.preflight import AUGMENTS

    if not asker.has_variables or not callable(asker.namespace.get(word)):
        return False
    if word in AUGMENTS:
        raise LeptonError(
            f"'{word}' is a function of this notebook, and an augmentation that is built in.",
            f"Say --augment {word}={AUGMENTS[word]:g} for the latter, or give yours another name.",
            code="conflict",
        )
    return True


def _is_torchs(key: str, word: str) -> bool:
    """Whether torch (where it is loaded) has something of this name, in any case: then torch's is meant."""
    import sys

    if word.lower() in OURS[key]:
        return True
    module = sys.modules.get(TORCH_HOMES[key])
    return module is not None and word.lower() in {name.lower() for name in vars(module)}


def train_cell(asker: Asker, spec: TrainCell, body: str) -> Run:
    """Run a cell as a program in a kernel of its own."""
    from lepton_jupyter.runner.capture import capture_cell
    from lepton_jupyter.runner.request import cell_notebook

    name = check_name(spec.name, "model")
    check_devices(asker, spec.devices)
    if not body.strip():
        raise LeptonError("The cell below '%%lepton train' is empty.", "Write the program there, with lepton.log(…).")
    pinned: str | None = None
    dataset, making, table = None, None, None
    if spec.data is not None:
        dataset, making, table = dataset_for(asker, spec, spec.data, {}, model_name=name)
    captured = capture_cell(body, asker.namespace, cwd=Path.cwd())
    if dataset is not None:
        pinned = made(asker, dataset, making, table)
    spec = msgspec.structs.replace(spec, data=pinned)
    record = new_record(
        asker,
        "cell",
        name,
        spec,
        model=name,
        dataset=pinned,
        kernel=spec.env,
        needs_device=True,
        devices=spec.devices,
        priority=spec.priority,
    )
    notebook = cell_notebook(body, name)
    return run_to_its_end(asker, submit(asker, record, notebook=notebook, captured=captured), is_detached=spec.detach)
