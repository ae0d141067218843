"""The page that tries a model, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.graphs import TOKEN, Server
from tests.serving.test_text import text_bundle


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of an endpoint whose model reads prose."""
    server = Server(tmp_path)
    server.configure(text_bundle(tmp_path / "bundle"))
    server.start()
    yield f"http://127.0.0.1:{server.wait().port}/"
    server.stop()


def test_prose_is_typed_into_a_field_of_several_lines(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Open").click()
    title = page.locator("textarea[name=title]")
    title.wait_for()
    assert title.input_value() == "a fine day"
    page.locator("textarea[name=body]").fill("b\nb")
    page.locator("input[name=age]").fill("2")
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("156", exact=True).wait_for()
