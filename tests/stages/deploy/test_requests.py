"""Segments of the request log become tables, and every reader has each request once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.cli import main
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.packing import Packed, pack_rows
from lepton_jupyter.formats.requestlog import LoggedRequest, SegmentWriter, is_closed, segments, tables
from lepton_jupyter.formats.retention import Keep, removed
from lepton_jupyter.formats.schema import Column, ImageInput, Schema
from lepton_jupyter.stages.deploy.requests import closing
from lepton_jupyter.stages.deploy.requests.closing import keep_up
from lepton_jupyter.stages.deploy.requests.export import Asked, Written, export
from lepton_jupyter.stages.deploy.requests.reading import read_chunks, read_log
from tests.serving.graphs import ROW, SCHEMA_BINARY, make_bundle

SCHEMA = Schema(
    columns=(
        Column(name="age", kind="number"), Column(name="island", kind="string"),
        Column(name="children", kind="integer"), Column(name="seen", kind="datetime"),
        Column(name="at", kind="boolean"),
    ),
    targets=("sick",), task="binary", classes=("no", "yes"), positive="yes", id_column="patient",
)  # fmt: skip
NUMBERS = Schema(columns=(Column(name="age", kind="string"),), targets=("low", "high"), task="regression")
TENSOR = Schema(columns=(), targets=("y",), task="regression", tensor_shape=(2, 2))
IMAGES = msgspec.structs.replace(TENSOR, tensor_shape=(1, 2, 2), image=ImageInput(height=2, width=2, channels=1))
SCHEMAS = {"one": SCHEMA, "two": NUMBERS, "three": TENSOR, "four": IMAGES}
ALWAYS = (0.0, 2e10)


def answered(number: int, n_rows: int = 2, **more: Any) -> LoggedRequest:
    """Return a request of the first bundle."""
    rows = [
        {"age": number + 0.1 if place else None, "island": "Dream" if place else None, "children": 2**60, "seen": 1e9,
         "at": True}
        for place in range(n_rows)
    ]  # fmt: skip
    said: dict[str, Any] = {
        "request_id": f"r{number}", "at": 1000.0 + number, "version": "Net@1", "latency_ms": 0.5, "bundle": "one",
        "ids": [number, "x", None, 2.5][:n_rows], "prediction": ["yes", "no"] * (n_rows // 2) + ["no"] * (n_rows % 2),
        "probability": np.linspace(0, 1, 2 * n_rows).astype("<f4").tobytes(),
    }  # fmt: skip
    return LoggedRequest.of_rows(pack_rows(SCHEMA, rows), **(said | more))


def refused(number: int) -> LoggedRequest:
    """Return a request that was refused."""
    return LoggedRequest(
        request_id=f"r{number}",
        at=1000.0 + number,
        version="Net@1",
        latency_ms=0.1,
        n_rows=0,
        status=422,
        error="no age",
    )


def others() -> list[LoggedRequest]:
    """Return requests of bundles with other columns."""
    rows = Packed(np.empty((1, 0)), np.array([["old"]], dtype=object))
    tensor = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    about: dict[str, Any] = {"version": "Net@2", "latency_ms": 0.5}
    return [
        LoggedRequest.of_rows(rows, request_id="n", at=2000.0, bundle="two", prediction=[[1.5, 2.5]], **about),
        LoggedRequest.of_rows(tensor, request_id="t", at=2001.0, bundle="three", prediction=[[1.0], [2.0]], **about),
        LoggedRequest(request_id="w", at=2002.0, bundle="three", n_rows=1, prediction=[[3.0]],
                      withheld={"tensor": None}, **about),
        LoggedRequest.of_rows(tensor[:, None].astype(np.uint8), request_id="i", at=2010.0, bundle="four",
                              prediction=[[1.0], [2.0]], images=["ab", "cd"], **about),
        answered(1003, withheld={"island": ["a1", None], "age": None}, share=0.25),
        answered(1004, is_shadow=True),
        answered(1005, n_rows=0, ids=None, prediction=[], probability=b"", bundle=""),
    ]  # fmt: skip


def write(folder: Path, records: list[LoggedRequest]) -> None:
    """Write one segment."""
    writer = SegmentWriter(folder)
    assert all(writer.write(record) for record in records)
    writer.close()


def read(folder: Path) -> list[LoggedRequest]:
    """Return every request, shadows' too, oldest first."""
    found = read_log(folder, *ALWAYS, schema_of=SCHEMAS.get, has_shadow=True)
    return sorted(found, key=lambda record: record.at)


