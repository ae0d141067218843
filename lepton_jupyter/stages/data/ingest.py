"""Make a version of a dataset: read, check, split, profile, write."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import SPLITS, Reference, check_name
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats import profile as profiles
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.pixels import Look
from lepton_jupyter.formats.records import DatasetRecord, Finding
from lepton_jupyter.formats.schema import ImageInput, Schema
from lepton_jupyter.stages.data import columns, findings, images, keys, reading, splits
from lepton_jupyter.stages.data.packing import pack_frame
from lepton_jupyter.stages.data.reading import read_table
from lepton_jupyter.stages.data.spec import Data, DataFlags
from lepton_jupyter.stages.data.store import Dataset, Store
from lepton_jupyter.stages.data.target import MISSING_CODE, Target, codes_of, read_target

__all__ = ["add", "read_table"]

SHAPING = ("target", "positive", "id", "split", "group", "time", "ignore", "text", "seed", "personal", "image_size")
LATER = ("text", "personal", "image_size")  # datasets of before do not know them: where they say nothing, left out
SPLITTING = ("split", "group", "time", "seed")
MIN_ROWS = 2


class _Source(NamedTuple):
    frame: pl.DataFrame
    tensor: NDArray[np.float32] | None
    flags: DataFlags
    kind: str
    image: ImageInput | None = None
    findings: tuple[Finding, ...] = ()  # about files

    @property
    def is_table(self) -> bool:
        return self.tensor is None and self.image is None


class _Draft(NamedTuple):
    source: _Source
    target: Target
    features: columns.Features
    rows: splits.Rows


def add(home: Home, spec: Data, value: Any = None) -> tuple[DatasetRecord, bool]:
    """Make a version of a dataset, unless the latest one has the same content and flags.

    Parameters
    ----------
    home : Home
    spec : Data
    value : object, optional
        The notebook's variable that ``spec.source`` names: a DataFrame, arrays, tensors, a tuple (x, y) … None: the
        source is a path or a glob, relative to the working folder.

    Returns
    -------
    tuple of DatasetRecord and bool
        The latest version, and whether it was made just now.

    Raises
    ------
    LeptonError
        If source, flags or target cannot be used. Nothing is left on disk then.
    """
    check_name(spec.name, "dataset")
    splits.parse_shares(spec.split)
    store = Store(home)
    draft = _draft(_read(store, spec, value))
    hashes = _hashes(draft.source)
    with store.locked():
        earlier = [store.open(Reference(spec.name, version=version)) for version in store.numbers(spec.name)]
        if earlier and (earlier[-1].record.content_hash, earlier[-1].record.flags_hash) == hashes:
            return earlier[-1].record, False
        draft = draft._replace(target=_same_positive(draft, earlier))
        known, n_new = _known(earlier, draft.rows.keys, draft.source.flags)
        places = splits.draw(draft.rows._replace(known=known), draft.source.flags)
        schema, found = _described(draft, places)
        record = DatasetRecord(
            name=spec.name,
            version=store.next_version(spec.name),
            content_hash=hashes[0],
            flags_hash=hashes[1],
            source=spec.source,
            source_kind=draft.source.kind,
            created_at=time.time(),
            n_rows=draft.source.frame.height,
            schema=schema,
            split_how=_how(draft.source.flags, draft.target),
            split_rows={name: n for place, name in enumerate(SPLITS) if (n := int((places == place).sum()))},
            flags=_plain(draft.source.flags),
            findings=found,
            n_new_rows=n_new,
            class_counts=draft.target.counts,
            folder=str(Path.cwd()) if draft.source.kind == "file" else "",
        )
        return _write(store, record, draft, places), True


def _draft(source: _Source) -> _Draft:
    frame, flags = source.frame, source.flags
    columns.check_columns(frame, flags)
    columns.check_personal(frame, flags, is_tensor=not source.is_table)
    target = read_target(frame, flags.target, positive=flags.positive)
    if source.is_table:
        features = columns.choose_features(frame, flags)
    else:
        features = columns.Features({}, tuple(frame.columns), list(source.findings))
    return _Draft(source, target, features, _rows(source, target))


def _same_positive(draft: _Draft, earlier: list[Dataset]) -> Target:
    """Return the target with the positive class that it had: more rows may make the other class the rarer one."""
    target, asked = draft.target, draft.source.flags
    before = earlier[-1].record if earlier else None
    if before is None or asked.positive is not None or before.flags.get("positive") is not None:
        return target
    if before.schema.targets != asked.target:
        return target
    kept = before.schema.positive
    return target._replace(positive=kept) if target.task == "binary" and kept in target.classes else target


def _described(draft: _Draft, places: splits.Places) -> tuple[Schema, tuple[Finding, ...]]:
    source, target, features, _ = draft
    is_train = pl.Series(places == 0)
    image = source.image
    schema = Schema(
        columns=columns.describe(source.frame, features.kinds, is_train),
        targets=source.flags.target,
        task=target.task,
        classes=target.classes,
        class_kind=target.class_kind,
        positive=target.positive,
        id_column=source.flags.id if image is None else images.PATH,
        dropped=features.dropped,
        example={"image": images.EXAMPLE}
        if image is not None
        else columns.example_row(source.frame.filter(is_train), features.kinds),
        tensor_shape=image.shape if image is not None else None if source.tensor is None else source.tensor.shape[1:],
        image=image,
        personal=source.flags.personal,
    )
    return schema, findings.check(findings.Table(source.frame, features, schema, target, places, source.flags))


def _write(store: Store, record: DatasetRecord, draft: _Draft, places: splits.Places) -> DatasetRecord:
    frame = draft.source.frame
    profile = profiles.build(record.schema, pack_frame(record.schema, frame.filter(pl.Series(places == 0))))
    kept = pl.DataFrame({"key": draft.rows.keys, "split": places}, schema={"key": pl.UInt64, "split": pl.Int8})
    try:
        return store.write(record, frame, kept, profile, draft.source.tensor)
    except (OSError, pl.exceptions.PolarsError) as error:  # polars tells of a full disk in words of its own
        reason = getattr(error, "strerror", "") or error
        raise LeptonError(
            f"Dataset '{record.name}' cannot be written to '{store.home.datasets}': {reason}.",
            "Make room there, or set LEPTON_HOME to another folder.",
            code="failed",
        ) from error


def _known_looks(store: Store, name: str) -> dict[str, Look]:
    """Return the files that the latest version holds, where it is one of images."""
    numbers = store.numbers(name)
    latest = store.open(Reference(name, version=numbers[-1])) if numbers else None
    return images.looks_of(latest.table()) if latest is not None and latest.schema.image is not None else {}


def _read(store: Store, spec: Data, value: Any) -> _Source:
    if value is None and images.is_folder(spec.source):
        folder = images.read_folder(spec, _known_looks(store, spec.name))
        flags = msgspec.structs.replace(spec, target=(images.TARGET,))
        return _Source(folder.frame, None, flags, "file", folder.image, tuple(folder.findings))
    if spec.image_size is not None:
        raise LeptonError(
            f"--image-size is for a folder of images, and '{spec.source}' is none.", "Leave it out, or name a folder."
        )
    if value is None:
        return _Source(reading.read_source(spec.source), None, spec, "file")
    array = reading.array_of(value[0]) if isinstance(value, tuple) and value else None
    if array is not None and array.ndim > 2:
        return _read_tensor(spec, value, array)
    frame = reading.frame_of(value)
    flags = spec if spec.target else msgspec.structs.replace(spec, target=reading.target_names(value, frame))
    return _Source(frame, None, flags, "variable")


def _read_tensor(spec: Data, value: tuple[Any, ...], array: NDArray[Any]) -> _Source:
    if len(value) != 2:
        raise LeptonError(f"A tuple of {len(value)} cannot be data; (x, y) is wanted.", "Give data=(x, y).")
    y = reading.frame_of((np.arange(len(array)), value[1])).drop("x0")
    tensor = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(tensor).all():
        raise LeptonError(
            f"The tensor of shape {list(array.shape)} holds NaN or infinity.", "Fill or remove these rows."
        )
    flags = spec if spec.target else msgspec.structs.replace(spec, target=tuple(y.columns))
    return _Source(y, tensor, flags, "variable")


def _rows(source: _Source, target: Target) -> splits.Rows:
    frame, flags = source.frame, source.flags
    is_labelled = np.ones(frame.height, dtype=bool)
    for name in flags.target:
        is_labelled &= frame[name].is_not_null().to_numpy()
    n = int(is_labelled.sum())
    if n < MIN_ROWS or (n < 3 and splits.parse_shares(flags.split) is not None):
        raise LeptonError(
            f"{n} row{'s' * (n != 1)} with a target: that is too few to split and learn from.",
            "Give more rows." if n < MIN_ROWS else "Give more rows, or use --split none.",
        )
    strata = codes_of(frame[flags.target[0]], target.classes) if target.classes else np.zeros(frame.height, np.int64)
    return splits.Rows(
        keys=_row_keys(source),
        is_labelled=is_labelled & (strata != MISSING_CODE),
        strata=strata,
        groups=_groups(frame, flags),
        times=splits.times_of(frame[flags.time]) if flags.time else None,
        known=np.full(frame.height, splits.OUT, dtype=np.int8),
    )


def _row_keys(source: _Source) -> keys.Keys:
    frame, tensor, flags = source.frame, source.tensor, source.flags
    if source.image is not None:  # a file that was moved or named otherwise is the same row
        return keys.row_keys(frame.select(images.HASH, images.TARGET))
    if tensor is None or flags.id is not None:
        return keys.row_keys(frame, flags.id)
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in tensor]
    of_tensor = np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
    return keys.add_occurrence(keys.mix(of_tensor ^ keys.content_keys(frame)))


def _groups(frame: pl.DataFrame, flags: DataFlags) -> keys.Keys | None:
    """Return a number for each row's group; a row without one is a group of its own."""
    if flags.group is None:
        return None
    of_group = keys.content_keys(frame.select(flags.group))
    return np.where(frame[flags.group].is_null().to_numpy(), keys.row_keys(frame, flags.id), of_group)


