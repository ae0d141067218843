"""Panels: forms are the verbs' structs, buttons never keep the kernel, and without a browser there is still a panel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any

import nbformat
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbconvert import HTMLExporter

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.arguments import fields_of, parse
from lepton_jupyter.faces.panels.form import Form
from lepton_jupyter.faces.panels.panel import WIDGET
from lepton_jupyter.faces.panels.words import WORDS, word_of
from lepton_jupyter.faces.verbs import COMMANDS, find
from lepton_jupyter.faces.words import expand, split_words
from lepton_jupyter.stages.verbs import Verb
from tests.life.conftest import EXAMPLES, NET, Notebook
from tests.life.conftest import new_notebook as new_notebook  # a fixture

PANELLED = [find(verb).spec for word in WORDS.values() for verb in word.verbs]


def _form(verb: str, went: list[tuple[Verb, str]] | None = None) -> Form:
    return Form(find(verb).spec, lambda spec, line: went.append((spec, line)) if went is not None else None)


def _put(form: Form, **values: Any) -> None:
    for name, value in values.items():
        form.inputs[name].widget.value = value


@pytest.mark.parametrize("spec", PANELLED, ids=lambda spec: spec.verb)
def test_every_field_of_a_verb_has_a_place_in_its_form(spec: type[Verb]) -> None:
    form = Form(spec, lambda spec, line: None)
    assert {*form.inputs, "detach"} >= set(fields_of(spec))
    for name, item in form.inputs.items():
        assert item.widget.tooltip == fields_of(spec)[name].help
        assert item.widget.description


@pytest.mark.parametrize("spec", PANELLED, ids=lambda spec: spec.verb)
def test_a_form_with_what_is_required_stands_for_the_line_with_nothing_else(spec: type[Verb]) -> None:
    form = Form(spec, lambda spec, line: None)
    for name, item in form.inputs.items():
        if fields_of(spec)[name].is_required:
            item.widget.value = "thing"
    typed = parse(spec, split_words(form.line)[2:])
    assert typed == form.read()
    assert form.go.disabled is False
    assert "--" not in form.line or all(fields_of(spec)[n].is_required for n in ("as_", "data") if n in form.inputs)


def test_the_line_follows_what_is_put_in_and_says_the_same() -> None:
    form = _form("train")
    assert form.go.disabled
    assert "train needs MODEL, --data" in form.message
    _put(form, model="TumorNet", data="wdbc", epochs=30, lr=1e-2, params="hidden=32\nname=a b", batch_size="64")
    assert form.line.startswith("%lepton train TumorNet --data wdbc --epochs 30 --batch-size 64 --lr 0.01")
    assert parse(find("train").spec, split_words(form.line)[2:]) == form.read()
    assert form.read().params == {"hidden": 32, "name": "a b"}
    assert form.line in form._line.value.replace("&quot;", '"')
    _put(form, epochs=0)
    assert form.go.disabled
    assert "--epochs is 0; wanted: a whole number of at least 1." in form._message.value
    _put(form, epochs=1, batch_size="atuo")
    assert "Did you mean" in form.message
    _put(form, batch_size="auto", params="hidden")
    assert "is not KEY=VALUE" in form.message


def test_a_flag_that_repeats_takes_a_line_each_and_quotes_come_by_themselves() -> None:
    form = _form("evaluate")
    _put(form, model="Net", require="roc_auc >= 0.95\n\n recall >= 0.75 \n")
    assert form.line == '%lepton evaluate Net --require "roc_auc >= 0.95" --require "recall >= 0.75"'


def test_a_brace_in_a_form_is_a_brace_when_the_line_is_pasted() -> None:
    form = _form("data")
    _put(form, name="a", source="x{1}.csv")
    assert split_words(expand(form.line, {})) == ["%lepton", "data", "a", "x{1}.csv"]


def test_a_button_hands_over_the_struct_and_the_line() -> None:
    went: list[tuple[Verb, str]] = []
    form = _form("rollback", went)
    _put(form, endpoint="diagnosis")
    form.go.click()
    assert went == [(find("rollback").spec(endpoint="diagnosis"), "%lepton rollback diagnosis")]
    _put(form, endpoint=" ")
    form.go.click()
    assert len(went) == 1


def test_names_that_live_now_are_offered_and_others_may_be_typed() -> None:
    form = _form("deploy")
    form.offer(lambda verb, field: {"model": ["Net", "Net@1"], "as_": ["diagnosis"]}.get(field, []))
    assert form.inputs["model"].widget.options == ("Net", "Net@1")
    assert form.inputs["as_"].widget.options == ("diagnosis",)
    _put(form, model="Other", as_="new")
    assert form.line == "%lepton deploy Other --as new"


def test_a_word_may_be_said_by_one_of_its_verbs() -> None:
    assert [word_of("train"), word_of("predict"), word_of("promote")] == ["train", "deploy", "maintain"]
    with pytest.raises(LeptonError, match="Did you mean 'train'"):
        word_of("trian")


def test_every_verb_that_acts_is_in_a_panel_or_named_here() -> None:
    tables = {"datasets", "models", "runs", "endpoints", "schedules", "devices"}
    lines = {"show", "logs", "open", "compare", "doctor", "panel", "run", "token"}
    held = {spec.verb for spec in PANELLED}
    assert {command.spec.verb for command in COMMANDS} == held | tables | lines


# -- where nobody can press a button


@pytest.fixture
def shell(home: Home) -> Iterator[Any]:
    shell = InteractiveShell.instance()
    shell.run_cell("%load_ext lepton_jupyter\nimport lepton_jupyter as lepton").raise_error()
    yield shell
    shell.run_cell("%unload_ext lepton_jupyter")
    InteractiveShell.clear_instance()


@pytest.mark.slow
def test_without_a_kernel_a_panel_says_what_to_type_and_shows_the_tables(shell: Any) -> None:
    panel = shell.run_cell("panel = lepton.panel()\npanel").result
    bundle = panel._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert "%lepton train TumorNet --data wdbc" in bundle["text/plain"]
    assert "runs: none yet" in bundle["text/plain"]
    assert "<script" not in bundle["text/html"] and "None yet" in bundle["text/html"]
    assert "deploy TumorNet --as diagnosis" in shell.run_cell("lepton.panel('deploy')").result._text()
    refused = shell.run_cell("lepton.panel('nonsense')").error_in_exec
    assert "No panel named 'nonsense'. Known: data, train" in str(refused)
    loaded = subprocess.run(
        [sys.executable, "-m", "lepton_jupyter.faces.cli", "panel", "train"],
        capture_output=True, text=True, env=dict(os.environ), check=False,
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    assert "%lepton train TumorNet" in loaded.stdout


@pytest.mark.slow
def test_papermill_leaves_a_static_panel_and_no_widget_state(home: Home, tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    book.cells = [
        nbformat.v4.new_code_cell("%load_ext lepton_jupyter\n%lepton panel"),
        nbformat.v4.new_code_cell("import sys\nassert 'ipywidgets' not in sys.modules"),
    ]
    nbformat.write(book, tmp_path / "in.ipynb")
    papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", kernel_name="python3", progress_bar=False)
    done = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert "widgets" not in done.metadata
    shown = done.cells[0].outputs[-1].data
    assert set(shown) == {"text/plain", "text/html"}
    page, _ = HTMLExporter().from_notebook_node(done)
    assert "%lepton train TumorNet --data wdbc" in page


def test_a_saved_panel_whose_widgets_are_gone_is_exported_as_the_static_one() -> None:
    bundle = {WIDGET: {"model_id": "gone", "version_major": 2, "version_minor": 0}, "text/html": "<p>static panel</p>"}
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("%lepton panel", outputs=[nbformat.v4.new_output("display_data", bundle)])]
    )
    page, _ = HTMLExporter().from_notebook_node(book)
    assert "<p>static panel</p>" in page


# -- a real kernel with somebody at it


class Browser:
    """The browser's side of the widgets: their state by what the kernel tells, presses by what it is told."""

    def __init__(self, notebook: Notebook) -> None:
        self.client = notebook.client
        self.notebook = notebook
        self.models: dict[str, dict[str, Any]] = {}
        self.shown: list[dict[str, Any]] = []
        self.ended: set[str] = set()  # the reply may overtake what the cell has shown

    def listen(self, until: Callable[[], Any], *, timeout_s: float = 120) -> Any:
        deadline = monotonic() + timeout_s
        while monotonic() < deadline:
            found = until()
            if found:
                return found
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except Empty:
                continue
            self._take(message)
        raise AssertionError(f"not within {timeout_s} s; the page says: {self.text()[-2000:]}")

    def _take(self, message: dict[str, Any]) -> None:
        content = message["content"]
        match message["msg_type"]:
            case "comm_open":
                self.models[content["comm_id"]] = dict(content["data"]["state"])
            case "comm_msg":
                self.models.setdefault(content["comm_id"], {}).update(content["data"].get("state", {}))
            case "display_data":
                self.shown.append(content["data"])
            case "status" if content["execution_state"] == "idle":
                self.ended.add(message["parent_header"].get("msg_id", ""))
            case "error":
                raise AssertionError("\n".join(content["traceback"]))

    def run(self, cell: str) -> None:
        request = self.notebook.start(cell)
        reply: list[Any] = []

        def replied() -> bool:
            try:
                message = self.client.get_shell_msg(timeout=0)
            except Empty:
                return bool(reply) and request in self.ended
            if message["parent_header"].get("msg_id") == request:
                reply.append(message)
            return bool(reply) and request in self.ended

        self.listen(replied)

    def find(self, kind: str, description: str) -> str:
        return next(
            key
            for key, state in self.models.items()
            if state.get("_model_name") == kind and state.get("description") == description
        )

    def put(self, kind: str, description: str, value: Any) -> None:
        key = self.find(kind, description)
        self.models[key]["value"] = value
        self._send(key, {"method": "update", "state": {"value": value}, "buffer_paths": []})

    def press(self, description: str) -> None:
        self._send(self.find("ButtonModel", description), {"method": "custom", "content": {"event": "click"}})

    def _send(self, key: str, data: dict[str, Any]) -> None:
        message = self.client.session.msg("comm_msg", {"comm_id": key, "data": data})
        self.client.shell_channel.send(message)

    def text(self) -> str:
        outputs = [json.dumps(state.get("outputs", "")) for state in self.models.values()]
        return "\n".join([str(state.get("value", "")) for state in self.models.values()] + outputs)


