"""The page that tries a model, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.graphs import TOKEN, Server, make_bundle
from tests.serving.test_pictures import RED, SCHEMA_IMAGE, graph_of_images
from tests.serving.test_text import text_bundle

pytestmark = pytest.mark.slow


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


def test_a_file_is_chosen_seen_and_scored(page: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    server = Server(tmp_path)
    server.configure(make_bundle(tmp_path / "bundle", SCHEMA_IMAGE, content=graph_of_images()))
    server.start()
    try:
        port = server.wait().port
        (tmp_path / "red.png").write_bytes(RED)
        (tmp_path / "cut.png").write_bytes(RED[:60])
        page.goto(f"http://127.0.0.1:{port}/")
        page.fill("#token", TOKEN)
        page.click("#enter button")
        page.click("#ask button")
        expect(page.locator("#said")).to_contain_text("Choose a JPEG or PNG file first.")
        page.set_input_files("#file", str(tmp_path / "red.png"))
        expect(page.locator("#preview")).to_have_js_property("naturalWidth", 40)
        page.click("#ask button")
        expect(page.locator("#answer")).to_have_text("red")
        page.set_input_files("#file", str(tmp_path / "cut.png"))
        page.click("#ask button")
        expect(page.locator("#said")).to_contain_text("it cannot be decoded")
    finally:
        server.stop()
