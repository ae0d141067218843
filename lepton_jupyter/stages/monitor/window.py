"""The requests of a while, read from an endpoint's log: what a report looks at."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import unknown
from lepton_jupyter.core.paths import EndpointFolder, Home
from lepton_jupyter.formats.bundle import PREDICTED, PROFILE, Bundle, open_bundle
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.profile import Profile
from lepton_jupyter.formats.requestlog import LoggedRequest
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema
from lepton_jupyter.stages.deploy.requests import reading
from lepton_jupyter.stages.deploy.requests.frames import row_ids, typed
from lepton_jupyter.stages.deploy.requests.reading import Schemas
from lepton_jupyter.stages.monitor.labels import labels_of

SETTLE_S = 1.0  # the endpoint writes its log a moment after its answers

_SAME = ("task", "classes", "targets", "tensor_shape")


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
        ``at``, ``request_id``, ``version``, ``latency_ms``, ``rows``, ``weight``, ``status``, ``error``; oldest first.
        The weight is how many requests one stands for where a share of all is logged.
    reference, predicted : Profile or None
        Of the rows in training, and of what the version says of known rows; None where the version has none.
    n_other : int
        Scored rows of an earlier version with other columns: counted as traffic, compared with nothing.
    withheld : frozenset of str
        Columns of personal values that the log has not, of some rows at least: compared with nothing.
    pseudonyms : dict
        [N] what the log has in place of such values; None where it has nothing.
    log_share : float
        Share of the requests that are logged now, 0–1.
    labels : polars.DataFrame
        ``label`` (of several targets ``label_TARGET``): what feedback said of the rows, [N], null where nothing.
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
    withheld: frozenset[str] = frozenset()
    pseudonyms: dict[str, list[str | None]] = field(default_factory=dict)
    log_share: float = 1.0
    labels: pl.DataFrame = field(default_factory=pl.DataFrame)

    def __repr__(self) -> str:
        return f"<window of {self.endpoint}: {self.n_rows:,} rows in {self.requests.height:,} requests>"

    @property
    def n_rows(self) -> int:
        """Scored rows, those of versions with other columns left out."""
        return len(self.request)

    @cached_property
    def rows(self) -> pl.DataFrame:
        """One line a row: ``at``, ``request_id``, ``row_id``, ``version``, ``id``, the raw columns, ``prediction``, …

        Behind it are the probabilities, and the labels where feedback gave some. Of personal columns pseudonyms are
        there, or nothing. A column of the data that bears one of these names is found under ``NAME_in``.
        """
        asked = self.requests[self.request.astype(np.uint32)] if self.n_rows else self.requests.clear()
        ours = {
            "at": asked["at"],
            "request_id": asked["request_id"],
            "row_id": self.row_ids,
            "version": asked["version"],
        }
        ours["id"] = _series_of_ids(self.ids)
        columns = {column.name: self._column(column) for column in self.schema.columns}
        theirs = _outputs_table(self.schema, self.outputs)
        theirs |= {name: self.labels[name] for name in self.labels.columns}
        taken = {*ours, *theirs}
        named = {f"{name}_in" if name in taken else name: series for name, series in columns.items()}
        return pl.DataFrame({name: series.alias(name) for name, series in (ours | named | theirs).items()})

    @property
    def row_ids(self) -> pl.Series:
        """What each row goes by where it has no id of its own: ``REQUEST_ID/INDEX``, [N]."""
        first = np.searchsorted(self.request, self.request)  # a request's rows lie together
        asked = self.requests["request_id"].gather(self.request.astype(np.uint32))
        return row_ids(asked, pl.Series(np.arange(self.n_rows) - first))

    def _column(self, column: Column) -> pl.Series:
        if column.name in self.pseudonyms:
            return pl.Series(self.pseudonyms[column.name], dtype=pl.String)
        if column.is_text:
            values = self.packed.txt[:, [one.name for one in self.schema.txt].index(column.name)]
            return pl.Series([None if value == SENTINEL else value for value in values], dtype=pl.String)
        place = [one.name for one in self.schema.num].index(column.name)
        return typed(column, pl.Series(self.packed.num[:, place]))


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
    config = config_of(home, folder)
    bundle = open_bundle(Path(config.bundle), config.manifest_hash)
    time.sleep(min(SETTLE_S, max(0.0, end + SETTLE_S - time.time())))
    records = read_log(folder.requests, start, end, bundles=bundle.root.parent)
    window = of_records(records, bundle=bundle, endpoint=endpoint, version=config.version, start=start, end=end)
    return replace(
        window,
        labels=labels_of(folder.labels, bundle.schema, window.row_ids, window.ids),
        log_share=1.0 if config.options.log_share is None else config.options.log_share,
    )


def read_log(folder: Path, start: float, end: float, *, bundles: Path | None = None) -> list[LoggedRequest]:
    """Return the requests of a log with ``start <= at < end``, oldest first; not what shadows say.

    Without the folder of the bundles, requests that have become tables are passed over.
    """
    schemas = Schemas(bundles) if bundles is not None else None
    return sorted(reading.read_log(folder, start, end, schema_of=schemas), key=lambda record: record.at)


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
        withheld=frozenset(name for _, record in taken for name in record.withheld),
        pseudonyms=_pseudonyms([record for _, record in taken]),
    )


def _pseudonyms(records: list[LoggedRequest]) -> dict[str, list[str | None]]:
    names = {name for record in records for name, values in record.withheld.items() if values is not None}
    return {
        name: [text for record in records for text in record.withheld.get(name) or [None] * record.n_rows]
        for name in sorted(names)
    }


class _Reading:
    """Columns of logged rows as one schema names them, whichever version answered."""

    def __init__(self, schema: Schema, root: Path) -> None:
        self.schema = schema
        self._schema_of = Schemas(root.parent, schema)

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
            "weight": [1 / record.share if record.share > 0 else 1.0 for record in records],
            "status": [record.status for record in records],
            "error": [record.error for record in records],
        },
        schema={
            "at": pl.Float64,
            "request_id": pl.String,
            "version": pl.String,
            "latency_ms": pl.Float64,
            "rows": pl.Int64,
            "weight": pl.Float64,
            "status": pl.Int64,
            "error": pl.String,
        },
    )


def _profile(bundle: Bundle, name: str) -> Profile | None:
    return msgspec.json.decode(bundle.read(name), type=Profile) if bundle.has(name) else None


def config_of(home: Home, folder: EndpointFolder) -> EndpointConfig:
    """Return what an endpoint shall serve.

    Raises
    ------
    LeptonError
        If there is no such endpoint; the message lists the known ones.
    """
    try:
        return msgspec.json.decode(folder.config.read_bytes(), type=EndpointConfig)
    except FileNotFoundError as error:
        known = sorted(path.parent.name for path in home.endpoints.glob("*/endpoint.json"))
        raise unknown("endpoint", folder.name, known, "Make one: %lepton deploy MODEL --as NAME.") from error