@pytest.fixture
def browser(new_notebook: Callable[..., Notebook]) -> Browser:
    return Browser(new_notebook(EXAMPLES))


@pytest.mark.slow
def test_a_model_is_trained_from_a_panel_while_cells_run(browser: Browser) -> None:
    browser.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    browser.run("%lepton panel train")
    bundle = browser.shown[-1]
    assert {WIDGET, "text/html", "text/plain"} <= set(bundle)
    assert bundle[WIDGET]["model_id"] in browser.models
    browser.run(NET.replace("return self.layers(x)", "import time; time.sleep(0.1); return self.layers(x)"))
    browser.put("ComboboxModel", "model", "TumorNet")
    browser.put("ComboboxModel", "data", "wdbc")
    browser.put("IntTextModel", "epochs", 6)
    browser.listen(lambda: "%lepton train TumorNet --data wdbc --epochs 6" in browser.text())
    browser.press("Train")
    browser.listen(lambda: "for</span>" in browser.text(), timeout_s=60)  # the run's card moves …
    asked = monotonic()
    browser.run("done = 1 + 1")  # … and the kernel is free
    browser.run("import lepton_jupyter as lepton; state = lepton.runs()[0].state; assert state != 'completed', state")
    assert monotonic() - asked < 60
    browser.listen(lambda: "TumorNet@1" in browser.text() and ">completed</span>" in browser.text())
    browser.listen(lambda: any("TumorNet@1" in str(state.get("value")) for state in browser.models.values()))
    browser.run("run = lepton.runs()[0]; assert run.version == 'TumorNet@1', run")
    browser.run("assert run._fresh().command == '%lepton train TumorNet --data wdbc --epochs 6', run._fresh()")


