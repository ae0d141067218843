"""What a person does in JupyterLab, in the words of the tests."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat

PAGE_MS = 90_000


class Lab:
    """JupyterLab in a page of the browser.

    Attributes
    ----------
    page : playwright's Page
    root : Path
        The folder that Lab's file browser shows.
    """

    def __init__(self, page: Any, *, url: str, token: str, root: Path, shots: Path) -> None:
        self.page = page
        self.root = root
        self._url = url
        self._token = token
        self._shots = shots

    # -- notebooks

    def write(self, name: str, cells: Sequence[str], *, parameters: str = "") -> Path:
        """Write a notebook into the root folder; `parameters` is its first cell, tagged."""
        book = nbformat.v4.new_notebook(
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        )
        book.cells = [nbformat.v4.new_code_cell(source) for source in cells]
        if parameters:
            book.cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        path = self.root / name
        nbformat.write(book, path)
        return path

    def open(self, name: str = "", *, is_new: bool = True) -> None:
        """Load Lab with a notebook of the root folder; by itself it shows the launcher."""
        tree = f"/tree/{quote(name)}" if name else ""
        reset = "reset&" if is_new else ""
        workspace = Path(name).stem.replace(" ", "-") or "empty"
        self.page.goto(f"{self._url}/lab/workspaces/{workspace}{tree}?{reset}token={self._token}")
        self.is_loaded(has_notebook=bool(name))

    def reload(self) -> None:
        """Press F5."""
        self.page.reload()
        self.is_loaded(has_notebook=True)

    def is_loaded(self, *, has_notebook: bool) -> None:
        """Wait until Lab is there, and the notebook's kernel with it."""
        self.page.wait_for_function("() => window.jupyterapp !== undefined", timeout=PAGE_MS)
        self.page.evaluate("async () => { await window.jupyterapp.restored; }")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=PAGE_MS)
        if has_notebook:
            self.page.wait_for_selector(".jp-Notebook:visible", timeout=PAGE_MS)
            self.page.evaluate(
                "async () => { const panel = window.jupyterapp.shell.currentWidget;"
                " await panel.context.ready; await panel.sessionContext.ready; }"
            )

    def type(self, source: str) -> None:
        """Type a cell at the end of the notebook and press Shift+Enter, as a person does."""
        last = self.page.locator(".jp-NotebookPanel:visible .jp-Notebook .jp-CodeCell").last
        last.locator(".cm-content").click()
        if "\n" in source:
            self.page.keyboard.insert_text(source)  # pasted: Lab would indent what is already indented
        else:
            self.page.keyboard.type(source)
        self.page.keyboard.press("Shift+Enter")

    def ran(self, timeout_s: float = 120) -> None:
        """Wait until no cell is running, and fail where one failed."""
        self.page.wait_for_function(
            """() => {
                const model = window.jupyterapp.shell.currentWidget.content.model;
                const cells = Array.from(model.cells).filter(cell => cell.type === 'code' && cell.sharedModel.source);
                return cells.every(cell => cell.executionState === 'idle' && cell.executionCount);
            }""",
            timeout=timeout_s * 1000,
        )
        errors = [out for out in self.outputs() if out["output_type"] == "error"]
        assert not errors, errors

    def run_all(self) -> None:
        """Run every cell, without waiting for its end."""
        self.page.evaluate("() => { void window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def outputs(self) -> list[dict[str, Any]]:
        """Return the outputs of the open notebook as the page holds them."""
        found: list[dict[str, Any]] = self.page.evaluate(
            """() => {
                const model = window.jupyterapp.shell.currentWidget.content.model;
                return Array.from(model.cells).flatMap(cell => cell.type === 'code' ? cell.outputs.toJSON() : []);
            }"""
        )
        return found

    def save(self) -> None:
        """Press Ctrl+S."""
        self.command("docmanager:save")

    def on_disk(self, name: str, mime: str) -> list[Any]:
        """Return what the outputs of a saved notebook hold under a MIME type."""
        cells = json.loads((self.root / name).read_text())["cells"]
        found = [out["data"][mime] for cell in cells for out in cell["outputs"] if mime in out.get("data", {})]
        return ["".join(text) if isinstance(text, list) else text for text in found]  # text lies there in lines

    def command(self, name: str, **args: Any) -> Any:
        """Execute a command of Lab."""
        return self.page.evaluate(
            "([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => null)", [name, args]
        )

    # -- our own parts

    @property
    def card(self) -> Any:
        """The newest card of a run in the open notebook."""
        return self.page.locator(".jp-NotebookPanel:visible .jp-LeptonCard").last

    def is_card(self, state: str, timeout_s: float = 120) -> Any:
        """Wait until the newest card says a state."""
        self.card.locator(".jp-Lepton-pill", has_text=state).wait_for(timeout=timeout_s * 1000)
        return self.card

    def show_sidebar(self) -> Any:
        """Show ours in the left area."""
        self.command("lepton-jupyter:open-sidebar")
        sidebar = self.page.locator(".jp-Lepton-sidebar")
        sidebar.locator(".jp-Lepton-live", has_text=re.compile("live|idle")).wait_for()
        return sidebar

    def row(self, section: str, title: str) -> Any:
        """Return a row of the sidebar."""
        place = self.page.locator(f".jp-Lepton-sidebar section[aria-label='{section}']")
        return place.locator(".jp-Lepton-row", has=self.page.locator(".jp-Lepton-rowTitle", has_text=title)).first

    def choose(self, row: Any, label: str) -> None:
        """Open a row's menu and choose a line of it."""
        row.locator(".jp-Lepton-kebab").click()
        self.page.locator(".lm-Menu-itemLabel", has_text=label).click()

    def theme(self, name: str) -> None:
        """Change the theme."""
        self.command("apputils:change-theme", theme=name)
        is_light = "false" if "Dark" in name else "true"
        self.page.wait_for_selector(f"body[data-jp-theme-light='{is_light}']", state="attached")

    def shoot(self, name: str) -> None:
        """Take a picture, after Lab has come to rest."""
        self.page.wait_for_timeout(400)
        self.page.screenshot(path=self._shots / f"{name}.png")
