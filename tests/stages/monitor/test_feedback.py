"""Late labels are checked, kept, and found beside what was predicted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.endpoint import EndpointConfig, Options
from lepton_jupyter.formats.packing import pack_rows
from lepton_jupyter.formats.personal import key_at, pseudonyms
from lepton_jupyter.formats.requestlog import LoggedRequest, SegmentWriter
from lepton_jupyter.formats.retention import Keep
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.deploy.requests.closing import keep_up
from lepton_jupyter.stages.deploy.requests.reading import Schemas
from lepton_jupyter.stages.monitor import feedback
from lepton_jupyter.stages.monitor.engine import report
from lepton_jupyter.stages.monitor.feedback import feed
from lepton_jupyter.stages.monitor.window import read_window
from tests.serving.graphs import ROW, SCHEMA_BINARY, SCHEMA_REGRESSION, make_bundle

Serve = Callable[..., Home]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for an endpoint that is not there."""
    monkeypatch.setattr(feedback, "SETTLE_S", 0.0)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Put an endpoint's folder there."""

    def make(schema: Schema = SCHEMA_BINARY, **options: Any) -> Home:
        home = Home(tmp_path / "home").make()
        bundle = make_bundle(home.bundles / "abc123", schema)
        config = EndpointConfig(
            name="diagnosis", release=1, model="Net", version="Net@1", bundle=str(bundle.root),
            manifest_hash=bundle.manifest_hash, port=1, token_hashes=(), options=Options(**options),
        )  # fmt: skip
        home.endpoint("diagnosis").root.mkdir()
        write_atomic(home.endpoint("diagnosis").config, encode(config))
        return home

    return make


def ask(home: Home, *predictions: Any, name: str = "r", ids: list[Any] | None = None, **more: Any) -> None:
    """Have one request with these predictions in the log."""
    writer = SegmentWriter(home.endpoint("diagnosis").requests)
    shares = [[0.9, 0.1] if said == "no" else [0.1, 0.9] for said in predictions]
    is_class = isinstance(predictions[0], str)
    writer.write(
        LoggedRequest.of_rows(
            pack_rows(SCHEMA_BINARY, [ROW] * len(predictions)), request_id=name, at=time.time() - 10, version="Net@1",
            latency_ms=1.0, prediction=list(predictions), ids=ids,
            probability=np.asarray(shares, "<f4").tobytes() if is_class else b"", **{"bundle": "abc123", **more},
        )
    )  # fmt: skip
    writer.close()


def labels(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(columns)


def test_labels_are_found_by_the_rows_id_and_measured(serve: Serve) -> None:
    home = serve()
    ask(home, "yes", "no", "no", "yes")
    found = feed(home, "diagnosis", labels(row_id=["r/0", "r/1", "r/2", "q/0"], sick=["yes", "no", "yes", "no"]))
    assert (found.n_labels, found.n_new, found.n_matched, found.n_unknown, found.n_conflicting) == (4, 4, 3, 1, 0)
    assert found.n_rows == 3 and found.metrics["accuracy"] == pytest.approx(2 / 3)
    assert found.metrics["recall"] == 0.5
    ask(home, "yes", name="q")  # the row comes behind its label
    again = feed(home, "diagnosis", labels(row_id=["q/0"], sick=["no"]))
    assert (again.n_labels, again.n_new, again.n_matched) == (1, 0, 1)
    assert len(list(home.endpoint("diagnosis").labels.glob("*.parquet"))) == 1  # said before: nothing to keep


def test_labels_are_found_by_the_id_column_whatever_its_type(serve: Serve) -> None:
    home = serve()
    ask(home, "yes", "no", ids=[7, "c-8"])
    ask(home, "no", name="s", ids=[7])  # asked for once more
    found = feed(home, "diagnosis", labels(patient=["7", "c-8", "c-9"], sick=["yes", "no", "no"]))
    assert (found.n_matched, found.n_unknown, found.n_rows) == (2, 1, 3)
    assert feed(home, "diagnosis", labels(patient=[7.0], sick=["yes"])).n_new == 0


def test_the_newest_label_counts_and_both_are_kept(serve: Serve) -> None:
    home = serve()
    ask(home, "yes", "no")
    feed(home, "diagnosis", labels(row_id=["r/0", "r/1"], sick=["no", "no"]))
    found = feed(home, "diagnosis", labels(row_id=["r/0", "r/1", "r/1"], sick=["yes", "yes", "no"]))
    assert (found.n_labels, found.n_conflicting) == (2, 2)
    assert found.metrics["accuracy"] == 1.0
    kept = [pl.read_parquet(path) for path in sorted(home.endpoint("diagnosis").labels.glob("*"))]
    assert [frame["label:sick"].to_list() for frame in kept] == [["no", "no"], ["yes", "yes", "no"]]
    rows = read_window(home, "diagnosis", time.time() - 60, time.time() - 5).rows
    assert rows.columns[:4] == ["at", "request_id", "row_id", "version"]
    assert rows.select("row_id", "prediction", "label").rows() == [("r/0", "yes", "yes"), ("r/1", "no", "no")]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"row_id": ["r/0", "r/1"], "sick": ["yes", "maybe"]}, "Row 1 of the labels: 'sick' is 'maybe', which is no"),
        ({"row_id": ["r/0"], "sik": ["yes"]}, "Known: row_id, sik. Did you mean 'sik'?"),
        ({"sick": ["yes"]}, "a column 'patient' or 'row_id' is wanted. They have: sick"),
        ({"row_id": ["r/0", None], "sick": ["yes", "no"]}, "Row 1 of the labels has no 'row_id'"),
    ],
)  # fmt: skip
def test_what_are_no_labels_is_refused_and_nothing_is_kept(serve: Serve, given: Any, says: str) -> None:
    home = serve()
    ask(home, "yes", "no")
    with pytest.raises(LeptonError) as caught:
        feed(home, "diagnosis", pl.DataFrame(given))
    assert says in str(caught.value)
    assert not home.endpoint("diagnosis").labels.exists()


