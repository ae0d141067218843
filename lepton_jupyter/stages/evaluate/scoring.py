"""What a version says of a split's rows: by its graph, or from the table of a version that has none."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import GRAPH, PREDICTIONS, Bundle
from lepton_jupyter.formats.packing import PackingError
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving.scorer import Scorer
from lepton_jupyter.stages.data.images import Pictures
from lepton_jupyter.stages.data.packing import pack_frame
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.data.target import values_of
from lepton_jupyter.stages.evaluate.sample import Sample, classified, regressed


def score_split(bundle: Bundle, dataset: Dataset, split: str, *, version: str) -> Sample:
    """Score the rows of a split, in the table's order.

    Parameters
    ----------
    bundle : Bundle
    dataset : Dataset
        Any version with the model's columns and target; their order does not matter, others are passed over.
    split : str
    version : str
        Name of the version, for messages.

    Raises
    ------
    LeptonError
        If the data does not fit the version: no target, columns missing or of another type, a class that it does not
        know; if the version has no graph and its stored predictions are of other data; if a prediction is not finite.
    """
    schema = bundle.schema
    frame = dataset.table(split)
    _check_columns(schema, frame, dataset, version)
    actual = _targets(schema, frame, dataset, version)
    if bundle.has(GRAPH):
        probability, predicted = _by_graph(bundle, dataset, split, version)
    else:
        probability, predicted = _stored(bundle, dataset, split, version)
    _check_finite(predicted if probability is None else probability, version)
    if schema.task == "regression":
        return regressed(actual=actual, predicted=predicted, targets=schema.targets)
    assert schema.task is not None
    positive = schema.positive_index if schema.task == "binary" else 0
    if probability is None:
        return Sample(schema.task, actual, predicted, None, schema.classes, positive)
    return classified(
        actual=actual, probability=probability, classes=schema.classes, positive=positive, task=schema.task,
        threshold=schema.threshold,
    )  # fmt: skip


def on_same_terms(theirs: Sample, ours: Sample) -> Sample:
    """Return another version's sample with our positive class.

    Raises
    ------
    LeptonError
        If the two versions answer different questions.
    """
    if theirs.task != ours.task or set(theirs.classes) != set(ours.classes) or set(theirs.targets) != set(ours.targets):
        raise LeptonError("the other version answers another question: its task, classes or targets are not the same")
    if ours.task != "binary":
        return theirs
    return replace(theirs, positive=theirs.classes.index(ours.classes[ours.positive]))


def _check_columns(schema: Schema, frame: pl.DataFrame, dataset: Dataset, version: str) -> None:
    if not schema.targets:
        raise LeptonError(
            f"{version} does not say which column it predicts: it was saved without data.",
            "Save it again with data=NAME, or train it with --data NAME.",
            code="refused",
        )
    lacking = [column.name for column in schema.columns if column.name not in frame.columns]
    if lacking:
        named = ", ".join(f"'{name}'" for name in lacking[:5]) + (" …" if len(lacking) > 5 else "")
        raise LeptonError(
            f"{dataset.ref} does not fit {version}: it has no column {named}. It has: {', '.join(frame.columns[:12])}.",
            "Evaluate on a dataset with the columns that it was trained on.",
        )
    for target in schema.targets:
        if target not in frame.columns:
            raise LeptonError(
                f"{dataset.ref} has no column '{target}', which {version} predicts: there is nothing to measure by.",
                "Evaluate on a dataset with that column.",
            )


def _targets(schema: Schema, frame: pl.DataFrame, dataset: Dataset, version: str) -> NDArray[Any]:
    actual = values_of(frame, schema)
    if schema.task == "regression":
        return actual
    if (actual < 0).any():
        strange = frame[schema.targets[0]].filter(pl.Series(actual < 0))[0]
        raise LeptonError(
            f"{dataset.ref} has the class '{strange}' in '{schema.targets[0]}', which {version} does not know. "
            f"Known: {', '.join(schema.classes)}.",
            "Train a version on this data, or evaluate on rows of the known classes.",
        )
    return actual


def _by_graph(bundle: Bundle, dataset: Dataset, split: str, version: str) -> tuple[NDArray[Any] | None, NDArray[Any]]:
    scorer = Scorer(bundle)
    schema = scorer.schema
    if schema.tensor_shape is not None:
        if schema.image is not None and dataset.schema.image is not None:
            files = Pictures(dataset.record, dataset.table(), schema.image)  # seen as the version sees them
            outputs = scorer.score(files.take(dataset.rows(split)))
            return outputs.probability, outputs.prediction
        if (dataset.schema.tensor_shape, dataset.schema.image) != (schema.tensor_shape, schema.image):
            held, taken = (_rows_of(one) for one in (dataset.schema, schema))
            raise LeptonError(f"{dataset.ref} holds {held}; {version} takes {taken}.", "Evaluate on data like its own.")
        outputs = scorer.score(dataset.tensors(split))
    else:
        try:
            packed = pack_frame(schema, dataset.table(split).select([column.name for column in schema.columns]))
        except PackingError as error:
            raise LeptonError(
                f"{dataset.ref} does not fit {version}: {error.message}", error.hint, code="bad_input"
            ) from error
        outputs = scorer.score(packed)
    return outputs.probability, outputs.prediction


def _rows_of(schema: Schema) -> str:
    if schema.image is not None:
        return f"images of {schema.image}"
    return "a table" if schema.tensor_shape is None else f"rows of shape {schema.tensor_shape}"


def _stored(bundle: Bundle, dataset: Dataset, split: str, version: str) -> tuple[NDArray[Any] | None, NDArray[Any]]:
    """Return what a version that could not be exported said of its own dataset's rows when it was trained."""
    card, schema = bundle.card, bundle.schema
    why = card.why_not or "it was not exported"
    if not bundle.has(PREDICTIONS) or card.trained_on != dataset.ref:
        own = f" on {card.trained_on}" if card.trained_on else ""
        raise LeptonError(
            f"{version} cannot score {dataset.ref}: it has no graph ({why}), only stored predictions{own}.",
            f"Evaluate it with --data {card.trained_on}:{split}." if own else "Train a version that can be exported.",
            code="refused",
        )
    stored = pl.read_parquet(io.BytesIO(bundle.read(PREDICTIONS)))
    rows = stored.filter(pl.col("split") == split)
    if not np.array_equal(rows["row_key"].to_numpy(), dataset.row_keys(split)):
        raise LeptonError(f"{version} stored no predictions for the rows of {dataset.ref}:{split}.", code="refused")
    if schema.task == "regression":
        names = [f"prediction_{target}" for target in schema.targets] if len(schema.targets) > 1 else ["prediction"]
        return None, rows.select(names).to_numpy().astype(np.float64)
    names = [f"probability_{label}" for label in schema.classes]
    codes = {label: code for code, label in enumerate(schema.classes)}
    predicted = np.array([codes.get(str(label), -1) for label in rows["prediction"].to_list()], dtype=np.int64)
    if set(names) <= set(rows.columns):
        return rows.select(names).to_numpy(), predicted
    return None, predicted


def _check_finite(values: NDArray[Any], version: str) -> None:
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        raise LeptonError(
            f"{version} predicts no finite number for {int(bad.sum())} of {len(values)} rows; "
            f"the first is row {int(bad.argmax())} of the split.",
            "Look for missing values that the model cannot take, or weights that are not finite.",
            code="failed",
        )
