"""Labels that come late: checked against the schema, kept, and held against what was predicted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.paths import EndpointFolder, Home
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.personal import key_at, mode_of, pseudonyms
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.data.target import label_of
from lepton_jupyter.stages.deploy.requests.frames import outputs_of, row_ids
from lepton_jupyter.stages.deploy.requests.reading import Schemas, read_chunks
from lepton_jupyter.stages.evaluate.sample import Sample, classified, regressed
from lepton_jupyter.stages.evaluate.scores import values
from lepton_jupyter.stages.monitor.labels import BY, Kind, column_of, joined, keep, keys_of, known_labels
from lepton_jupyter.stages.monitor.window import SETTLE_S, config_of


class Fed(NamedTuple):
    """What came of a feedback.

    Attributes
    ----------
    n_labels : int
        Rows that a label was given for.
    n_new : int
        Of these, those whose label was not known before, or was another.
    n_matched, n_unknown : int
        Of these, those that were found in the log, and those that were not (yet).
    n_conflicting : int
        Of these, those that had another label before, or were given two at once; the last one counts.
    n_rows : int
        Logged rows that the metrics are of: a row may have been asked for more than once.
    metrics : dict
        As of an evaluation, over these rows, those whose label was given now.
    """

    endpoint: str
    n_labels: int
    n_new: int
    n_matched: int
    n_unknown: int
    n_conflicting: int
    n_rows: int
    metrics: dict[str, float]


def labels_schema(home: Home, endpoint: str) -> Schema:
    """Return the schema of what an endpoint serves.

    Raises
    ------
    LeptonError
        If there is no such endpoint, or its bundle is gone.
    """
    config = config_of(home, home.endpoint(endpoint))
    return open_bundle(Path(config.bundle), config.manifest_hash).schema


def feed(home: Home, endpoint: str, table: pl.DataFrame) -> Fed:
    """Keep labels, and hold them against what was predicted.

    Parameters
    ----------
    home : Home
    endpoint : str
    table : polars.DataFrame
        ``row_id``, as predict returns it, or the id column; and the target.

    Raises
    ------
    LeptonError
        If a column is not there, a row has no id, or a label is no class or number; nothing is kept then.
    """
    folder = home.endpoint(endpoint)
    config = config_of(home, folder)
    schema = labels_schema(home, endpoint)
    said = _read(schema, table, config, folder)
    before = known_labels(folder.labels, schema)
    fresh, n_conflicting = _fresh(said, before, schema)
    if fresh.height:
        _keep(folder, fresh)
    last = said.unique(BY, keep="last", maintain_order=True)
    rows = _logged(home, folder, schema, last.with_columns(given_at=pl.lit(0.0)))
    found = set(rows["key"].to_list()) if rows.height else set()
    return Fed(
        endpoint=endpoint,
        n_labels=last.height,
        n_new=fresh.unique(BY).height,
        n_matched=len(found),
        n_unknown=last.height - len(found),
        n_conflicting=n_conflicting,
        n_rows=rows.height,
        metrics=_metrics(rows, schema),
    )


def _keep(folder: EndpointFolder, fresh: pl.DataFrame) -> None:
    try:
        keep(folder.labels, fresh)
    except OSError as error:
        raise LeptonError(
            f"The labels cannot be kept in '{folder.labels}': {error.strerror}.", "Make room there.", code="failed"
        ) from error


def _read(schema: Schema, table: pl.DataFrame, config: EndpointConfig, folder: EndpointFolder) -> pl.DataFrame:
    """Return ``kind``, ``key`` and the labels as they are kept; rows whose label is missing are left out."""
    if not schema.targets:
        raise LeptonError(
            f"{config.version} does not say which column it predicts: it was saved without data.",
            "Save it again with data=NAME.",
            code="refused",
        )
    kind, name = _key_column(schema, table, config)
    for target in schema.targets:
        if target not in table.columns:
            raise unknown("column", target, table.columns, f"Labels are read from it: {config.version} predicts it.")
    table = table.filter(pl.any_horizontal(pl.col(target).is_not_null() for target in schema.targets))
    keys = keys_of(table[name].to_list())
    if keys.null_count():
        row = int(keys.is_null().arg_max() or 0)
        raise LeptonError(f"Row {row} of the labels has no '{name}'.", "Leave it out, or say which row it is of.")
    if kind == "id":
        keys = _as_logged(keys, schema, config, folder)
    labels = {column_of(target): _labels(table[target], schema) for target in schema.targets}
    return pl.DataFrame({"kind": pl.Series([kind] * len(keys), dtype=pl.String), "key": keys, **labels})


def _key_column(schema: Schema, table: pl.DataFrame, config: EndpointConfig) -> tuple[Kind, str]:
    has_row_id = "row_id" in table.columns
    if schema.id_column is not None and schema.id_column in table.columns:
        is_logged = schema.id_column not in schema.personal or mode_of(schema, config.options) != "drop"
        if is_logged or not has_row_id:
            return "id", schema.id_column
    if has_row_id:
        return "row_id", "row_id"
    ways = f"'{schema.id_column}' or 'row_id'" if schema.id_column else "'row_id'"
    raise LeptonError(
        f"The labels do not say which rows they are of: a column {ways} is wanted. "
        f"They have: {', '.join(table.columns[:12])}.",
        f"row_id is what predict returned beside each prediction: REQUEST_ID/INDEX. Endpoint '{config.name}' logs it.",
    )


def _as_logged(keys: pl.Series, schema: Schema, config: EndpointConfig, folder: EndpointFolder) -> pl.Series:
    """Return ids as the log has them: pseudonyms where the id column is personal."""
    if schema.id_column not in schema.personal:
        return keys
    mode = mode_of(schema, config.options)
    if mode == "drop":
        raise LeptonError(
            f"'{schema.id_column}' is personal and is not logged: no row can be found by it.",
            f"Give 'row_id' in its place, or log pseudonyms: %lepton deploy {config.version} --as {config.name} "
            "--personal hash",
            code="refused",
        )
    if mode == "keep":
        return keys
    return pl.Series(pseudonyms(key_at(folder.personal_key), keys.to_list()), dtype=pl.String)


def _labels(series: pl.Series, schema: Schema) -> pl.Series:
    """Return a target's labels: classes as text, else float64."""
    if schema.classes:
        texts = pl.Series([None if value is None else label_of(value) for value in series.to_list()], dtype=pl.String)
        _refuse(~texts.is_in(schema.classes), series, f"no class that is known. Known: {', '.join(schema.classes)}")
        return texts
    numbers = series.cast(pl.Float64, strict=False)
    _refuse(~numbers.is_finite().fill_null(series.is_null()), series, "no number")
    return numbers


