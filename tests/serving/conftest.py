"""Endpoint processes for tests, ended afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving.graphs import Server, make_bundle


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One endpoint that serves the binary bundle, for a whole module."""
    root = tmp_path_factory.mktemp("serving")
    made = Server(root)
    made.configure(make_bundle(root / "bundle"))
    made.start()
    made.wait()
    yield made
    assert made.stop() == 0


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Make servers that are ended afterwards."""
    made: list[Server] = []

    def make() -> Server:
        root = tmp_path / f"server-{len(made)}"
        root.mkdir()
        made.append(Server(root))
        return made[-1]

    yield make
    for server in made:
        server.stop()