def test_a_row_whose_label_is_not_known_yet_is_passed_over(serve: Serve) -> None:
    home = serve()
    ask(home, "yes", "no")
    assert feed(home, "diagnosis", labels(row_id=["r/0", None], sick=["yes", None])).n_labels == 1
    assert feed(home, "diagnosis", labels(row_id=[None], sick=[None]).cast(pl.String)).n_labels == 0


def test_several_numbers_are_labels_too_and_part_of_them_may_come(serve: Serve) -> None:
    home = serve(SCHEMA_REGRESSION)
    ask(home, [1.0, 2.0], [3.0, 4.0])
    found = feed(home, "diagnosis", labels(row_id=["r/0", "r/1"], low=[1.5, 3.0], high=[2, None]))
    assert found.n_matched == 2 and found.metrics["mae"] == pytest.approx(0.25)
    with pytest.raises(LeptonError, match=r"Row 0 of the labels: 'low' is 'x', which is no number"):
        feed(home, "diagnosis", labels(row_id=["r/0"], low=["x"], high=["1"]))
    window = read_window(home, "diagnosis", time.time() - 60, time.time() - 5)
    assert window.rows["label_low"].to_list() == [1.5, 3.0]


def test_labels_are_found_in_segments_and_in_tables_alike(serve: Serve) -> None:
    home = serve()
    ask(home, "yes", "no", ids=["a", "b"])
    keep_up(home.endpoint("diagnosis").requests, Schemas(home.bundles), Keep())
    ask(home, "no", name="s", ids=["c"])
    found = feed(home, "diagnosis", labels(patient=["a", "b", "c"], sick=["yes", "no", "no"]))
    assert (found.n_matched, found.metrics["accuracy"]) == (3, 1.0)
    assert read_window(home, "diagnosis", time.time() - 60, time.time() - 5).rows["label"].to_list() == [
        "yes", "no", "no",
    ]  # fmt: skip


def personal(**more: Any) -> Schema:
    return msgspec.structs.replace(SCHEMA_BINARY, personal=("patient", "age"), **more)


def test_pseudonyms_are_joined_and_the_ids_are_kept_nowhere(serve: Serve) -> None:
    home = serve(personal(), personal="hash")
    key = key_at(home.endpoint("diagnosis").personal_key)
    withheld: Any = {"age": ["h1", "h2"]}
    ask(home, "yes", "no", ids=pseudonyms(key, ["anna@example.org", 12]), withheld=withheld)
    found = feed(home, "diagnosis", labels(patient=["anna@example.org", "12"], sick=["yes", "no"]))
    assert (found.n_matched, found.metrics["accuracy"]) == (2, 1.0)
    assert b"anna" not in b"".join(path.read_bytes() for path in home.endpoint("diagnosis").root.rglob("*.*"))
    window = read_window(home, "diagnosis", time.time() - 60, time.time() - 5)
    assert window.rows["age"].to_list() == ["h1", "h2"] and window.rows["label"].to_list() == ["yes", "no"]


