"""What a word means here: a variable, a dataset, a version, a run, an endpoint. Nothing is guessed: we ask."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.names import Reference, parse
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.formats.views import RunView, VersionView

TABLE_LIBRARIES = frozenset({"pandas", "polars", "numpy", "torch", "pyarrow"})
TRAINING = ("train", "tune", "cell", "save")
FRAMEWORKS = frozenset({"sklearn", "torch", "keras", "xgboost", "lightgbm"})


def is_table(value: Any) -> bool:
    """Whether a value is data: a DataFrame, an array, a tensor, or a pair of such. Loads no library to find out."""
    if isinstance(value, tuple) and len(value) == 2:
        return all(is_table(part) for part in value)
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    return root in TABLE_LIBRARIES and (hasattr(value, "shape") or hasattr(value, "collect"))


def is_loader(value: Any) -> bool:
    """Whether a value is a Dataset or a DataLoader of torch, or two or three of them. Loads no library to find out."""
    if isinstance(value, tuple):
        return 2 <= len(value) <= 3 and all(is_loader(part) for part in value)
    if inspect.isclass(value):
        return False
    return any(base.__module__.startswith("torch.utils.data") for base in type(value).__mro__)


def is_model(value: Any) -> bool:
    """Whether a value could be trained: it has ``forward`` or ``fit``, or is a factory of the notebook."""
    if hasattr(value, "forward") or (hasattr(value, "fit") and hasattr(value, "get_params")):
        return True
    return inspect.isfunction(value) and getattr(value, "__module__", "") == "__main__"


def names_of(asker: Asker, wanted: Any) -> list[str]:
    """Return the notebook's own names whose values are wanted."""
    return sorted(
        name
        for name, value in asker.namespace.items()
        if not name.startswith("_") and wanted(value) and not _is_imported(value)
    )


def _is_imported(value: Any) -> bool:
    """Whether it is a library's class, such as ``nn.Module`` imported by name."""
    return inspect.isclass(value) and value.__module__.partition(".")[0] in FRAMEWORKS


def name_of(asker: Asker, value: Any) -> str | None:
    """Return the notebook's name for an object, or None."""
    for name, found in asker.namespace.items():
        if found is value and not name.startswith("_"):
            return name
    return None


def model_value(asker: Asker, text: str) -> Any:
    """Return what MODEL means: a name of the notebook (dotted too), or ``module:name``.

    Raises
    ------
    LeptonError
        If there is no such thing; it lists the models that the notebook knows.
    """
    if ":" in text:
        return _imported(text)
    if not asker.has_variables:
        raise LeptonError(
            f"'{text}' is a name in a notebook; a shell has none.",
            f"Write module:name, for instance: {asker.type_next(f'train mymodels:{text} --data …')}",
        )
    first, *rest = text.split(".")
    if first not in asker.namespace:
        raise unknown("model", text, names_of(asker, is_model), "Run the cell that defines it, or write module:name.")
    value = asker.namespace[first]
    for part in rest:
        if not hasattr(value, part):
            raise LeptonError(f"'{first}' has no '{part}' in '{text}'.", "Name what is to be trained.")
        value = getattr(value, part)
    return value


def _imported(text: str) -> Any:
    module_name, _, name = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise  # the module is there; what it imports is not: the user's own traceback says where
        raise LeptonError(
            f"No module '{module_name}' for '{text}'; looked in {here} and on sys.path.", "Write module:name.",
            code="not_found",
        ) from error  # fmt: skip
    if not hasattr(module, name):
        raise unknown(
            f"model in module '{module_name}'", name, [key for key in vars(module) if not key.startswith("_")]
        )
    return getattr(module, name)


def reference(value: Any) -> str:
    """Return the text of a reference: of one of our objects, or the text itself."""
    if isinstance(value, str):
        return value
    found = getattr(value, "ref", None)
    if isinstance(found, str):
        return found
    raise LeptonError(
        f"{type(value).__name__} is no reference.", "Give a name such as 'TumorNet@3', or a run, version or endpoint."
    )


