"""Write a version's bundle: graph, schema, profile, card, weights; predictions where there can be no graph."""

from __future__ import annotations

import errno
import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors.numpy import save as to_bytes

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.session import Session
from lepton_jupyter.formats.bundle import (
    CARD,
    GRAPH,
    PREDICTED,
    PREDICTIONS,
    PROFILE,
    SCHEMA,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    encode,
    open_bundle,
    write_bundle,
)
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.pixels import fingerprint, pillow_version
from lepton_jupyter.formats.predicted import decide, is_classes, pack_predictions, schema_of_predictions
from lepton_jupyter.formats.profile import Profile, build
from lepton_jupyter.formats.records import Card
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving.text import TextReader
from lepton_jupyter.stages.data.packing import pack_frame
from lepton_jupyter.stages.data.row_groups import RowGroups
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.graph import serialise
from lepton_jupyter.stages.train.job import Fitted, Given
from lepton_jupyter.stages.train.parity import Parity, Probe, check_parity, planted_probes, real_probes, rows_of
from lepton_jupyter.stages.train.planted_images import planted_rows

N_UNSEEN = 300  # rows of validation and test; under these, training's are taken as well
N_PREDICTED = 10_000  # rows of each split
N_PLACES = 24  # that they are read from in a split that is larger than memory
N_SCALED = 1_000_000  # rows of each split


def bundle_of(
    fitted: Fitted,
    card: Card,
    *,
    folder: Path,
    dataset: Dataset | None = None,
    example: Given | None = None,
    session: Session | None = None,
) -> tuple[Bundle, Card]:
    """Export a model, prove the graph equal, and write the bundle.

    Parameters
    ----------
    fitted : Fitted
    card : Card
        What is known beforehand; `is_deployable`, `why_not` and `parity` are settled here.
    folder : Path
        Where the bundle goes; it is written beside it and moved into place when whole.
    dataset : Dataset, optional
        Real rows for the parity check, and the profile.
    example : Given, optional
        Rows for the parity check where there is no dataset.
    session : Session, optional
        Hears of parity.

    Raises
    ------
    LeptonError
        With code ``failed`` if there is no space left.
    """
    graph, parity, why_not = _proved_graph(fitted, dataset, example)
    if session is not None:
        session.note("parity", parity.to_dict() if parity else {})
        if why_not:
            session.note("exportable", False)
            session.note("why_not_exportable", why_not)
    told = parity.to_dict() if parity else {}
    if parity and fitted.schema.image is not None:
        told |= {"pillow": pillow_version(), "pixels": fingerprint()}
    card = msgspec.structs.replace(card, is_deployable=not why_not, why_not=why_not, parity=told)
    files = {SCHEMA: encode(fitted.schema), CARD: encode(card), WEIGHTS: _weights(fitted)}
    if fitted.tokenizer is not None:
        files[TOKENIZER] = fitted.tokenizer
    if dataset is not None:
        files[PROFILE] = encode(dataset.profile())
    if graph is not None and not why_not:
        files[GRAPH] = graph
        if dataset is not None and fitted.schema.task is not None:
            files[PREDICTED] = encode(_predicted(fitted, dataset))
    elif dataset is not None:
        files[PREDICTIONS] = predictions_table(fitted, dataset)
    return _write(folder, files), card


def _proved_graph(
    fitted: Fitted, dataset: Dataset | None, example: Given | None
) -> tuple[bytes | None, Parity | None, str]:
    """Return the graph's bytes, the parity check, and why it cannot be deployed (empty where it can)."""
    if fitted.outcome.why_not:
        return None, None, fitted.outcome.why_not
    try:
        graph = serialise(fitted.export())
    except LeptonError as error:
        if error.code != "refused":
            raise
        return None, None, str(error)
    try:
        text = fitted.tokenizer  # read anew from its bytes, as an endpoint does
        reader = TextReader(text, fitted.schema) if text is not None else None
        probes, scale = _probes(fitted, dataset, example), _scale(fitted, dataset)
        parity = check_parity(
            fitted.predict, graph, probes, scale=scale, at_once=fitted.schema.rows_at_once, reader=reader
        )
    except Exception as error:  # onnxruntime's own exceptions have no common base
        return None, None, f"The exported graph does not run: {str(error).splitlines()[0][:300]}"
    return graph, parity, parity.message


