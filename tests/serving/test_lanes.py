"""Who answers a request, and what is counted of both versions."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from lepton_jupyter.formats.endpoint import Beside, EndpointConfig
from lepton_jupyter.formats.figures import Figures, quantile_s
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.requestlog import read_segment, segments
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving import predict
from lepton_jupyter.serving.batching import Batcher
from lepton_jupyter.serving.journal import Journal
from lepton_jupyter.serving.lanes import Lane, Lanes
from lepton_jupyter.serving.release import take
from lepton_jupyter.serving.scorer import Outputs
from lepton_jupyter.serving.shadow import MOST_ROWS_WAITING, Shadow, aligned
from lepton_jupyter.serving.tally import FIRST_ROWS, Comparison
from tests.serving.graphs import ROW, SCHEMA_BINARY, SCHEMA_MULTI, SCHEMA_REGRESSION, make_bundle

CANARY = Beside(kind="canary", model="Net", version="Net@2", bundle="", manifest_hash="", since=7, share=0.1)


@pytest.fixture
def lanes(tmp_path: Path) -> Lanes:
    first, second = make_bundle(tmp_path / "first"), make_bundle(tmp_path / "second", shift=1.0)
    about = msgspec.structs.replace(CANARY, bundle=str(second.root), manifest_hash=second.manifest_hash)
    config = EndpointConfig(
        name="e", release=7, model="Net", version="Net@1", bundle=str(first.root), manifest_hash=first.manifest_hash,
        port=0, token_hashes=(), beside=about,
    )  # fmt: skip
    taken = take(config, [])
    assert taken.beside is not None and taken.trouble is None
    pool = ThreadPoolExecutor(1)
    comparison = Comparison(about, taken.live.schema)
    live, canary = (
        Lane(release, Batcher(release.scorer, pool), tally)
        for release, tally in ((taken.live, comparison.live), (taken.beside, comparison.beside))
    )
    return Lanes(live, canary, comparison)


def chosen(lanes: Lanes, row: Any = ROW, *, key: str = "", request_id: str = "r", **more: Any) -> Any:
    headers = {b"x-lepton-key": key.encode()} if key else {}
    body = msgspec.json.encode([row])
    return lanes.choose(predict.read, body, headers=headers, request_id=request_id, **more)


def test_a_tenth_of_the_keys_goes_to_the_canary_and_stays_there(lanes: Lanes) -> None:
    first = [chosen(lanes, key=f"user-{number}").lane.version for number in range(4000)]
    assert 320 <= first.count("Net@2") <= 480  # 400, and four standard deviations
    assert [chosen(lanes, key=f"user-{number}").lane.version for number in range(500)] == first[:500]


def test_the_key_is_the_header_else_the_rows_id_else_the_requests(lanes: Lanes) -> None:
    key = next(f"k{n}" for n in range(1000) if chosen(lanes, key=f"k{n}").lane.version == "Net@2")
    assert chosen(lanes, {**ROW, "patient": key}, request_id="other").lane.version == "Net@2"
    assert chosen(lanes, request_id=key).lane.version == "Net@2"
    assert chosen(lanes, {**ROW, "patient": None}, request_id=key).lane.version == "Net@2"
    other = next(f"k{n}" for n in range(1000) if chosen(lanes, key=f"k{n}").lane.version == "Net@1")
    assert chosen(lanes, {**ROW, "patient": key}, key=other).lane.version == "Net@1", "the header comes first"
    number = next(n for n in range(1000) if chosen(lanes, {**ROW, "patient": n}).lane.version == "Net@2")
    assert chosen(lanes, key=str(number)).lane.version == "Net@2"


def test_a_request_is_written_by_the_version_that_was_chosen(lanes: Lanes) -> None:
    for request_id in map(str, range(200)):
        found = chosen(lanes, request_id=request_id)
        outputs = found.lane.release.scorer.score(found.asked.rows)
        assert msgspec.json.decode(found.asked.write(outputs, "r").body)["version"] == found.lane.version


def test_a_version_that_is_asked_for_answers_and_is_not_counted(lanes: Lanes) -> None:
    for version, number in (("Net@1", "1"), ("Net@2", "2")):
        assert lanes.named(version) is lanes.named(number)
        found = chosen(lanes, pinned=lanes.named(version))
        assert (found.lane.version, found.key) == (version, None)
    assert lanes.named("Net@3") is None


def test_another_canary_takes_other_keys(lanes: Lanes) -> None:
    assert lanes.comparison is not None
    about = msgspec.structs.replace(lanes.comparison.about, since=8)
    other = Lanes(lanes.live, lanes.beside, Comparison(about, SCHEMA_BINARY))
    keys = [f"user-{number}" for number in range(1000)]
    both = [key for key in keys if {chosen(one, key=key).lane.version for one in (lanes, other)} == {"Net@2"}]
    assert len(both) < 30  # a hundredth: 10


def binary(shares: Any) -> Outputs:
    shares = np.asarray(shares, np.float32)
    return Outputs((shares >= 0.5).astype(np.int64), np.column_stack([1 - shares, shares]))


def test_requests_failures_rows_and_latencies_are_counted_apart() -> None:
    comparison = Comparison(CANARY, SCHEMA_BINARY)
    for number in range(100):
        comparison.live.answered(number, 0.002, binary([0.2, 0.3]))
    comparison.beside.answered(1, 0.2, binary([0.9]))
    comparison.beside.answered(2, 0.2, binary([0.9, float("nan")]))
    comparison.beside.failed()
    found = comparison.figures()
    live, canary = found.live, found.beside
    assert (live.n_requests, live.n_failed, live.n_rows, live.n_bad_rows) == (100, 0, 200, 0)
    assert (canary.n_requests, canary.n_failed, canary.n_rows, canary.n_bad_rows) == (3, 2, 3, 1)
    assert (sum(live.latency), sum(canary.latency)) == (100, 1)
    assert quantile_s(live.latency, 0.95) == pytest.approx(0.002, rel=0.1)
    assert live.deff == 2.0  # a request's rows go together
    assert live.predictions is None, "too few rows for edges"


def test_keys_that_come_again_make_rows_worth_less() -> None:
    comparison = Comparison(CANARY, SCHEMA_BINARY)
    for number in range(1000):
        comparison.live.answered(number % 10, 0.001, binary([0.5]))
    assert comparison.figures().live.deff == 100.0


def test_predictions_are_counted_over_edges_of_the_live_versions_first_rows() -> None:
    draw = np.random.default_rng(0)
    comparison = Comparison(CANARY, SCHEMA_BINARY)
    comparison.beside.answered(1, 0.001, binary(draw.uniform(0, 1, 40)))
    comparison.live.answered(2, 0.001, binary(draw.uniform(0, 1, FIRST_ROWS)))
    comparison.live.answered(3, 0.001, binary([float("nan")]))
    found = comparison.figures()
    assert found.live.predictions is not None and found.beside.predictions is not None
    live = found.live.predictions.numbers["(probability of yes)"]
    assert (sum(live.counts), live.missing) == (FIRST_ROWS, 1) and len(live.edges) > 9
    canary = found.beside.predictions.numbers["(probability of yes)"]
    assert (sum(canary.counts), canary.edges) == (40, live.edges)
    comparison.live.answered(2, 0.001, binary([0.5] * 10))
    grown = comparison.figures().live.predictions
    assert grown is not None and grown.n_rows == FIRST_ROWS + 11


@pytest.mark.parametrize("schema", [SCHEMA_MULTI, SCHEMA_REGRESSION], ids=["classes", "numbers"])
def test_classes_and_numbers_are_counted_too(schema: Schema) -> None:
    draw = np.random.default_rng(0)
    n = FIRST_ROWS + 1
    if schema.classes:
        shares = draw.dirichlet([1, 1, 1], n).astype(np.float32)
        shares[-1] = np.nan
        outputs = Outputs(shares.argmax(axis=1), shares)
    else:
        numbers = draw.normal(0, 1, (n, 2))
        numbers[-1, 0] = np.inf
        outputs = Outputs(numbers, None)
    comparison = Comparison(CANARY, schema)
    comparison.live.answered(1, 0.001, outputs)
    found = comparison.figures().live
    assert (found.n_failed, found.n_bad_rows) == (1, 1)
    assert found.predictions is not None
    columns = {**found.predictions.texts, **found.predictions.numbers}
    assert len(columns) == (1 if schema.classes else 2)
    assert {(one.n_values, one.missing) for one in columns.values()} == {(FIRST_ROWS, 1)}


def test_counting_goes_on_from_what_an_earlier_process_wrote() -> None:
    first = Comparison(CANARY, SCHEMA_BINARY)
    draw = np.random.default_rng(0)
    first.live.answered(1, 0.001, binary(draw.uniform(0, 1, FIRST_ROWS)))
    first.n_dropped = 3
    written = msgspec.json.decode(msgspec.json.encode(first.figures()), type=Figures)
    again = Comparison(CANARY, SCHEMA_BINARY, written)
    again.live.answered(2, 0.001, binary([0.5]))
    again.beside.answered(3, 0.001, binary([0.5]))
    found = again.figures()
    assert (found.live.n_requests, found.live.n_rows, found.n_dropped) == (2, FIRST_ROWS + 1, 3)
    assert found.live.predictions is not None and found.live.predictions.n_rows == FIRST_ROWS + 1
    assert found.beside.predictions is not None
    other = Comparison(msgspec.structs.replace(CANARY, since=8), SCHEMA_BINARY, written)
    assert other.figures().live.n_requests == 0


def test_agreement_is_the_same_class_or_a_number_within_five_percent() -> None:
    comparison = Comparison(CANARY, SCHEMA_BINARY)
    assert np.isnan(comparison.agreement_share)
    comparison.agree(binary([0.1, 0.9, 0.9, 0.1]), binary([0.2, 0.6, 0.4, 0.1]))
    assert comparison.agreement_share == 0.75
    numbers = Comparison(CANARY, SCHEMA_REGRESSION)
    live = Outputs(np.array([[1.0, 10.0], [1.0, 10.0], [0.0, 0.0]]), None)
    numbers.agree(live, Outputs(np.array([[1.04, 10.4], [1.06, 10.0], [0.0, np.nan]]), None))
    assert numbers.n_agreed == 1


def test_a_shadow_gets_its_columns_in_its_own_order() -> None:
    other = msgspec.structs.replace(SCHEMA_BINARY, columns=SCHEMA_BINARY.columns[::-1])
    rows = Packed(np.array([[50.0, 2.0]]), np.array([["Dream"]], object))
    assert aligned(rows, SCHEMA_BINARY, SCHEMA_BINARY) is rows
    found = aligned(rows, SCHEMA_BINARY, other)
    assert isinstance(found, Packed) and found.num.tolist() == [[2.0, 50.0]]
    tensor = np.ones((1, 2), np.float32)
    assert aligned(tensor, SCHEMA_BINARY, SCHEMA_BINARY) is tensor


def test_a_shadow_drops_what_it_cannot_take_and_counts_what_fails(lanes: Lanes, tmp_path: Path) -> None:
    assert lanes.comparison is not None and lanes.beside is not None
    journal = Journal(tmp_path / "requests", tmp_path / "personal.key")
    comparison, found = lanes.comparison, chosen(lanes)
    outputs = lanes.live.release.scorer.score(found.asked.rows)
    shadow = Shadow(lanes.beside, comparison, journal)

    async def work() -> None:
        shadow.n_rows_waiting = MOST_ROWS_WAITING
        shadow.mirror(found, outputs, "dropped")
        shadow.n_rows_waiting = 0
        shadow.mirror(found, outputs, "taken")
        bad = found._replace(asked=found.asked._replace(rows=Packed(np.empty((1, 0)), np.empty((1, 0), object))))
        shadow.mirror(bad, outputs, "failed")
        while shadow.n_rows_waiting:
            await asyncio.sleep(0.005)

    asyncio.run(work())
    journal.close()
    counted = comparison.figures()
    assert (counted.n_dropped, counted.n_compared) == (1, 1)
    assert (counted.beside.n_requests, counted.beside.n_failed) == (2, 1)
    logged = [record for path in segments(tmp_path / "requests") for _, record in read_segment(path)]
    assert [(record.request_id, record.is_shadow) for record in logged] == [("taken", True)]


def test_what_does_not_fit_the_live_version_is_refused_but_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path / "first"), make_bundle(tmp_path / "second", SCHEMA_MULTI)
    about = msgspec.structs.replace(CANARY, bundle=str(second.root), manifest_hash=second.manifest_hash)
    config = EndpointConfig(
        name="e", release=7, model="Net", version="Net@1", bundle=str(first.root), manifest_hash=first.manifest_hash,
        port=0, token_hashes=(), beside=about,
    )  # fmt: skip
    taken = take(config, [])
    assert taken.beside is None and "classes: no, yes, then 1, 2, 3" in str(taken.trouble)
    with pytest.raises(Exception, match="does not fit"):
        take(config, [taken.live])