@pytest.mark.slow
def test_a_run_is_stopped_from_a_panel_and_an_error_is_said_there(browser: Browser) -> None:
    browser.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    browser.run("%lepton panel train")
    browser.put("ComboboxModel", "model", "Missing")
    browser.put("ComboboxModel", "data", "wdbc")
    browser.listen(lambda: "train Missing" in browser.text())
    browser.press("Train")
    browser.listen(lambda: "No model named &#x27;Missing&#x27;" in browser.text())
    browser.run(NET.replace("return self.layers(x)", "import time; time.sleep(0.5); return self.layers(x)"))
    browser.put("ComboboxModel", "model", "TumorNet")
    browser.listen(lambda: "train TumorNet" in browser.text())
    browser.press("Train")
    stop = browser.listen(
        lambda: [k for k, s in browser.models.items() if s.get("description") == "Stop" and s.get("disabled") is False]
    )
    browser._send(stop[-1], {"method": "custom", "content": {"event": "click"}})
    browser.listen(lambda: ">stopped</span>" in browser.text())
    browser.run("import lepton_jupyter as lepton; assert lepton.runs()[0].wait().state == 'stopped'")


@pytest.mark.slow
def test_a_panel_of_all_words_draws_a_tab_when_it_is_opened(browser: Browser) -> None:
    browser.run("%lepton panel")
    tab = next(key for key, state in browser.models.items() if state.get("_model_name") == "TabModel")
    assert not [s for s in browser.models.values() if s.get("description") == "Evaluate"]
    of_evaluate = 1 + list(WORDS).index("evaluate")
    browser._send(tab, {"method": "update", "state": {"selected_index": of_evaluate}, "buffer_paths": []})
    browser.listen(lambda: [s for s in browser.models.values() if s.get("description") == "Evaluate"])
    browser.press("Refresh")
    browser.listen(lambda: "None yet" in browser.text())
