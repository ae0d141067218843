"""Read a dataset's source again: what a retrain begins with."""

from __future__ import annotations

import glob
from pathlib import Path

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.records import DatasetRecord
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data


def source_of(record: DatasetRecord, *, folder: Path) -> str:
    """Return where a dataset's rows come from: an absolute path or glob.

    Parameters
    ----------
    record : DatasetRecord
    folder : Path
        In which a relative path is looked for, where the record does not say.

    Raises
    ------
    LeptonError
        If it was made from a variable, or the file is gone.
    """
    target = "".join(f" --target {name}" for name in record.flags.get("target", ()))
    if record.source_kind != "file":
        raise LeptonError(
            f"Dataset {record.name}@{record.version} was made from the variable '{record.source}': there is no file "
            "that could be read again.",
            f"Write it to a file and make the dataset of that: %lepton data {record.name} {record.name}.csv{target}",
            code="refused",
        )
    path = Path(record.source).expanduser()
    found = str(path if path.is_absolute() else Path(record.folder or folder) / path)
    is_pattern = any(sign in found for sign in "*?[")
    is_there = Path(found).exists() or (is_pattern and bool(glob.glob(found, recursive=True)))  # noqa: PTH207
    if not is_there:
        raise LeptonError(
            f"The source of dataset {record.name}@{record.version} is gone: there is no '{found}'.",
            f"Put it back, or make the dataset of another file: %lepton data {record.name} PATH{target}",
            code="not_found",
        )
    return found


def refresh(home: Home, record: DatasetRecord, *, folder: Path) -> tuple[DatasetRecord, bool]:
    """Read a dataset's source again, with the flags that were recorded; see `source_of` and `ingest.add`.

    Returns
    -------
    tuple of DatasetRecord and bool
        The latest version, and whether it was made just now.
    """
    asked = {**record.flags, "name": record.name, "source": source_of(record, folder=folder)}
    return add(home, msgspec.convert(asked, Data, strict=False))