def newest_run(asker: Asker, name: str) -> RunView | None:
    """Return the newest training run of a model, or None."""
    for view in asker.client.runs(limit=200):
        if view.model == name and view.kind in TRAINING:
            return view
    return None


def training_run(asker: Asker, ref: Reference) -> RunView | None:
    """Return the run that a reference means: one said by id, or the newest training of NAME that has not ended."""
    if ref.kind == "run" or (ref.may_be_run and not _has_model(asker, ref.name)):
        return asker.client.run(ref.name)
    if ref.is_latest:
        view = newest_run(asker, ref.name)
        return view if view is not None and view.state not in ENDED else None
    return None


def _has_model(asker: Asker, name: str) -> bool:
    return any(view.model == name for view in asker.client.models())


def find_version(asker: Asker, text: str) -> VersionView:
    """Return the version that MODEL means; a training that has not ended is waited for.

    Raises
    ------
    LeptonError
        If there is none, or the training made none.
    """
    from lepton_jupyter.faces.flows.follow import follow, raise_if_failed

    ref = parse(text)
    if ref.kind not in (None, "model", "run"):
        raise LeptonError(f"'{text}' is a {ref.kind}; a model or a training run is wanted here.")
    view = training_run(asker, ref)
    if view is None:
        return asker.client.version(str(Reference(ref.name, version=ref.version, alias=ref.alias)))
    if view.state not in ENDED:
        view = follow(asker, view)
    raise_if_failed(asker, view)
    if view.model is None:
        raise LeptonError(f"Run {view.run_id} ({view.kind} {view.title}) makes no version.", "Name a training run.")
    if view.kind == "cell" or view.version is None:
        return _version_of_run(asker, view)
    return asker.client.version(f"{view.model}@{view.version}")


def _version_of_run(asker: Asker, view: RunView) -> VersionView:
    for version in asker.client.models():
        if version.run_id == view.run_id:
            return version
    raise LeptonError(
        f"Run {view.run_id} of {view.title} made no version (it is {view.state}).",
        "A cell makes one by lepton.save(model, example=x).",
        code="not_found",
    )


def kinds_of(asker: Asker, text: str, kinds: tuple[str, ...]) -> tuple[str, Reference]:
    """Return which of some kinds a reference is.

    Raises
    ------
    LeptonError
        If it is none of them, or more than one and the text does not say which.
    """
    ref = parse(text)
    if ref.kind is not None:
        if ref.kind not in kinds:
            raise LeptonError(f"'{text}' is a {ref.kind}; wanted here: {', '.join(kinds)}.")
        return ref.kind, ref
    known = known_names(asker, kinds)
    found = [kind for kind in kinds if ref.name in known.get(kind, ())]
    if "model" in found and "run" in found:
        found.remove("run")  # a training run goes by its model's name: the same thing
    if "run" in kinds and not found and ref.may_be_run:
        return "run", ref
    if len(found) > 1:
        choices = " or ".join(f"{kind}/{ref}" for kind in found)
        raise LeptonError(f"'{text}' could be {' or '.join(f'a {kind}' for kind in found)}.", f"Write {choices}.")
    if not found:
        everything = sorted({name for names in known.values() for name in names})
        raise unknown(", ".join(kinds[:-1]) + f" or {kinds[-1]}", ref.name, everything)
    return found[0], ref


def known_names(asker: Asker, kinds: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Return the names that there are, by kind. Of runs those of the models that they train."""
    known: dict[str, list[str]] = {}
    if "dataset" in kinds:
        from lepton_jupyter.stages.data.store import Store

        known["dataset"] = list(Store(asker.home).names())
    if "model" in kinds:
        views = asker.client.models()
        known["model"] = list(dict.fromkeys(view.model for view in views))
    if "run" in kinds:
        known["run"] = list(dict.fromkeys(view.model for view in asker.client.runs(limit=200) if view.model))
    if "schedule" in kinds:
        known["schedule"] = [view.name for view in asker.client.schedules()]
    if "endpoint" in kinds:
        known["endpoint"] = [view.name for view in asker.client.endpoints()]
    return known