def test_where_ids_are_not_logged_the_way_out_is_said(serve: Serve) -> None:
    home = serve(personal())
    with pytest.raises(LeptonError, match="is personal and is not logged") as caught:
        feed(home, "diagnosis", labels(patient=["anna@example.org"], sick=["yes"]))
    assert "%lepton deploy Net@1 --as diagnosis --personal hash" in caught.value.hint


def test_where_both_are_given_the_way_that_is_logged_is_taken(serve: Serve) -> None:
    home = serve(personal())
    ask(home, "yes")
    found = feed(home, "diagnosis", labels(patient=["anna@example.org"], row_id=["r/0"], sick=["yes"]))
    assert (found.n_matched, found.n_unknown) == (1, 0)


def test_a_column_of_the_data_that_is_called_label_keeps_its_values(serve: Serve) -> None:
    columns = [msgspec.structs.replace(c, name="label" if c.name == "age" else c.name) for c in SCHEMA_BINARY.columns]
    home = serve(msgspec.structs.replace(SCHEMA_BINARY, columns=tuple(columns)))
    ask(home, "yes")
    feed(home, "diagnosis", labels(row_id=["r/0"], sick=["no"]))
    rows = read_window(home, "diagnosis", time.time() - 60, time.time() - 5).rows
    assert (rows["label"].to_list(), rows["label_in"].to_list()) == (["no"], [ROW["age"]])


def test_a_version_without_a_target_has_a_window_without_labels(serve: Serve) -> None:
    home = serve(msgspec.structs.replace(SCHEMA_BINARY, targets=()))
    ask(home, "yes")
    window = read_window(home, "diagnosis", time.time() - 60, time.time() - 5)
    assert window.n_rows == 1 and not window.labels.columns


def test_rows_of_a_bundle_that_is_gone_are_not_taken_for_those_of_another(serve: Serve) -> None:
    home = serve()
    ask(home, "yes")
    ask(home, "no", name="gone", bundle="deleted")
    ask(home, "no", name="unnamed", bundle="")
    window = read_window(home, "diagnosis", time.time() - 60, time.time() - 5)
    assert (window.n_rows, window.n_other) == (2, 1)
    schemas = Schemas(home.bundles, SCHEMA_BINARY)
    assert schemas("deleted") is None and schemas("") == SCHEMA_BINARY


def test_where_no_row_is_logged_nothing_is_said_of_traffic_or_errors(serve: Serve) -> None:
    home = serve(log_share=0.0)
    writer = SegmentWriter(home.endpoint("diagnosis").requests)
    writer.write(
        LoggedRequest(request_id="b", at=time.time() - 9, version="Net@1", latency_ms=1.0, n_rows=0, status=422)
    )
    writer.close()
    record = report(read_window(home, "diagnosis", time.time() - 60, time.time() - 5))
    assert record.verdict == "NOT ENOUGH DATA"
    assert [record.checks[name] for name in ("error_rate", "requests", "predictions")] == [None] * 3
    assert "No rows are logged (--log-share 0): requests that were answered are not seen here." in record.sentences


def test_a_column_that_the_log_has_not_is_compared_with_nothing_and_that_is_said(serve: Serve) -> None:
    home = serve(personal())
    ask(home, *["yes", "no"] * 200, withheld={"age": None})
    window = read_window(home, "diagnosis", time.time() - 60, time.time() - 5)
    record = report(window)
    assert "age is personal and kept out of the log: whether it changed is not known." in record.sentences
    assert "age" not in {column.name for column in record.columns} and "missing(age)" not in record.checks


def test_of_a_share_the_counts_are_weighed(serve: Serve) -> None:
    home = serve()
    for number in range(5):
        ask(home, "yes", "no", name=f"r{number}", share=0.1)
    writer = SegmentWriter(home.endpoint("diagnosis").requests)
    writer.write(
        LoggedRequest(request_id="b", at=time.time() - 9, version="Net@1", latency_ms=1.0, n_rows=0, status=422)
    )
    writer.close()
    record = report(read_window(home, "diagnosis", time.time() - 60, time.time() - 5))
    assert (record.window.n_requests, record.window.n_failed, record.window.n_rows) == (50, 1, 100)
    assert record.checks["error_rate"] == pytest.approx(1 / 51) and record.versions == {"Net@1": 100}
