"""Logged requests as tables and back: a line a row, a line without values for a request that has no row.

Beside what every request has there are ``in:COLUMN``, ``hash:COLUMN`` (pseudonyms), ``tensor``, ``image`` (the sha256
of its file), ``prediction`` (of several targets ``prediction_TARGET``), ``probability_CLASS``. Numbers are float64 as
they were packed, ids JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from lepton_jupyter.formats.requestlog import LoggedRequest
from lepton_jupyter.formats.schema import Column, Schema

ABOUT: dict[str, Any] = {
    "at": pl.Float64, "request_id": pl.String, "version": pl.String, "latency_ms": pl.Float64, "n_rows": pl.Int32,
    "status": pl.Int16, "error": pl.String, "is_shadow": pl.Boolean, "share": pl.Float64,
}  # fmt: skip
IMAGE = "image"
_CASTS: dict[str, Any] = {"integer": pl.Int64, "boolean": pl.Boolean}


def raw(name: str) -> str:
    """Return what a column of the data is called in these tables."""
    return f"in:{name}"


def hashed(name: str) -> str:
    """Return what the pseudonyms of a column are called in these tables."""
    return f"hash:{name}"


def outputs_of(schema: Schema) -> list[str]:
    """Return the columns of what is predicted, the probabilities last."""
    targets = schema.targets
    if schema.classes:
        return ["prediction", *(f"probability_{label}" for label in schema.classes)]
    return [f"prediction_{target}" for target in targets] if len(targets) > 1 else ["prediction"]


def fits(record: LoggedRequest, schema: Schema) -> bool:
    """Whether a request's rows were packed by a schema of these columns."""
    n_values = len(schema.num) * record.n_rows
    return len(record.num) == 8 * n_values and (not schema.txt or len(record.txt) == record.n_rows)


def typed(column: Column, numbers: pl.Series) -> pl.Series:
    """Return packed numbers as what they are: integers, booleans, moments in UTC; missing ones are null."""
    series = numbers.fill_nan(None)
    if column.kind == "datetime":
        return (series * 1e6).cast(pl.Int64).cast(pl.Datetime("us", "UTC"))
    return series.cast(_CASTS[column.kind], strict=False) if column.kind in _CASTS else series


def row_ids(request_id: pl.Series, index: pl.Series) -> pl.Series:
    """Return what rows go by that have no id of their own: the request's id, and the place in it from 0 on."""
    return request_id + "/" + index.cast(pl.String)


def frame_of(records: Sequence[LoggedRequest], schema: Schema | None) -> pl.DataFrame:
    """Return requests that answered by one schema as a table; by None, what nobody knows the columns of."""
    about = pl.DataFrame({name: [getattr(record, name) for record in records] for name in ABOUT}, schema=ABOUT)
    about = about.with_columns(
        dropped=_names(records, lambda values: values is None),
        hashed=_names(records, lambda values: values is not None),
    )
    counts = [record.n_rows for record in records]
    request = np.repeat(np.arange(len(records)), [max(1, count) for count in counts])
    is_row = np.repeat(np.asarray(counts, dtype=np.int64) > 0, [max(1, count) for count in counts])
    table = about[request.astype(np.uint32)]
    scored = [record for record in records if record.n_rows]
    index = np.concatenate([np.arange(record.n_rows) for record in scored]) if scored else np.empty(0)
    columns = {"index": pl.Series(index, dtype=pl.Int32), **_values(scored, schema)}
    places = pl.Series(np.where(is_row, np.cumsum(is_row) - 1, -1)).replace(-1, None)
    return table.with_columns(series.gather(places).alias(name) for name, series in columns.items())


def _names(records: Sequence[LoggedRequest], is_meant: Callable[[Any], bool]) -> pl.Series:
    """Return of each request which of its withheld columns are meant; null where nothing is withheld at all."""
    if not any(record.withheld for record in records):
        return pl.Series([None], dtype=pl.List(pl.String)).new_from_index(0, len(records))
    names = [[name for name, values in record.withheld.items() if is_meant(values)] for record in records]
    return pl.Series(names, dtype=pl.List(pl.String))