def _refuse(is_wrong: pl.Series, series: pl.Series, what: str) -> None:
    is_wrong = is_wrong.fill_null(False)
    if is_wrong.any():
        row = int(is_wrong.arg_max() or 0)
        n_more = int(is_wrong.sum()) - 1
        more = f" ({n_more} more are wrong too)" if n_more else ""
        raise LeptonError(
            f"Row {row} of the labels: '{series.name}' is '{str(series[row])[:60]}', which is {what}{more}.",
            "Nothing was kept. Give the labels as the dataset had them.",
        )


def _fresh(said: pl.DataFrame, before: pl.DataFrame, schema: Schema) -> tuple[pl.DataFrame, int]:
    """Return what is worth keeping: all that was not known before as it is; and how many rows have two labels."""
    names = [column_of(target) for target in schema.targets]
    distinct = said.unique([*BY, *names], keep="last", maintain_order=True)
    known = before.drop("given_at").rename({name: f"{name} before" for name in names})
    beside = distinct.join(known, on=BY, how="left", maintain_order="left")
    is_same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name} before")) for name in names)
    was_there = pl.any_horizontal(pl.col(f"{name} before").is_not_null() for name in names)
    twice = distinct.group_by(BY).len().filter(pl.col("len") > 1).select(BY)
    changed = beside.filter(was_there & ~is_same).select(BY)
    conflicting = pl.concat([twice, changed]).unique()
    is_again = beside.select(BY).join(twice.with_columns(again=True), on=BY, how="left", maintain_order="left")["again"]
    fresh = beside.filter(~beside.select(is_same).to_series() | is_again.fill_null(False))
    return fresh.select(*BY, *names), conflicting.height


def _logged(home: Home, folder: EndpointFolder, schema: Schema, labels: pl.DataFrame) -> pl.DataFrame:
    """Return the logged rows of these labels: ``key``, the labels, what was predicted. No more is held than these."""
    time.sleep(SETTLE_S)  # what was asked just now
    by_row = labels["kind"].first() == "row_id" if labels.height else True
    names = [column_of(target) for target in schema.targets]
    found: list[pl.DataFrame] = []
    for frame, theirs in read_chunks(folder.requests, 0.0, np.inf, schema_of=Schemas(home.bundles, schema)):
        if theirs is None or (not theirs.columns and theirs.tensor_shape is None):
            continue
        if (theirs.task, theirs.classes, theirs.targets) != (schema.task, schema.classes, schema.targets):
            continue
        rows = frame.filter(pl.col("index").is_not_null())
        ids = [None if text is None else msgspec.json.decode(text) for text in rows["id"].to_list()]
        keyed = pl.DataFrame({"row_id": row_ids(rows["request_id"], rows["index"]), "id": keys_of(ids)})
        beside = joined(keyed, labels).with_columns(rows.select(outputs_of(schema)))
        is_known = pl.col("given_at").is_not_null()
        key = pl.col("row_id" if by_row else "id").alias("key")
        found.append(beside.filter(is_known).select(key, *names, *outputs_of(schema)))
    return pl.concat(found) if found else pl.DataFrame()


def _metrics(rows: pl.DataFrame, schema: Schema) -> dict[str, float]:
    if not rows.height:
        return {}
    return values(_sample(rows, schema))


def _sample(rows: pl.DataFrame, schema: Schema) -> Sample:
    outputs = outputs_of(schema)
    if not schema.classes:
        targets = [column_of(target) for target in schema.targets]
        whole = rows.drop_nulls(targets)
        actual = whole.select(targets).to_numpy()
        return regressed(actual=actual, predicted=whole.select(outputs).to_numpy(), targets=schema.targets)
    codes = {label: code for code, label in enumerate(schema.classes)}
    actual = np.asarray([codes[label] for label in rows[column_of(schema.targets[0])].to_list()], dtype=np.int64)
    probability: Any = rows.select(outputs[1:]).to_numpy()
    positive = schema.positive_index if schema.task == "binary" else 0
    assert schema.task is not None
    return classified(
        actual=actual, probability=probability, classes=schema.classes, positive=positive, task=schema.task
    )
