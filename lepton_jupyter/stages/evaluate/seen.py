"""Which rows a version has seen in its training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.stages.data.keys import content_keys
from lepton_jupyter.stages.data.store import Dataset, Store


def seen_rows(bundle: Bundle, dataset: Dataset, split: str, *, home: Home) -> NDArray[np.bool_] | None:
    """Return whether each row of a split was in a version's training, bool [N]; None where that is not known.

    Within one dataset's versions rows are known by the store's keys. Across datasets, or where a version has other
    columns, by the content of the model's own columns and target: the same file under another name is found out.
    """
    card = bundle.card
    if card.trained_on is None or not card.trained_splits:
        return None
    keys = dataset.row_keys(split)
    if card.trained_on == dataset.ref:
        return np.full(len(keys), split in card.trained_splits)
    try:
        trained = Store(home).open(card.trained_on)
    except LeptonError:  # deleted since
        return None
    splits = [name for name in card.trained_splits if name in trained.splits()]
    if bundle.schema.tensor_shape is not None or _have_same_keys(trained, dataset):
        known = [trained.row_keys(name) for name in splits]
    else:
        names = [column.name for column in bundle.schema.columns] + list(bundle.schema.targets)
        keys = content_keys(dataset.table(split).select(names))
        known = [content_keys(trained.table(name).select(names)) for name in splits]
    return np.isin(keys, np.concatenate(known)) if known else np.zeros(len(keys), dtype=bool)


def remark_on(seen: NDArray[np.bool_] | None) -> str:
    """Return what a reader must know of an evaluation's rows; empty where none was seen."""
    if seen is None:
        return "training rows unknown"
    if seen.all():
        return "measured on rows it was trained on"
    if seen.any():
        return f"{int(seen.sum())} of {len(seen)} rows it was trained on"
    return ""


def _have_same_keys(trained: Dataset, dataset: Dataset) -> bool:
    if trained.record.name != dataset.record.name or trained.schema.id_column != dataset.schema.id_column:
        return False
    return dataset.schema.id_column is not None or set(trained.table().columns) == set(dataset.table().columns)
