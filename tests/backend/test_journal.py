"""What happened to a model, told from what there is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home, RunFolder

pytestmark = pytest.mark.slow

TELL = """
import json, os, time
event = {"at": time.time(), "kind": "result", **json.loads(%r)}
open(os.environ["LEPTON_RUN"] + "/events.kernel.jsonl", "a").write(json.dumps(event) + "\\n")
"""


def _retrain(client: Client, prepare: Callable[..., RunFolder], *cells: str, model: str = "Net") -> str:
    folder = prepare(*cells, kind="retrain", title=model)
    client.submit(folder.run_id)
    list(client.events(folder.run_id))
    return folder.run_id


def test_a_journal_tells_versions_verdicts_aliases_and_retrains_in_order(
    home: Home, saved: Callable[..., str], judge: Callable[..., Any], prepare: Callable[..., RunFolder]
) -> None:
    client = Client.connect(home)
    assert client.journal("Net") == []
    first, second, other = saved(), saved(), saved("Other")
    for run_id in (first, second, other):
        client.submit(run_id)
    judge(client, first)
    judge(client, second, verdict="FAIL")
    told = json.dumps({"decision": "keep", "reason": "Net@2 misses roc_auc >= 0.9.", "version": "Net@2"})
    _retrain(client, prepare, TELL % told)
    failed = _retrain(client, prepare, "raise ValueError('no such luck')")
    _retrain(client, prepare, "x = 1", model="Other")
    client.promote("Net@2", "champion", why="promoted by Ada")

    entries = client.journal("Net")
    assert [(entry.what, entry.text) for entry in entries if entry.run_id != failed] == [
        ("trained", "Net@1: saved from a notebook"),
        ("trained", "Net@2: saved from a notebook"),
        ("evaluated", "Net@1: PASS on wdbc@1:test"),
        ("alias", "Net@1 became champion: the first that was evaluated without FAIL"),
        ("evaluated", "Net@2: FAIL on wdbc@1:test"),
        ("retrain", "not promoted: Net@2 misses roc_auc >= 0.9."),
        ("alias", "Net@1 became previous: was champion"),
        ("alias", "Net@2 became champion: promoted by Ada"),
    ]
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
    (broken,) = [entry for entry in entries if entry.run_id == failed]
    assert broken.text.startswith("retrain failed: ")
    assert "no such luck" in broken.text


def test_an_evaluation_inside_a_retrain_leaves_the_alias_to_it(
    home: Home, saved: Callable[..., str], prepare: Callable[..., RunFolder]
) -> None:
    client = Client.connect(home)
    version = saved()
    client.submit(version)
    parent = _retrain(client, prepare, "x = 1")
    found = TELL % json.dumps({"verdict": "PASS", "metrics": {"roc_auc": 0.97}})
    folder = prepare(found, kind="evaluate", model_version=version, dataset="wdbc@1:test", parent=parent)
    client.submit(folder.run_id)
    list(client.events(folder.run_id))
    assert (client.version("Net").verdict, client.version("Net").aliases) == ("PASS", ())


def test_a_retrain_that_failed_leaves_no_training_behind(
    home: Home, prepare: Callable[..., RunFolder], eventually: Callable[..., Any]
) -> None:
    client = Client.connect(home)
    wait = "import pathlib, time\nwhile not pathlib.Path(%r).exists(): time.sleep(0.1)\nraise TimeoutError('too long')"
    flag = home.root / "failing"
    parent = prepare(wait % str(flag), kind="retrain", title="Net")
    client.submit(parent.run_id)
    inner = prepare("import time; time.sleep(600)", kind="notebook", parent=parent.run_id)
    client.submit(inner.run_id)
    eventually(lambda: client.run(inner.run_id).state == "running", timeout_s=120)
    flag.touch()
    ended = eventually(lambda: (view := client.run(inner.run_id)).ended_at and view, timeout_s=120, what="its end")
    assert ended.state == "stopped"
    assert client.run(parent.run_id).state == "failed"
