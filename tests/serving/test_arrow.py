"""Tables of Arrow IPC: answered as the same rows in JSON, and no hostile one gets further than its refusal."""

from __future__ import annotations

import datetime
import io
import random
from types import SimpleNamespace
from typing import Any

import polars as pl
import psutil
import pyarrow as pa
import pytest

from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.packing import Packed, pack_rows
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema
from lepton_jupyter.serving import arrow, content
from lepton_jupyter.serving.answers import HttpError
from lepton_jupyter.serving.release import Release, take
from tests.serving.graphs import ROW, Server, make_bundle

STREAM = "application/vnd.apache.arrow.stream"
ROWS: list[dict[str, Any]] = [
    {"patient": "a", "age": 50.5, "island": "Dream", "children": 2},
    {"patient": "b", "age": None, "island": None, "children": 0},
    {"patient": "c", "age": 8.0, "island": "Elsewhere", "children": None},
]
KINDS = Schema(
    columns=(
        Column(name="x", kind="number"),
        Column(name="n", kind="integer"),
        Column(name="yes", kind="boolean"),
        Column(name="day", kind="datetime"),
        Column(name="word", kind="string"),
        Column(name="prose", kind="text"),
    )
)
MOMENT = datetime.datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=datetime.UTC)
VALUES: list[dict[str, Any]] = [
    {"x": 0.25, "n": 3, "yes": True, "day": MOMENT, "word": "ä", "prose": "of many words"},
    {"x": None, "n": None, "yes": None, "day": None, "word": None, "prose": None},
    {
        "x": -1e300,
        "n": -(2**53),
        "yes": False,
        "day": datetime.datetime(1969, 1, 1, tzinfo=datetime.UTC),
        "word": "",
        "prose": "",
    },
]
TYPES = {
    "x": [pa.float64(), pa.decimal128(20, 2)],
    "n": [pa.int64(), pa.float64()],
    "yes": [pa.bool_()],
    "day": [pa.timestamp("ms"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("ns", "UTC")],
    "prose": [pa.string(), pa.string_view()],
    "word": [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
}


def stream(table: pa.Table, n_rows: int = 2, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=n_rows)
    return sink.getvalue()


def ask(server: Server, body: bytes, kind: str = STREAM) -> tuple[int, Any]:
    return server.ask("POST", "/predict", body, headers={"Content-Type": kind})


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    bundle = make_bundle(tmp_path_factory.mktemp("arrow") / "bundle")
    config = EndpointConfig(
        name="e", release=1, model="Net", version="Net@1", bundle=str(bundle.root), manifest_hash=bundle.manifest_hash,
        port=0, token_hashes=(), max_rows=1000, max_body_bytes=2**20,
    )  # fmt: skip
    return take(config, []).live


def refusal(release: Release, body: bytes) -> HttpError:
    with pytest.raises(HttpError) as caught:
        arrow.read(release, body)
    return caught.value


# -- what is answered


@pytest.mark.slow
@pytest.mark.parametrize("route", ["/predict", "/invocations"])
def test_a_table_is_answered_as_its_rows_are_in_json(server: Server, route: str) -> None:
    for body, kind in (
        (stream(pa.Table.from_pylist(ROWS)), STREAM),
        (_written(pl.DataFrame(ROWS).write_ipc_stream), STREAM),
        (stream(pa.Table.from_pylist(ROWS)), "Application/vnd.apache.arrow.stream; charset=binary"),
    ):
        status, answer = server.ask("POST", route, body, headers={"Content-Type": kind})
        assert status == 200, answer
        assert answer["predictions"] == server.predict(ROWS)["predictions"]


def _written(write: Any) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


@pytest.mark.parametrize("place", range(4))
def test_every_type_that_fits_its_column_reads_as_json_does(release: Release, place: int) -> None:
    other: Any = SimpleNamespace(schema=KINDS, config=release.config)
    columns = {}
    for name, types in TYPES.items():
        given = [row[name] for row in VALUES]
        kind = types[place % len(types)]
        if pa.types.is_decimal(kind):
            given = [None if value is None else round(value / 1e300, 2) for value in given]
        columns[name] = pa.array(given).cast(kind)
    told = [
        dict(zip(columns, row, strict=True)) for row in zip(*(c.to_pylist() for c in columns.values()), strict=True)
    ]
    told = [row | {"x": None if row["x"] is None else float(row["x"])} for row in told]
    found = arrow.read(other, stream(pa.table(columns))).rows
    wanted = pack_rows(KINDS, told)
    assert found.num.tobytes() == wanted.num.tobytes()
    assert found.txt.tolist() == wanted.txt.tolist()


def test_prose_has_its_limit_here_too(release: Release) -> None:
    prose: Any = SimpleNamespace(schema=Schema(columns=(Column(name="p", kind="text"),)), config=release.config)
    error = refusal(prose, stream(pa.table({"p": ["short", "x" * 100_001]})))
    assert (error.status, error.error.message[:18]) == (422, "Row 1, column 'p':")


def test_columns_without_a_value_and_tables_without_a_row_are_taken(release: Release) -> None:
    nothing = pa.table({"age": pa.nulls(2), "island": pa.nulls(2), "children": pa.nulls(2)})
    found = arrow.read(release, stream(nothing)).rows
    assert found.txt.tolist() == [[SENTINEL]] * 2
    assert arrow.read(release, stream(nothing.slice(0, 0))).rows.num.shape == (0, 2)


def test_without_pyarrow_the_type_is_refused_with_the_known_ones(release: Release) -> None:
    without = {kind: read for kind, read in content.READERS["/predict"].items() if kind != arrow.STREAM}
    with pytest.raises(HttpError) as caught:
        content.reader({b"content-type": STREAM.encode()}, without)
    assert caught.value.status == 415
    assert "Known: application/json, text/csv" in caught.value.error.hint


# -- what is refused


@pytest.mark.parametrize(
    ("table", "status", "said"),
    [
        ({"age": [1.0], "island": ["Dream"]}, 422, "Column 'children': the column is missing"),
        ({**{k: [v] for k, v in ROW.items()}, "agee": [1]}, 422, "Did you mean 'age'?"),
        ({"age": ["old"], "island": ["Dream"], "children": [1]}, 422, "string is given; numbers are wanted"),
        ({"age": [1.0], "island": [7], "children": [1]}, 422, "int64 is given; texts are wanted"),
        ({"age": [1.0], "island": ["Dream"], "children": [True]}, 422, "bool is given; whole numbers are wanted"),
        ({"age": [[1.0]], "island": ["Dream"], "children": [1]}, 422, "list"),
        ({"age": [float("inf")], "island": ["Dream"], "children": [1]}, 422, "Row 0, column 'age'"),
        ({"age": [1.0, 1.0], "island": ["", ""], "children": [1.0, 2.5]}, 422, "Row 1, column 'children': 2.5"),
        ({"age": [1.0], "island": [SENTINEL], "children": [1]}, 422, "reserved for missing values; send null"),
        ({**{k: [v] for k, v in ROW.items()}, "patient": [[1]]}, 422, "an id is text or a number"),
        ({"age": [1.0] * 1001, "island": ["a"] * 1001, "children": [1] * 1001}, 413, "at most 1000"),
    ],
)
def test_tables_that_do_not_fit_are_refused_by_row_and_column(
    release: Release, table: dict[str, Any], status: int, said: str
) -> None:
    error = refusal(release, stream(pa.table(table)))
    assert error.status == status
    assert said in error.error.message


def test_text_that_unfolds_beyond_the_limit_is_refused(release: Release) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 900, pa.int32()), pa.array(["x" * 2**19]))
    numbers = {"age": [1.0] * 900, "children": [1] * 900}
    assert refusal(release, stream(pa.table({"island": words, **numbers}))).status == 413
    one = pa.array(["x" * 2**19], pa.string_view()).buffers()
    views = pa.Array.from_buffers(pa.string_view(), 900, [None, pa.py_buffer(one[1].to_pybytes()[:16] * 900), one[2]])
    body = stream(pa.table({"island": views, **numbers}), n_rows=900)
    assert len(body) < 2**20
    assert refusal(release, body).status == 413


