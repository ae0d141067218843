"""The endpoint's own page, with a model of image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.serving.graphs import TOKEN, Server, make_bundle
from tests.serving.test_pictures import RED, SCHEMA_IMAGE, graph_of_images

pytestmark = pytest.mark.slow


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