def test_what_a_table_gives_back_is_what_the_segment_held(tmp_path: Path) -> None:
    write(tmp_path, [answered(0), refused(1), answered(2, n_rows=3), *others()])
    before = read(tmp_path)
    assert keep_up(tmp_path, SCHEMAS.get, Keep()) == 1
    assert not segments(tmp_path)
    assert {path.name[11:] for path in tables(tmp_path)} == {
        "one.parquet", "two.parquet", "three.parquet", "four.parquet", "no-rows.parquet",
    }  # fmt: skip
    assert read(tmp_path) == before
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tables(tmp_path))


def test_a_segment_that_is_written_to_stays_whoever_writes(tmp_path: Path) -> None:
    ours, theirs = SegmentWriter(tmp_path), SegmentWriter(tmp_path)
    assert ours.write(answered(0)) and theirs.write(answered(1))
    assert len(segments(tmp_path)) == 2 and not any(map(is_closed, segments(tmp_path)))
    assert keep_up(tmp_path, SCHEMAS.get, Keep()) == 0
    ours.close()
    assert keep_up(tmp_path, SCHEMAS.get, Keep()) == 1
    assert [record.request_id for record in read(tmp_path)] == ["r0", "r1"]
    theirs.close()


def test_a_segment_of_a_bundle_that_nobody_knows_stays_and_is_read(tmp_path: Path) -> None:
    write(tmp_path, [answered(0), answered(1, bundle="gone")])
    assert keep_up(tmp_path, SCHEMAS.get, Keep()) == 0
    assert [record.request_id for record in read(tmp_path)] == ["r0", "r1"]
    assert not list((tmp_path / "tables").glob("*.parquet*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from lepton_jupyter.stages.deploy.requests import closing
from tests.stages.deploy.test_requests import SCHEMAS

def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def second(self, *args, real=Path.replace):
    Path.replace = end
    return real(self, *args)

step, folder = sys.argv[1], Path(sys.argv[2])
if step == "write":
    closing.os.utime = end
elif step == "rename":
    Path.replace = second
else:
    Path.unlink = end
closing.turn(closing.segments(folder)[0], SCHEMAS.get)
"""


@pytest.mark.parametrize("step", ["write", "rename", "unlink"])
def test_one_that_is_killed_on_the_way_loses_and_doubles_nothing(tmp_path: Path, step: str) -> None:
    write(tmp_path, [answered(0), refused(1), *others()])
    (tmp_path / "tables").mkdir()
    before = read(tmp_path)
    ended = subprocess.run([sys.executable, "-c", KILLED, step, str(tmp_path)], timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert segments(tmp_path) and read(tmp_path) == before
    assert keep_up(tmp_path, SCHEMAS.get, Keep()) == 1
    assert not segments(tmp_path) and read(tmp_path) == before
    assert not list((tmp_path / "tables").glob("*.tmp"))


def test_a_reader_that_listed_a_segment_finds_it_in_its_tables(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path, [answered(number)])
    reader = read_log(tmp_path, *ALWAYS, schema_of=SCHEMAS.get)
    found = [next(reader).request_id]
    assert keep_up(tmp_path, SCHEMAS.get, Keep()) == 6
    assert found + [record.request_id for record in reader] == [f"r{number}" for number in range(6)]


def test_the_oldest_go_by_size_and_by_age_and_are_counted(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path, [answered(number), refused(100 + number), answered(200 + number, is_shadow=True)])
    for place, path in enumerate(segments(tmp_path)):
        os.utime(path, (1e9 + place, 1e9 + place))
    size = segments(tmp_path)[0].stat().st_size
    keep_up(tmp_path, SCHEMAS.get, Keep(age_s=1e12, size_bytes=10**9))
    assert len(tables(tmp_path)) == 12 and removed(tmp_path).n_requests == 0
    tables_of_one = sum(path.stat().st_size for path in tables(tmp_path)[:2])
    keep_up(tmp_path, SCHEMAS.get, Keep(age_s=1e12, size_bytes=6 * tables_of_one))
    gone = removed(tmp_path)
    assert (gone.n_requests, gone.n_rows) == (2 * gone.n_rows // 2, gone.n_rows) and gone.n_requests > 0
    kept = [record for record in read(tmp_path) if not record.is_shadow]
    assert len(kept) + gone.n_requests == 12 and size > 0
    assert min(record.at % 100 for record in kept) > 0  # the oldest went first
    keep_up(tmp_path, SCHEMAS.get, Keep(age_s=60.0, size_bytes=10**9))
    assert not tables(tmp_path) and removed(tmp_path).n_requests == 12
    assert removed(tmp_path).until == pytest.approx(1e9 + 5)


def test_chunks_are_the_same_rows_whether_segments_or_tables(tmp_path: Path) -> None:
    write(tmp_path, [answered(0), refused(1), *others()])

    def rows() -> pl.DataFrame:
        parts = [chunk.frame for chunk in read_chunks(tmp_path, *ALWAYS, schema_of=SCHEMAS.get)]
        return pl.concat(parts, how="diagonal_relaxed").sort("at", "index", nulls_last=False)

    before = rows()
    keep_up(tmp_path, SCHEMAS.get, Keep())
    after = rows().select(before.columns)
    assert after.equals(before) and before["request_id"].n_unique() == 8


def test_what_was_read_is_a_record_like_any_other(tmp_path: Path) -> None:
    write(tmp_path, [answered(0)])
    keep_up(tmp_path, SCHEMAS.get, Keep())
    (record,) = read(tmp_path)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=LoggedRequest) == record


def test_two_readers_miss_and_double_nothing_while_tables_are_made(tmp_path: Path) -> None:
    n_written = [0]
    is_over = threading.Event()
    wrong: list[str] = []

    def read_on() -> None:
        while not is_over.is_set():
            n_least = n_written[0]
            found = [int(record.request_id[1:]) for record in read_log(tmp_path, *ALWAYS, schema_of=SCHEMAS.get)]
            if len(found) != len(set(found)) or not set(range(n_least)) <= set(found):
                wrong.append(f"{len(found)} found, {len(set(found))} different, {n_least} were there")

    readers = [threading.Thread(target=read_on) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(40):
        write(tmp_path, [answered(number)])
        n_written[0] = number + 1
        if number % 3 == 0:
            keep_up(tmp_path, SCHEMAS.get, Keep())
    is_over.set()
    for reader in readers:
        reader.join(60)
    assert not wrong
    assert len(read(tmp_path)) == 40


def exported(folder: Path, to: Path, **asked: Any) -> tuple[pl.DataFrame, Written]:
    """Return what is in the file, and what is said of it."""
    written = export(folder, to, SCHEMAS.get, Asked(**asked))
    return pl.read_parquet(to), written


def test_the_log_is_one_file_of_typed_lines_whatever_the_versions(tmp_path: Path) -> None:
    write(tmp_path / "log", [answered(0), refused(1), *others(), answered(9, bundle="gone")])
    frame, written = exported(tmp_path / "log", tmp_path / "log.parquet")
    assert (written.n_requests, written.n_rows, written.n_refused, written.n_unknown) == (8, 12, 1, 2)
    assert frame.columns == [
        "at", "request_id", "row_id", "id", "version", "latency_ms", "status", "error", "share",
        "age", "island", "children", "seen", "at_in", "image_sha256", "prediction", "probability_no", "probability_yes",
        "prediction_low", "prediction_high",
    ]  # fmt: skip
    assert frame.schema["at"] == frame.schema["seen"] == pl.Datetime("us", "UTC")
    assert frame.schema["children"] == pl.Int64 and frame.schema["at_in"] == pl.Boolean
    assert frame.schema["age"] == pl.String  # a number in one version, text in another
    first = frame.filter(pl.col("request_id") == "r0")
    assert first["row_id"].to_list() == ["r0/0", "r0/1"] and first["id"].to_list() == ["0", "x"]
    assert first["prediction"].to_list() == ["yes", "no"] and first["probability_no"].to_list()[0] == 0.0
    (no,) = frame.filter(pl.col("status") == 422).to_dicts()
    assert (no["error"], no["row_id"], no["prediction"]) == ("no age", None, None)
    assert frame.filter(pl.col("request_id") == "i")["image_sha256"].to_list() == ["ab", "cd"]
    hidden = frame.filter(pl.col("request_id") == "r1003")
    assert hidden["island"].to_list()[0] == "a1" and hidden["share"].to_list() == [0.25] * 2
    assert frame.filter(pl.col("request_id") == "r9")["prediction"].to_list() == ["yes", "no"]
    keep_up(tmp_path / "log", SCHEMAS.get, Keep())
    again, _ = exported(tmp_path / "log", tmp_path / "log.parquet")
    assert again.sort("row_id", "at").equals(frame.sort("row_id", "at"))
    shadows, _ = exported(tmp_path / "log", tmp_path / "log.parquet", has_shadow=True)
    assert shadows["is_shadow"].sum() == 2 and shadows.height == frame.height + 2


def test_a_while_of_the_log_is_written_in_groups_of_a_bounded_size(tmp_path: Path) -> None:
    for start in range(0, 40, 10):
        write(tmp_path / "log", [answered(number, n_rows=4, ids=None) for number in range(start, start + 10)])
    frame, _ = exported(tmp_path / "log", tmp_path / "log.parquet", start=1005.0, end=1035.0)
    assert frame["request_id"].n_unique() == 30 and frame.height == 120
    assert pq.ParquetFile(tmp_path / "log.parquet").num_row_groups == 4
    empty, written = exported(tmp_path / "log", tmp_path / "log.parquet", start=5000.0)
    assert empty.height == 0 and written.n_rows == 0 and "at" in empty.columns


def test_a_containers_folder_is_exported_by_the_shell_with_its_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "elsewhere" / "bundle")
    rows = pack_rows(SCHEMA_BINARY, [ROW])
    probability = np.array([0.5, 0.5], "<f4").tobytes()
    about: dict[str, Any] = {"version": "Net@1", "latency_ms": 0.5, "bundle": "model", "prediction": ["yes"]}
    state = tmp_path / "state"
    write(state / "requests", [LoggedRequest.of_rows(rows, request_id="r", at=1e9, probability=probability, **about)])
    to = tmp_path / "log.parquet"
    assert main(["export-log", str(state), "--to", str(to)]) == 2
    assert "Say which version it served: --bundle NAME@3" in capsys.readouterr().err
    for folder in (state, state / "requests"):
        assert main(["export-log", str(folder), "--to", str(to), "--bundle", str(bundle.root)]) == 0
        (line,) = pl.read_parquet(to).to_dicts()
        assert (line["row_id"], line["age"], line["island"], line["children"]) == ("r/0", 50.0, "Dream", 2)
    assert "1 rows of 1 requests" in capsys.readouterr().out
    assert main(["export-log", str(tmp_path / "elsewhere"), "--to", str(to), "--bundle", str(bundle.root)]) == 2
    assert "no segment (*.lprq) lies there" in capsys.readouterr().err


def test_nothing_is_left_of_an_endpoint_that_was_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path).make()
    folder = home.endpoint("diagnosis")
    write(folder.requests, [refused(0)])
    config = EndpointConfig(
        name="diagnosis", release=1, model="Net", version="Net@1", bundle="", manifest_hash="", port=1, token_hashes=()
    )
    folder.config.write_bytes(encode(config))
    assert closing.main(home) == 0 and len(tables(folder.requests)) == 1
    write(folder.requests, [refused(1)])

    def deleted(*given: Any) -> int:
        folder.config.unlink()
        return keep_up(*given)

    monkeypatch.setattr(closing, "keep_up", deleted)
    assert closing.main(home) == 0
    assert not folder.requests.exists()