def test_a_dictionary_as_large_as_its_indices_allow_has_missing_values_beside_it(release: Release) -> None:
    texts = [f"word {place}" for place in range(128)]
    given = pa.array([*texts, None]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
    table = pa.table({"age": [1.0] * 129, "island": given, "children": [1] * 129})
    found = arrow.read(release, stream(table, n_rows=129)).rows
    assert isinstance(found, Packed) and found.txt[:, 0].tolist() == [*texts, SENTINEL]


def test_dictionaries_that_grow_are_refused(release: Release) -> None:
    parts = [["Dream"], ["Dream", "Biscoe"]]
    batches = [
        pa.record_batch({"age": [1.0], "island": pa.DictionaryArray.from_arrays([place], words), "children": [1]})
        for place, words in enumerate(parts)
    ]
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    error = refusal(release, sink.getvalue())
    assert (error.status, error.error.hint) == (415, "Send each of them whole.")


def test_compressed_buffers_are_refused_before_they_unfold(release: Release) -> None:
    table = pa.table({"age": [0.0] * 900, "island": ["Dream"] * 900, "children": [1] * 900})
    for codec in ("lz4", "zstd"):
        error = refusal(release, stream(table, compression=codec))
        assert error.status == 415
        assert "compress the body as gzip" in error.error.hint


def test_damaged_tables_are_refused_and_never_crash(release: Release) -> None:
    table = pa.table({"age": [1.0, 2.0], "island": ["Dream", None], "children": [1, 2], "patient": ["a", "b"]})
    words = table.set_column(1, "island", table["island"].dictionary_encode())
    draw = random.Random(0)
    refused = 0
    for body in (stream(table), stream(words)):
        for _ in range(1500):
            damaged = bytearray(body)
            for _ in range(draw.choice((1, 1, 2, 8))):
                damaged[draw.randrange(len(damaged))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
            cut = bytes(damaged[: draw.randrange(len(damaged))] if draw.random() < 0.1 else damaged)
            refused += _is_refused(release, cut)
    assert refused > 500
    for body in (b"", b"ARROW1\0\0", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"{}"):
        assert refusal(release, body).status in (400, 415)


def _is_refused(release: Release, body: bytes) -> bool:
    try:
        arrow.read(release, body)
    except HttpError as error:
        return error.status in (400, 413, 415, 422)
    return False


@pytest.mark.slow
def test_tables_leave_nothing_behind(server: Server) -> None:
    assert server.process is not None
    assert ask(server, stream(pa.Table.from_pylist(ROWS)))[0] == 200
    before = psutil.Process(server.process.pid).memory_info().rss
    for _ in range(50):
        assert ask(server, stream(pa.Table.from_pylist(ROWS)))[0] == 200
    assert psutil.Process(server.process.pid).memory_info().rss < before + 20e6


def test_a_model_of_tensors_takes_no_tables(release: Release) -> None:
    of_tensors: Any = SimpleNamespace(schema=Schema(columns=(), tensor_shape=(2, 2)), config=release.config)
    error = refusal(of_tensors, stream(pa.Table.from_pylist(ROWS)))
    assert (error.status, error.error.hint) == (415, "Each row is an array of shape [2, 2].")