def _values(records: list[LoggedRequest], schema: Schema | None) -> dict[str, pl.Series]:
    """Return what the rows of these requests hold, by column, [N]."""
    ids = [value for record in records for value in record.ids or [None] * record.n_rows]
    encode = msgspec.json.encode
    found = {"id": pl.Series([None if value is None else encode(value).decode() for value in ids], dtype=pl.String)}
    said = [value for record in records for value in record.prediction]
    if schema is None:
        flat = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in said]
        return found | {"prediction": pl.Series([str(value) for value in flat], dtype=pl.String)}
    num = np.frombuffer(b"".join(record.num for record in records), "<f8").reshape(len(ids), len(schema.num))
    for place, column in enumerate(schema.num):
        found[raw(column.name)] = pl.Series(num[:, place]).fill_nan(None)
    txt = [row for record in records for row in record.txt]
    for place, column in enumerate(schema.txt):
        found[raw(column.name)] = pl.Series([row[place] for row in txt], dtype=pl.String)
    if schema.tensor_shape is not None:
        found["tensor"] = pl.Series([row for record in records for row in _tensors(record)], dtype=pl.Binary)
    if schema.image is not None:
        none: list[str | None] = [None]
        hashes = [each for record in records for each in record.images or none * record.n_rows]
        found[IMAGE] = pl.Series(hashes, dtype=pl.String)
    for name in dict.fromkeys(name for record in records for name, values in record.withheld.items() if values):
        texts = [text for record in records for text in record.withheld.get(name) or [None] * record.n_rows]
        found[hashed(name)] = pl.Series(texts, dtype=pl.String)
    return found | _outputs(records, schema, said)


def _tensors(record: LoggedRequest) -> list[bytes | None]:
    size = len(record.tensor) // record.n_rows
    return [record.tensor[place * size : (place + 1) * size] if size else None for place in range(record.n_rows)]


def _outputs(records: list[LoggedRequest], schema: Schema, said: list[Any]) -> dict[str, pl.Series]:
    names = outputs_of(schema)
    if not schema.classes:
        numbers = np.asarray(said, dtype=np.float64).reshape(len(said), len(names))
        return {name: pl.Series(numbers[:, place]) for place, name in enumerate(names)}
    content = b"".join(record.probability for record in records)
    shares = np.frombuffer(content, "<f4").reshape(len(said), len(schema.classes))
    probabilities = {name: pl.Series(shares[:, place]) for place, name in enumerate(names[1:])}
    return {"prediction": pl.Series(said, dtype=pl.String)} | probabilities


def records_of(frame: pl.DataFrame, schema: Schema, bundle: str) -> Iterator[LoggedRequest]:
    """Yield the requests of a table that `frame_of` made by this schema."""
    lines = frame.select(*ABOUT, "dropped", "hashed").to_dicts()
    num = _array(frame, [raw(column.name) for column in schema.num], np.dtype("<f8"))
    txt = frame.select([raw(column.name) for column in schema.txt]).rows() if schema.txt else []
    tensor = frame["tensor"].to_list() if "tensor" in frame.columns else []
    images = frame[IMAGE].to_list() if IMAGE in frame.columns else []
    names = outputs_of(schema)
    is_scored = schema.columns or schema.tensor_shape  # else of requests without rows: there is no prediction
    said = frame["prediction"].to_list() if schema.classes or not is_scored else _numbers(frame, names)
    shares = _array(frame, names[1:], np.dtype("<f4")) if schema.classes else np.empty((frame.height, 0), "<f4")
    ids = [None if text is None else msgspec.json.decode(text) for text in frame["id"].to_list()]
    texts = {name.removeprefix("hash:"): frame[name].to_list() for name in frame.columns if name.startswith("hash:")}
    start = 0
    while start < frame.height:
        line = lines[start]
        n_rows = line["n_rows"]
        end = start + n_rows
        withheld: dict[str, list[str | None] | None] = dict.fromkeys(line.pop("dropped") or ())
        withheld |= {name: texts.get(name, [None] * frame.height)[start:end] for name in line.pop("hashed") or ()}
        yield LoggedRequest(
            **line,
            bundle=bundle,
            num=num[start:end].tobytes(),
            txt=[list(row) for row in txt[start:end]],
            tensor=b"".join(row for row in tensor[start:end] if row is not None),
            images=[each for each in images[start:end] if each is not None],
            ids=ids[start:end] if any(value is not None for value in ids[start:end]) else None,
            prediction=said[start:end],
            probability=shares[start:end].tobytes(),
            withheld=withheld,
        )
        start = max(end, start + 1)


def _numbers(frame: pl.DataFrame, names: list[str]) -> list[Any]:
    return list(_array(frame, names, np.dtype("<f8")).tolist())


def _array(frame: pl.DataFrame, names: list[str], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return columns as an array [N, k]; null is NaN."""
    if not names:
        return np.empty((frame.height, 0), dtype)
    return np.column_stack([frame[name].fill_null(np.nan).to_numpy() for name in names]).astype(dtype, copy=False)
