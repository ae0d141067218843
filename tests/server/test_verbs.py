"""What a row's menu does is what the typed line does."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.server import verbs
from lepton_jupyter.faces.server.verbs import CHANGES, STARTS, read
from lepton_jupyter.faces.verbs import VERBS
from tests.backend.conftest import cells


def body(**fields: Any) -> bytes:
    """Return what a browser sends."""
    return json.dumps(fields).encode()


def test_every_verb_of_the_browser_is_a_verb_of_the_table() -> None:
    assert {*CHANGES, *STARTS} <= set(VERBS)


def test_fields_become_the_struct_of_the_typed_line() -> None:
    spec: Any = read("deploy", body(**{"model": "Net@2", "as": "door", "port": "8500"}), None)
    assert (spec.model, spec.as_, spec.port) == ("Net@2", "door", 8500)
    spec = read("deploy", body(model="Net@2", as_="door"), None)
    assert spec.as_ == "door"


def test_a_word_that_is_no_field_and_a_body_that_is_no_object_are_named() -> None:
    with pytest.raises(LeptonError, match=r"No field of deploy named 'modl'.*Did you mean 'model'"):
        read("deploy", body(modl="Net"), None)
    with pytest.raises(LeptonError, match="is no JSON object"):
        read("stop", b"[1]", None)
    with pytest.raises(LeptonError, match="deploy needs"):
        read("deploy", b"", None)
    with pytest.raises(LeptonError, match=r"No verb named 'stopp'"):
        read("stopp", b"", None)


def test_a_notebook_is_looked_for_in_the_folder_of_the_file_browser(tmp_path: Path) -> None:
    spec: Any = read("schedule", body(notebook="RTC:sub/a.ipynb", every="1h", params={"n": 3}), tmp_path)
    assert (spec.notebook, spec.params) == (str(tmp_path / "sub/a.ipynb"), {"n": 3})


def test_a_notebook_keeps_the_kernel_it_was_written_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    path = tmp_path / "a.ipynb"
    for name, program in (("other", "/opt/other/bin/python"), ("mine", sys.executable), ("plain", "python")):
        (tmp_path / "kernels" / name).mkdir(parents=True)
        spec = {"argv": [program, "-m", "ipykernel_launcher"], "display_name": name, "language": "python"}
        (tmp_path / "kernels" / name / "kernel.json").write_text(json.dumps(spec))
    for name, wanted in (("other", "other"), ("mine", None), ("plain", None), ("gone", None)):
        path.write_text(json.dumps({"metadata": {"kernelspec": {"name": name}}}))
        assert verbs.kernel_of(path) == wanted
    assert verbs.kernel_of(tmp_path / "none.ipynb") is None


@pytest.mark.slow
async def test_a_form_makes_a_schedule_that_fires_and_is_paused_and_deleted(
    ask: Callable[..., Any], home: Home, jp_root_dir: Path
) -> None:
    folder = jp_root_dir / "reports"
    folder.mkdir()
    source = cells("region = 'south'", "print(region)")
    source["cells"][0]["metadata"]["tags"] = ["parameters"]
    (folder / "weekly.ipynb").write_text(json.dumps(source))
    fields = {"notebook": "reports/weekly.ipynb", "every": "1s", "tz": "Europe/Berlin", "params": {"region": "north"}}
    answer = await ask("verbs/schedule", "POST", fields=fields)
    assert answer.code == 200, answer.body
    assert json.loads(answer.body)["ref"] == "schedule/weekly"
    client = await asyncio.to_thread(Client.connect, home)
    deadline = time.monotonic() + 120
    while not any(
        run.schedule == "weekly" and run.state == "completed" for run in await asyncio.to_thread(client.runs)
    ):
        assert time.monotonic() < deadline, await asyncio.to_thread(client.runs)
        await asyncio.sleep(0.2)
    wrong = await ask("verbs/schedule", "POST", fields={**fields, "every": "61 * * * *"})
    assert (wrong.code, "61 * * * *" in json.loads(wrong.body)["error"]["message"]) == (400, True)
    assert (await ask("verbs/stop", "POST", fields={"ref": "schedule/weekly"})).code == 200
    board = json.loads((await ask("api/v1/schedules")).body)
    assert board[0]["state"] == "paused"
    assert (await ask("verbs/delete", "POST", fields={"ref": "schedule/weekly"})).code == 200


async def test_an_error_has_message_hint_and_code(ask: Callable[..., Any]) -> None:
    answer = await ask("verbs/delete", "POST", fields={"ref": "Net"})
    assert answer.code == 400
    error = json.loads(answer.body)["error"]
    assert "delete does not guess what 'Net' is." in error["message"]
    assert "model/Net" in error["hint"]
    other = await ask("verbs/train", "POST")
    assert (other.code, "Known: stop" in json.loads(other.body)["error"]["message"]) == (404, True)


@pytest.mark.slow
async def test_rows_are_deployed_promoted_stopped_and_deleted_from_the_browser(
    ask: Callable[..., Any], home: Home, saved: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await asyncio.to_thread(Client.connect, home)
    first, second = saved("Net"), saved("Net", slope=2.0)
    for run_id in (first, second):
        await asyncio.to_thread(client.submit, run_id)
    answer = await ask("verbs/promote", "POST", fields={"model": "Net@1", "alias": "champion"})
    assert (answer.code, "champion" in json.loads(answer.body)["text"]) == (200, True)
    answer = await ask(
        "verbs/deploy", "POST", fields={"model": "Net@champion", "as": "door", "force": "a test"}, request_timeout=120
    )
    assert answer.code in (200, 202), answer.body
    assert json.loads(answer.body)["ref"] in ("endpoint/door", "")
    answer = await ask("verbs/promote", "POST", fields={"model": "Net@2", "alias": "champion"})
    assert answer.code == 200, answer.body
    endpoint = await asyncio.to_thread(client.endpoint, "door")
    assert endpoint.run_id == second
    answer = await ask("verbs/rollback", "POST", fields={"endpoint": "door"})
    assert (answer.code, json.loads(answer.body)["ref"]) == (200, "endpoint/door"), answer.body
    assert (await asyncio.to_thread(client.endpoint, "door")).run_id == first
    answer = await ask("verbs/stop", "POST", fields={"ref": "endpoint/door"})
    assert answer.code == 200, answer.body
    answer = await ask("verbs/delete", "POST", fields={"ref": "endpoint/door"})
    assert json.loads(answer.body)["text"] == "endpoint/door was deleted."
    assert await asyncio.to_thread(client.endpoints) == []


@pytest.mark.slow
async def test_a_run_is_stopped_from_the_browser_and_a_long_verb_goes_on(
    ask: Callable[..., Any], home: Home, prepare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await asyncio.to_thread(Client.connect, home)
    folder = prepare("import time; time.sleep(600)")
    await asyncio.to_thread(client.submit, folder.run_id)
    while (await asyncio.to_thread(client.run, folder.run_id)).state != "running":
        await asyncio.sleep(0.1)
    monkeypatch.setattr(verbs, "ANSWER_S", 0.01)
    answer = await ask("verbs/stop", "POST", fields={"ref": f"run/{folder.run_id}"})
    assert answer.code == 202
    assert "stop run/" in json.loads(answer.body)["text"]
    while (await asyncio.to_thread(client.run, folder.run_id)).state != "stopped":
        await asyncio.sleep(0.1)
