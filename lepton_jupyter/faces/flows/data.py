"""``data``: a file or a variable becomes a version of a dataset; and what DATA means in the other verbs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.names import parse
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.meaning import is_loader, is_table, name_of, names_of
from lepton_jupyter.faces.objects.dataset import DatasetCard
from lepton_jupyter.formats.records import DatasetRecord
from lepton_jupyter.stages.data.spec import Data, DataFlags

GLOB_LETTERS = "*?["
LOADER_FLAGS = ("seed", "split")  # a Dataset is split too


def data(asker: Asker, spec: Data, objects: Mapping[str, Any]) -> DatasetCard:
    """Make a version of a dataset, unless its latest one is the same."""
    value = objects["source"] if "source" in objects else _variable(asker, spec.source)
    return _added(asker, spec, value)


def _added(asker: Asker, spec: Data, value: Any) -> DatasetCard:
    from lepton_jupyter.stages.data.ingest import add  # polars is loaded when data is read
    from lepton_jupyter.stages.data.store import Store

    record, is_new = add(asker.home, spec, value)
    return _card(Store(asker.home), record, is_new=is_new)


def _card(store: Any, record: DatasetRecord, *, is_new: bool | None = None) -> DatasetCard:
    strips = None
    if record.schema.image is not None:
        from lepton_jupyter.stages.data.thumbnails import strips as strips_of

        strips = strips_of(store.open(f"{record.name}@{record.version}"))
    return DatasetCard(record, versions=_numbers(store, record.name), is_new=is_new, strips=strips)


def _numbers(store: Any, name: str) -> list[int]:
    return sorted(record.version for record in store.versions(name))


def card_of(asker: Asker, ref: str) -> DatasetCard:
    """Return the card of a dataset's version."""
    from lepton_jupyter.stages.data.store import Store

    store = Store(asker.home)
    return _card(store, store.record(ref))


def _variable(asker: Asker, source: str) -> Any:
    """Return the notebook's value where SOURCE is a variable, None where it is a path."""
    is_name = asker.has_variables and source.isidentifier() and source in asker.namespace
    is_path = any(letter in source for letter in GLOB_LETTERS) or Path(source).expanduser().exists()
    if is_name and is_path:
        raise LeptonError(
            f"'{source}' is a variable of this notebook and a path here.",
            f"Write ./{source} for the path, or rename one.",
        )
    if is_name:
        value = asker.namespace[source]
        return value.table() if isinstance(value, DatasetCard) else value
    if not is_path and asker.has_variables and source.isidentifier():
        known = names_of(asker, is_table)
        raise unknown("variable or file", source, known, "Give a path (CSV, Parquet, Arrow, JSONL) or a variable.")
    return None


def dataset_for(
    asker: Asker, spec: DataFlags, text: str, objects: Mapping[str, Any], *, model_name: str
) -> tuple[str, Data | None, Any]:
    """Return what DATA of a training means: the dataset's name or pinned reference; for a variable also how to make it.

    Nothing is made here: the model is captured first.

    Raises
    ------
    LeptonError
        If it is neither, or both; or flags that shape data are given for a dataset that is there.
    """
    from lepton_jupyter.stages.data.store import Store

    store = Store(asker.home)
    if "data" in objects:
        value = objects["data"]
        name = (None if isinstance(value, tuple) else name_of(asker, value)) or model_name
        return name, _making(spec, name), value
    names = store.names()
    is_name = asker.has_variables and text in asker.namespace and is_table(asker.namespace[text])
    if is_name and text in names:
        raise LeptonError(
            f"'{text}' is a dataset and a variable of this notebook.",
            f"Write --data dataset/{text}, or make a dataset of the variable under another name: "
            f"{asker.type_next(f'data {text}2 {text}')}",
        )
    if is_name:
        value = asker.namespace[text]
        name = model_name if isinstance(value, tuple) else text
        return name, _making(spec, name), value
    ref = parse(text, "dataset")
    if ref.name not in names:
        held = names_of(asker, is_table) if asker.has_variables else []
        raise unknown("dataset", ref.name, [*names, *held], f"Make one: {asker.type_next(f'data {ref.name} SOURCE')}")
    if ref.split is not None:
        raise LeptonError(f"'{text}' names a split; a training takes the whole dataset.", f"Write --data {ref.name}.")
    _refuse_shaping(spec, text)
    record: DatasetRecord = store.record(ref)
    return f"{record.name}@{record.version}", None, None


def loader_value(asker: Asker, text: str, objects: Mapping[str, Any]) -> Any:
    """Return what DATA means where it is a torch Dataset or DataLoader of the notebook; None where it is none."""
    from lepton_jupyter.stages.data.store import Store

    value = objects["data"] if "data" in objects else asker.namespace.get(text) if asker.has_variables else None
    if not is_loader(value):
        return None
    if "data" not in objects and text in Store(asker.home).names():
        raise LeptonError(
            f"'{text}' is a dataset and a loader of this notebook.",
            f"Write --data dataset/{text}, or rename the loader.",
        )
    return value


def check_loader_flags(spec: DataFlags) -> str:
    """Refuse flags that shape a table where DATA is a loader; return what messages call it."""
    plain = {info.name: info.default for info in msgspec.structs.fields(DataFlags)}
    given = [key for key, default in plain.items() if key not in LOADER_FLAGS and getattr(spec, key) != default]
    text = str(getattr(spec, "data", "loader"))
    if given:
        flags = ", ".join(f"--{key}" for key in given)
        raise LeptonError(f"{flags} shapes a table, and '{text}' is a loader.", "Leave it out.")
    return text


def _making(spec: DataFlags, name: str) -> Data:
    flags = {key: getattr(spec, key) for key in DataFlags.__struct_fields__}
    return Data(name=name, source=name, **flags)


def _refuse_shaping(spec: DataFlags, text: str) -> None:
    """Refuse flags that would mean nothing: the dataset has its target and splits. The seed is the training's too."""
    plain = {info.name: info.default for info in msgspec.structs.fields(DataFlags)}
    given = [key for key, default in plain.items() if key != "seed" and getattr(spec, key) != default]
    if given:
        flags = ", ".join(f"--{key}" for key in given)
        raise LeptonError(
            f"{flags} shapes a dataset, and '{text}' is one already.", "Give it to the verb 'data', or leave it out."
        )


def made(asker: Asker, name: str, making: Data | None, value: Any) -> str:
    """Return the pinned reference of a training's dataset; a variable becomes one now."""
    return _added(asker, making, value).ref if making is not None else name