def _known(earlier: list[Dataset], ours: keys.Keys, flags: DataFlags) -> tuple[splits.Places, int]:
    """Return the split that an earlier version gave to each row (the latest counts), and how many rows none had.

    Versions whose flags asked for another split do not count: a changed flag draws every row again.
    """
    known: splits.Places = np.full(len(ours), splits.OUT, dtype=np.int8)
    has_been = np.zeros(len(ours), dtype=bool)
    for dataset in earlier:
        theirs = dataset.row_keys()
        order = np.argsort(theirs)
        found = order[np.minimum(np.searchsorted(theirs, ours, sorter=order), len(theirs) - 1)]
        is_known = theirs[found] == ours
        has_been |= is_known
        before = dataset.record.flags
        if all(before.get(name) == value for name, value in _plain(flags).items() if name in SPLITTING):
            known[is_known] = dataset.places()[found][is_known]
    return known, int((~has_been).sum())


def _how(flags: DataFlags, target: Target) -> str:
    if splits.parse_shares(flags.split) is None:
        return "none"
    if flags.group is not None:
        return "grouped"
    if flags.time is not None:
        return "time"
    return "stratified" if target.classes else "random"


def _plain(flags: DataFlags) -> dict[str, Any]:
    shaping = {name: getattr(flags, name, None) for name in SHAPING}
    return msgspec.to_builtins({name: said for name, said in shaping.items() if name not in LATER or said})


def _hashes(source: _Source) -> tuple[str, str]:
    extra = () if source.tensor is None else (source.tensor,)
    return keys.content_hash(source.frame, *extra), hashlib.sha256(encode(_plain(source.flags))).hexdigest()
