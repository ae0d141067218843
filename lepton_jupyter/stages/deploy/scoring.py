"""Score tables without a server: the same graph, the same rules and the same table as an endpoint."""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError, did_you_mean
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.formats.bundle import GRAPH, PREDICTIONS, WEIGHTS, Bundle
from lepton_jupyter.formats.packing import pack_tensor
from lepton_jupyter.formats.records import Card
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving.scorer import Scorer
from lepton_jupyter.stages.data.packing import pack_frame
from lepton_jupyter.stages.data.reading import array_of, frame_of, read_table
from lepton_jupyter.stages.deploy.picture_rows import predict_pictures

TABLE_KINDS = (".parquet", ".csv", ".jsonl")


def predict_frame(bundle: Bundle, rows: pl.DataFrame) -> pl.DataFrame:
    """Score a table with a version's graph.

    Parameters
    ----------
    bundle : Bundle
    rows : polars.DataFrame
        Columns in any order; target, id and ignored columns may be there and are not used.

    Returns
    -------
    polars.DataFrame
        The id column if `rows` has it, ``prediction`` (of several targets: ``prediction_TARGET`` …) and, for a
        classification, ``probability_CLASS`` in the order of the schema's classes. Rows keep their order.

    Raises
    ------
    PackingError
        If a column is missing, unknown or of another kind; row and column are named.
    LeptonError
        If the version has no graph; the message says why.
    """
    return _score(Scorer(bundle), rows)


def frame_of_rows(value: Any, *, schema: Schema | None = None) -> pl.DataFrame:
    """Return rows as a table.

    Parameters
    ----------
    value : object
        Path of a CSV, Parquet, Arrow or JSONL file; DataFrame (polars, pandas), list of dicts, dict of columns, array.
    schema : Schema, optional
        Of the model: a CSV's text columns are then read as text where every value looks like a number.

    Raises
    ------
    LeptonError
        If it is none of these, or the file cannot be read.
    """
    if isinstance(value, (str, Path)):
        return read_table(value, schema=schema)
    if isinstance(value, dict) and value and not any(isinstance(v, (list, tuple, np.ndarray)) for v in value.values()):
        value = [value]  # one row
    return frame_of(value)


def check_table_path(path: Path) -> None:
    """Refuse a path that `write_table` could not write, before any work is done.

    Raises
    ------
    LeptonError
        If its suffix is unknown or its folder is not there.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_KINDS:
        raise LeptonError(
            f"'{path.name}' is no kind of table that can be written. Known: {', '.join(TABLE_KINDS)}."
            f"{did_you_mean(suffix, TABLE_KINDS)}",
            f"Try '{path.with_suffix('.parquet').name}'.",
        )
    if not path.absolute().parent.is_dir():
        raise LeptonError(f"There is no folder '{path.parent}' to write '{path.name}' to.", "Make it first.")


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a table as ``.parquet``, ``.csv`` or ``.jsonl``: all of it, or the old file stays.

    Raises
    ------
    LeptonError
        If the suffix is unknown, or the file cannot be written.
    """
    check_table_path(path)
    content = io.BytesIO()
    match path.suffix.lower():
        case ".parquet":
            frame.write_parquet(content)
        case ".csv":
            frame.write_csv(content)
        case _:
            frame.write_ndjson(content)
    try:
        write_atomic(path, content.getvalue(), mode=0o644)
    except OSError as error:
        raise LeptonError(
            f"'{path}' cannot be written: {error.strerror}.", "Name another file.", code="failed"
        ) from error


class LoadedModel:
    """A version in the notebook: what it predicts, its weights, where it comes from.

    Parameters
    ----------
    bundle : Bundle
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def __repr__(self) -> str:
        says = "" if self.card.is_deployable else f", not deployable: {self.card.why_not}"
        return f"<{self.card.model} of run {self.card.run_id} ({self.card.framework}){says}>"

    @cached_property
    def schema(self) -> Schema:
        """Columns in, outputs out."""
        return self._bundle.schema

    @cached_property
    def card(self) -> Card:
        """Where the version comes from."""
        return self._bundle.card

    @cached_property
    def weights(self) -> dict[str, NDArray[Any]]:
        """Arrays under the module's own names (scikit-learn: ``coef_``, ``intercept_`` …).

        Raises
        ------
        LeptonError
            If none are stored for this kind of model.
        """
        if not self._bundle.has(WEIGHTS):
            raise LeptonError(f"No weights are stored for {self.card.model} ({self.card.framework}).", code="not_found")
        from safetensors.numpy import load

        return load(self._bundle.read(WEIGHTS))

    @cached_property
    def predictions(self) -> pl.DataFrame:
        """Of a version that could not be exported: its stored predictions on every split of its own data.

        Raises
        ------
        LeptonError
            If none are stored: the version has a graph, and predicts any rows.
        """
        if not self._bundle.has(PREDICTIONS):
            raise LeptonError(
                f"No predictions are stored for {self.card.model} of run {self.card.run_id}.",
                "It predicts rows by itself: .predict(rows)." if self._bundle.has(GRAPH) else "",
                code="not_found",
            )
        return pl.read_parquet(io.BytesIO(self._bundle.read(PREDICTIONS)))

    def predict(self, rows: Any) -> pl.DataFrame:
        """Score rows; the table is that of `predict_frame`.

        Parameters
        ----------
        rows : object
            As `frame_of_rows`; for a model of tensors an array [N, ...]; for one of images a folder, paths, bytes … as
            `picture_rows.listed` takes them.

        Raises
        ------
        LeptonError
            If the rows do not fit (row and column are named), or the version has no graph.
        """
        scorer = self._scorer
        if self.schema.image is not None:
            return predict_pictures(scorer, rows)
        if self.schema.tensor_shape is not None:
            array = array_of(rows)
            outputs = scorer.score(pack_tensor(self.schema, rows if array is None else array))
            return pl.DataFrame(scorer.table(outputs))
        return _score(scorer, frame_of_rows(rows, schema=self.schema))

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self._bundle)


def _score(scorer: Scorer, rows: pl.DataFrame) -> pl.DataFrame:
    schema = scorer.schema
    if schema.tensor_shape is not None:
        raise LeptonError(
            f"The model takes arrays of shape [N, {', '.join(map(str, schema.tensor_shape))}], not a table.",
            "lepton.load(NAME).predict(array)",
        )
    table = pl.DataFrame(scorer.table(scorer.score(pack_frame(schema, rows))), strict=False)
    if schema.id_column is not None and schema.id_column in rows.columns:
        return table.select(rows[schema.id_column], pl.all().exclude(schema.id_column))
    return table
