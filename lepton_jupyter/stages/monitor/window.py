"""The requests of a while, read from an endpoint's log: what a report looks at."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.paths import EndpointFolder, Home
from lepton_jupyter.formats.bundle import PREDICTED, PROFILE, Bundle, open_bundle
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.profile import Profile
from lepton_jupyter.formats.requestlog import LoggedRequest, read_segment, segments
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema

SETTLE_S = 1.0  # the endpoint writes its log a moment after its answers

_SAME = ("task", "classes", "targets", "tensor_shape")
_CASTS: dict[str, Any] = {"integer": pl.Int64, "boolean": pl.Boolean}


@dataclass(frozen=True, kw_only=True)
class MonitorWindow:
    """What was asked of an endpoint between two moments, and what it was trained on.

    Attributes
    ----------
    endpoint : str
    version : str
        What it serves now: its columns, and its training, are what the window is compared with.
    start, end : float
        Seconds since 1970, UTC; start is inside, end is not.
    schema : Schema
    packed : Packed
        The rows that were scored, oldest first: ``num`` float64 [N, k], ``txt`` [N, m], by `schema`.
    outputs : tuple
        The predictions [N]: labels as text, or float64 [N, T]; and the probabilities, float32 [N, K], or None.
    request : NDArray
        Each row's place in `requests`, int64 [N].
    ids : list
        [N] what the id column held; None where it held nothing.
    requests : polars.DataFrame
        ``at``, ``request_id``, ``version``, ``latency_ms``, ``rows``, ``status``, ``error``; oldest first.
    reference, predicted : Profile or None
        Of the rows in training, and of what the version says of known rows; None where the version has none.
    n_other : int
        Scored rows of an earlier version with other columns: counted as traffic, compared with nothing.
    """

    endpoint: str
    version: str
    start: float
    end: float
    schema: Schema
    packed: Packed
    outputs: tuple[NDArray[Any], NDArray[np.float32] | None]
    request: NDArray[np.int64]
    ids: list[Any]
    requests: pl.DataFrame
    reference: Profile | None = None
    predicted: Profile | None = None
    n_other: int = 0

    def __repr__(self) -> str:
        return f"<window of {self.endpoint}: {self.n_rows:,} rows in {self.requests.height:,} requests>"

    @property
    def n_rows(self) -> int:
        """Scored rows, those of versions with other columns left out."""
        return len(self.request)

    @cached_property
    def rows(self) -> pl.DataFrame:
        """One line a row: ``at``, ``request_id``, ``version``, ``id``, the raw columns, ``prediction``, probabilities.

        A column of the data that bears one of these names is found under ``NAME_in``.
        """
        asked = self.requests[self.request.astype(np.uint32)] if self.n_rows else self.requests.clear()
        ours: dict[str, pl.Series] = {name: asked[name] for name in ("at", "request_id", "version")}
        ours["id"] = _series_of_ids(self.ids)
        columns = {column.name: self._column(column) for column in self.schema.columns}
        theirs = _outputs_table(self.schema, self.outputs)
        taken = {*ours, *theirs}
        named = {f"{name}_in" if name in taken else name: series for name, series in columns.items()}
        return pl.DataFrame({name: series.alias(name) for name, series in (ours | named | theirs).items()})

    def _column(self, column: Column) -> pl.Series:
        if column.is_text:
            values = self.packed.txt[:, [one.name for one in self.schema.txt].index(column.name)]
            return pl.Series([None if value == SENTINEL else value for value in values], dtype=pl.String)
        place = [one.name for one in self.schema.num].index(column.name)
        series = pl.Series(self.packed.num[:, place]).fill_nan(None)
        if column.kind == "datetime":
            return (series * 1e6).cast(pl.Int64).cast(pl.Datetime("us", "UTC"))
        return series.cast(_CASTS[column.kind], strict=False) if column.kind in _CASTS else series


def read_window(home: Home, endpoint: str, start: float, end: float) -> MonitorWindow:
    """Read what an endpoint logged between two moments.

    Parameters
    ----------
    home : Home
    endpoint : str
    start, end : float
        Seconds since 1970, UTC. Of a moment that has just passed, waits until the log has it.

    Raises
    ------
    LeptonError
        If there is no such endpoint, or the bundle that it serves is gone.
    """
    folder = home.endpoint(endpoint)
    config = _config(home, folder)
    bundle = open_bundle(Path(config.bundle), config.manifest_hash)
    time.sleep(min(SETTLE_S, max(0.0, end + SETTLE_S - time.time())))
    records = read_log(folder.requests, start, end)
    return of_records(records, bundle=bundle, endpoint=endpoint, version=config.version, start=start, end=end)


def read_log(folder: Path, start: float, end: float) -> list[LoggedRequest]:
    """Return the requests in a folder of segments with ``start <= at < end``, oldest first; not what shadows say."""
    found: list[LoggedRequest] = []
    for path in segments(folder):
        try:
            if path.stat().st_mtime < start:
                continue
            records = (record for _, record in read_segment(path))
            found += [record for record in records if start <= record.at < end and not record.is_shadow]
        except FileNotFoundError:  # the oldest goes when there are too many
            continue
    return sorted(found, key=lambda record: record.at)


def of_records(
    records: list[LoggedRequest], *, bundle: Bundle, endpoint: str, version: str, start: float, end: float
) -> MonitorWindow:
    """Return the window of these requests, beside what the bundle says of training."""
    schema = bundle.schema
    reading = _Reading(schema, bundle.root)
    taken = [(place, record) for place, record in enumerate(records) if record.n_rows and reading.fits(record)]
    nums = [reading.num(record) for _, record in taken]
    txts = [reading.txt(record) for _, record in taken]
    n_scored = sum(record.n_rows for record in records)
    n_rows = sum(record.n_rows for _, record in taken)
    return MonitorWindow(
        endpoint=endpoint,
        version=version,
        start=start,
        end=end,
        schema=schema,
        packed=Packed(
            np.concatenate(nums) if nums else np.empty((0, len(schema.num))),
            np.concatenate(txts) if txts else np.empty((0, len(schema.txt)), dtype=object),
        ),
        outputs=_outputs(schema, [record for _, record in taken]),
        request=np.repeat([place for place, _ in taken], [record.n_rows for _, record in taken]).astype(np.int64),
        ids=[value for _, record in taken for value in record.ids or [None] * record.n_rows],
        requests=_requests(records),
        reference=_profile(bundle, PROFILE),
        predicted=_profile(bundle, PREDICTED),
        n_other=n_scored - n_rows,
    )


class _Reading:
    """Columns of logged rows as one schema names them, whichever version answered."""

    def __init__(self, schema: Schema, root: Path) -> None:
        self.schema = schema
        self.root = root
        self._schemas: dict[str, Schema | None] = {"": schema, root.name: schema}

    def fits(self, record: LoggedRequest) -> bool:
        theirs = self._schema_of(record.bundle)
        if theirs is None or len(record.num) != 8 * record.n_rows * len(theirs.num):
            return False
        if any(getattr(theirs, name) != getattr(self.schema, name) for name in _SAME):
            return False
        kinds = {column.name: column.kind for column in theirs.columns}
        return all(kinds.get(column.name) == column.kind for column in self.schema.columns)

    def num(self, record: LoggedRequest) -> NDArray[np.float64]:
        theirs = self._schema_of(record.bundle) or self.schema
        names = [column.name for column in theirs.num]
        values = np.frombuffer(record.num, "<f8").reshape(record.n_rows, len(names))
        return values[:, [names.index(column.name) for column in self.schema.num]]

    def txt(self, record: LoggedRequest) -> NDArray[np.object_]:
        theirs = self._schema_of(record.bundle) or self.schema
        names = [column.name for column in theirs.txt]
        values = np.empty((record.n_rows, len(self.schema.txt)), dtype=object)
        for place, column in enumerate(self.schema.txt):
            at = names.index(column.name)
            values[:, place] = [SENTINEL if row[at] is None else row[at] for row in record.txt]
        return values

    def _schema_of(self, bundle: str) -> Schema | None:
        if bundle not in self._schemas:
            try:
                self._schemas[bundle] = open_bundle(self.root.with_name(bundle)).schema
            except LeptonError:  # deleted since: what its rows were called is not known
                self._schemas[bundle] = None
        return self._schemas[bundle]


def _outputs(schema: Schema, records: list[LoggedRequest]) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    said = [value for record in records for value in record.prediction]
    if schema.task == "regression" or (schema.task is None and not schema.classes):
        width = max(1, len(schema.targets))
        return np.asarray(said, dtype=np.float64).reshape(len(said), width if not said else -1), None
    probability = b"".join(record.probability for record in records)
    shares = np.frombuffer(probability, "<f4").reshape(-1, len(schema.classes))
    return np.asarray(said, dtype=object), shares


def _outputs_table(schema: Schema, outputs: tuple[NDArray[Any], NDArray[np.float32] | None]) -> dict[str, pl.Series]:
    prediction, probability = outputs
    if probability is None:
        names = [f"prediction_{target}" for target in schema.targets] if len(schema.targets) > 1 else ["prediction"]
        return {name: pl.Series(prediction[:, place]) for place, name in enumerate(names)}
    table = {"prediction": pl.Series(prediction.tolist(), dtype=pl.String)}
    return table | {
        f"probability_{label}": pl.Series(probability[:, place]) for place, label in enumerate(schema.classes)
    }


def _series_of_ids(ids: list[Any]) -> pl.Series:
    return pl.Series(ids, strict=False) if len({type(value) for value in ids if value is not None}) <= 1 else pl.Series(
        [None if value is None else str(value) for value in ids], dtype=pl.String
    )  # fmt: skip


def _requests(records: list[LoggedRequest]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "at": [record.at for record in records],
            "request_id": [record.request_id for record in records],
            "version": [record.version for record in records],
            "latency_ms": [record.latency_ms for record in records],
            "rows": [record.n_rows for record in records],
            "status": [record.status for record in records],
            "error": [record.error for record in records],
        },
        schema={
            "at": pl.Float64,
            "request_id": pl.String,
            "version": pl.String,
            "latency_ms": pl.Float64,
            "rows": pl.Int64,
            "status": pl.Int64,
            "error": pl.String,
        },
    )


def _profile(bundle: Bundle, name: str) -> Profile | None:
    return msgspec.json.decode(bundle.read(name), type=Profile) if bundle.has(name) else None


def _config(home: Home, folder: EndpointFolder) -> EndpointConfig:
    try:
        return msgspec.json.decode(folder.config.read_bytes(), type=EndpointConfig)
    except FileNotFoundError as error:
        known = sorted(path.parent.name for path in home.endpoints.glob("*/endpoint.json"))
        raise unknown("endpoint", folder.name, known, "Make one: %lepton deploy MODEL --as NAME.") from error
