"""Each row's answer is its own, whoever else asks and whatever is swapped meanwhile."""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest

from lepton_jupyter.formats.bundle import Bundle
from tests.serving.graphs import TOKEN, Server, expected_logit, make_bundle

N_CLIENTS = 64
N_REQUESTS = 1000
SOAK_S = 300.0
LONG_S = float(os.environ.get("LEPTON_SOAK_S", "3600"))
SWAP_S = 2.0
MOST_ROWS = 40
ISLANDS = ("Biscoe", "Dream", "Elsewhere", None)
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


class Client(threading.Thread):
    """One connection that asks for rows of its own, and holds every answer to what its row gives."""

    def __init__(self, port: int, number: int, *, n_requests: int, until: float, pause_s: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.n_done = self.n_rows = 0
        self.wrong: list[Any] = []
        self.seconds: list[float] = []
        self._port, self._number = port, number
        self._n_requests, self._until, self._pause_s = n_requests, until, pause_s
        self._draw = random.Random(number)

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        while self.n_done < self._n_requests or time.monotonic() < self._until:
            rows = [self._row(place) for place in range(self._draw.choice((1, 1, 1, 2, 7, MOST_ROWS)))]
            began = time.perf_counter()
            try:
                connection.request("POST", "/predict", json.dumps({"rows": rows}), HEADERS)
                response = connection.getresponse()
                answer = json.loads(response.read())
                self._hold(rows, response.status, answer)
            except (OSError, ValueError, KeyError) as error:
                self.wrong.append(repr(error))
                connection.close()
            self.seconds.append(time.perf_counter() - began)
            self.n_done += 1
            self.n_rows += len(rows)
            if self._pause_s:
                time.sleep(self._pause_s)
        connection.close()

    def _row(self, place: int) -> dict[str, Any]:
        age = None if self._draw.random() < 0.1 else round(self._draw.uniform(0, 90), 3)
        return {
            "patient": f"{self._number}-{self.n_done}-{place}",
            "age": age,
            "island": self._draw.choice(ISLANDS),
            "children": self._draw.randrange(9),
        }

    def _hold(self, rows: list[dict[str, Any]], status: int, answer: Any) -> None:
        if status != 200 or [row["patient"] for row in answer["predictions"]] != [row["patient"] for row in rows]:
            self.wrong.append((status, answer))
            return
        shift = shift_of(answer["version"])
        for row, found in zip(rows, answer["predictions"], strict=True):
            logit = expected_logit(row["age"], row["children"], row["island"]) + shift
            if abs(found["probability_yes"] - 1 / (1 + math.exp(-logit))) > 1e-5:
                self.wrong.append((row, found, answer["version"]))


def shift_of(version: str) -> float:
    return 0.1 * (int(version.rpartition("@")[2]) % 2)


def swap(server: Server, bundles: list[Bundle], until: Callable[[], bool], pause_s: float) -> int:
    """Let two versions take turns; return how often."""
    release = 1
    while not until():
        time.sleep(pause_s)
        release += 1
        server.configure(bundles[release % 2], release=release, version=f"Net@{release}")
        server.wait(release=release)
    return release - 1


@pytest.fixture
def bundles(tmp_path: Path) -> list[Bundle]:
    return [make_bundle(tmp_path / f"bundle-{place}", shift=0.1 * place) for place in range(2)]


def started(server: Server, bundle: Bundle) -> int:
    server.configure(bundle)
    server.start()
    return server.wait().port


@pytest.mark.slow
@pytest.mark.parametrize(("n_clients", "n_requests", "seconds"), [(8, 40, 0.0)])
def test_answers_are_their_rows_own_under_swaps(
    new_server: Callable[[], Server], bundles: list[Bundle], n_clients: int, n_requests: int, seconds: float
) -> None:
    _hold_answers(new_server(), bundles, n_clients, n_requests, seconds, pause_s=0.05)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_sixty_four_clients_for_five_minutes(new_server: Callable[[], Server], bundles: list[Bundle]) -> None:
    _hold_answers(new_server(), bundles, N_CLIENTS, N_REQUESTS, SOAK_S, pause_s=SWAP_S)


def _hold_answers(
    server: Server, bundles: list[Bundle], n_clients: int, n_requests: int, seconds: float, *, pause_s: float
) -> None:
    port = started(server, bundles[1])
    until = time.monotonic() + seconds
    clients = [Client(port, number, n_requests=n_requests, until=until) for number in range(n_clients)]
    for client in clients:
        client.start()
    n_swaps = swap(server, bundles, lambda: not any(client.is_alive() for client in clients), pause_s)
    wrong = [each for client in clients for each in client.wrong]
    n_rows, n_done = sum(client.n_rows for client in clients), sum(client.n_done for client in clients)
    print(f"{n_done:,} requests of {n_rows:,} rows under {n_swaps} swaps: {len(wrong)} wrong or dropped")
    assert wrong == []
    assert n_swaps > 0


@pytest.mark.soak
@pytest.mark.timeout(LONG_S + 600)
def test_an_hour_leaves_memory_descriptors_and_latency_flat(
    new_server: Callable[[], Server], bundles: list[Bundle]
) -> None:
    server = new_server()
    port = started(server, bundles[1])
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    until = time.monotonic() + LONG_S
    clients = [Client(port, number, n_requests=0, until=until, pause_s=0.02) for number in range(8)]
    seen: list[tuple[float, int]] = []

    def is_over() -> bool:
        seen.append((process.memory_info().rss / 1e6, process.num_fds()))
        return time.monotonic() >= until

    for client in clients:
        client.start()
    n_swaps = swap(server, bundles, is_over, min(60.0, LONG_S / 20))
    for client in clients:
        client.join()
    assert [each for client in clients for each in client.wrong] == []
    third = max(1, len(seen) // 3)
    early, late = seen[third : 2 * third], seen[-third:]
    p50 = [_median([s for client in clients for s in _third(client.seconds, place)]) * 1e3 for place in (1, 2)]
    print(
        f"{n_swaps} swaps; MB and descriptors then {early[0]}, at the end {late[-1]}; p50 ms {p50[0]:.2f}, {p50[1]:.2f}"
    )
    assert _median([mb for mb, _ in late]) < _median([mb for mb, _ in early]) + 20
    assert _median([float(n) for _, n in late]) <= _median([float(n) for _, n in early]) + 2
    assert p50[1] < 2 * p50[0]


def _third(values: list[float], place: int) -> list[float]:
    size = len(values) // 3
    return values[place * size : (place + 1) * size]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