def _probes(fitted: Fitted, dataset: Dataset | None, example: Given | None) -> list[Probe]:
    probes = real_probes(fitted.schema, dataset) if dataset is not None else []
    rows: Any = example
    if example is not None:
        n_rows = example.n_rows if isinstance(example, Packed) else len(example)
        probes.append(Probe(example, [f"row {row} of the example" for row in range(n_rows)]))
    elif dataset is not None and fitted.schema.tensor_shape is None:
        split = dataset.splits()[0]
        rows = rows_of(fitted.schema, dataset, split, dataset.spread(split, N_PREDICTED, places=N_PLACES))
    if fitted.schema.image is not None:
        labels, read, served = planted_rows(fitted.schema.image)
        probes.append(Probe(read, [f"a planted image {what}" for what in labels], served=served))
    if isinstance(rows, Packed):
        probes += planted_probes(fitted.schema, rows, fitted.thresholds())
    return probes


def _scale(fitted: Fitted, dataset: Dataset | None) -> npt.NDArray[np.float64] | float:
    """Return what a difference is measured in: the target's standard deviation, or 1 for probabilities."""
    if fitted.schema.task != "regression" or dataset is None or not dataset.schema.targets:
        return 1.0
    values = [dataset.targets(split, dataset.spread(split, N_SCALED, places=N_PLACES)) for split in dataset.splits()]
    spread = np.nanstd(np.concatenate(values), axis=0)
    return np.where(spread > 0, spread, 1.0)


def _predicted(fitted: Fitted, dataset: Dataset) -> Profile:
    """Return the profile of what the model says of known rows, for monitoring to compare its answers with.

    Of rows that the weights have not seen, where there are enough: a model is surer of those that it has.
    """
    seen, *unseen = dataset.splits()
    n_unseen = sum(dataset.record.split_rows.get(split, 0) for split in unseen)
    answers = []
    for split in unseen if n_unseen >= N_UNSEEN else (seen, *unseen):
        rows = rows_of(fitted.schema, dataset, split, dataset.spread(split, N_PREDICTED, places=N_PLACES))
        answers.append(fitted.predict(rows))
    columns = prediction_columns(fitted.schema, np.concatenate(answers))
    kept = [np.asarray(values) for name, values in columns.items() if name.partition("_")[0] == "prediction"]
    predictions = (
        np.asarray(columns["prediction"], dtype=object) if is_classes(fitted.schema) else np.column_stack(kept)
    )
    return build(schema_of_predictions(fitted.schema), pack_predictions(fitted.schema, predictions))


def _weights(fitted: Fitted) -> bytes:
    arrays = {name: np.ascontiguousarray(array) for name, array in fitted.weights().items()}
    return to_bytes(arrays)


def predictions_table(fitted: Fitted, dataset: Dataset) -> bytes:
    """Return predictions of every split as Parquet: ``split``, ``row_key``, ``prediction``, ``probability_CLASS`` …

    Regressions of several targets have ``prediction_TARGET`` columns. It is what `evaluate` reads of a model that
    cannot be exported.
    """
    parts = []
    for split in dataset.splits():
        answers = np.concatenate([fitted.predict(rows) for rows in _pieces(fitted.schema, dataset, split)])
        keys = dataset.row_keys(split)
        columns: dict[str, Any] = {"split": [split] * len(keys), "row_key": np.asarray(keys)}
        parts.append(pl.DataFrame(columns | prediction_columns(fitted.schema, answers)))
    buffer = io.BytesIO()
    pl.concat(parts).write_parquet(buffer)
    return buffer.getvalue()


def _pieces(schema: Schema, dataset: Dataset, split: str) -> Iterator[Given]:
    """Yield a split's rows: at once, or group by group where they are larger than memory."""
    if not dataset.is_large:
        yield rows_of(schema, dataset, split)
        return
    groups = RowGroups(dataset, split)
    for group in np.flatnonzero(groups.counts):
        some = groups.read(int(group))
        yield pack_frame(schema, some.frame) if some.tensor is None else some.tensor


def prediction_columns(schema: Schema, answers: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return answers [N, K] or [N, T] as named columns; classes are given by their label as text."""
    if schema.task == "regression":
        names = [f"prediction_{target}" for target in schema.targets] if len(schema.targets) > 1 else ["prediction"]
        return {name: answers[:, place] for place, name in enumerate(names)}
    labels = np.array(schema.classes, dtype=object)[decide(schema, answers)].tolist()
    return {"prediction": labels} | {
        f"probability_{label}": answers[:, place] for place, label in enumerate(schema.classes)
    }


def _write(folder: Path, files: dict[str, bytes]) -> Bundle:
    """Write into a folder beside, then move into place. Room that was reserved for this is given back first."""
    (folder.parent / "reserve.bin").unlink(missing_ok=True)
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        write_bundle(beside, files)
        beside.rename(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LeptonError(
                f"no space left in '{folder.parent}': the bundle could not be written.",
                "Make room, then train again; the checkpoints of this run may still be there.",
                code="failed",
            ) from error
        raise
    return open_bundle(folder)


def now() -> float:
    """Return the time of a card: seconds since 1970, UTC."""
    return time.time()
