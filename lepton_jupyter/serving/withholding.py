"""What of the rows does not reach the request log, because it is personal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.personal import TENSOR, key_at, mode_of, pseudonyms
from lepton_jupyter.formats.schema import SENTINEL, Column
from lepton_jupyter.serving.release import Release

Withheld = dict[str, list[str | None] | None]


class Spared(NamedTuple):
    """What may be written.

    Attributes
    ----------
    parts : list
        The rows, without their personal values; of a model of tensors none where these are personal.
    ids : list
        One item a request, as `LoggedBatch.ids`.
    withheld : dict
        As `LoggedBatch.withheld`.
    """

    parts: list[Packed | NDArray[np.float32]]
    ids: list[list[Any] | None]
    withheld: Withheld


def spare(
    release: Release,
    parts: Sequence[Packed | NDArray[np.float32]],
    ids: Sequence[list[Any] | None],
    key_path: Path,
) -> Spared:
    """Return rows and ids as the log may have them. What was given stays as it is: others read it still."""
    schema, mode = release.schema, mode_of(release.schema, release.config.options)
    if mode == "keep":
        return Spared(list(parts), list(ids), {})
    key = key_at(key_path) if mode == "hash" else None
    withheld: Withheld = {}
    if schema.id_column in schema.personal and any(each is not None for each in ids):
        if key is None:
            withheld[str(schema.id_column)] = None
            ids = [None] * len(ids)
        else:
            ids = [None if each is None else list(pseudonyms(key, each)) for each in ids]
    if schema.tensor_shape is not None:
        is_personal = TENSOR in schema.personal
        return Spared([] if is_personal else list(parts), list(ids), withheld | ({TENSOR: None} if is_personal else {}))
    packed = [part for part in parts if isinstance(part, Packed)]
    num = np.concatenate([part.num for part in packed])  # copies: a shadow may be asked the same a moment later
    txt = np.concatenate([part.txt for part in packed])
    for columns, values, missing in ((schema.num, num, np.nan), (schema.txt, txt, SENTINEL)):
        for place, column in enumerate(columns):
            if column.name in schema.personal:
                withheld[column.name] = None if key is None else pseudonyms(key, _values(column, values[:, place]))
                values[:, place] = missing
    return Spared([Packed(num, txt)], list(ids), withheld)


def _values(column: Column, values: NDArray[Any]) -> list[Any]:
    found = values.tolist()
    return [None if value == SENTINEL else value for value in found] if column.is_text else found
