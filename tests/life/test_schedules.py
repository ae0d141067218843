"""Schedules and reports in real life: what goes wrong at night is told in the morning."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.formats.alerts import DID_NOT_FIRE, REPORT_FAILED
from tests.faces.test_flows import Typing, _notebook
from tests.faces.test_flows import person as person  # a fixture
from tests.life.conftest import Notebook

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]

MODEL = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
import numpy as np, polars as pl
Net = make_pipeline(StandardScaler(), LogisticRegression())
def rows(n, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    return pl.DataFrame({"a": a + shift, "b": rng.normal(size=n), "always": np.full(n, 1.5),
                         "y": np.where(a + rng.normal(size=n) > 0, "yes", "no")})
"""


def _alerts(person: Typing, name: str) -> dict[str, str]:
    return {alert.rule: alert.state for alert in person("lepton.alerts()") if alert.view.schedule == name}


def test_a_notebook_that_is_gone_raises_hangs_or_prints_100_mb_is_told_and_harms_nothing(
    person: Typing, tmp_path: Path, home: Home, eventually: Wait
) -> None:
    _notebook(tmp_path / "gone.ipynb", "x = 1")
    _notebook(tmp_path / "raises.ipynb", "x = 1", "print('before')", "1 / 0")
    _notebook(tmp_path / "hangs.ipynb", "x = 1", "sum(range(10**13))")
    _notebook(tmp_path / "prints.ipynb", "x = 1", "for i in range(10**6):\n    print('y' * 99)")
    _notebook(tmp_path / "fine.ipynb", "x = 1")
    person("%lepton schedule gone.ipynb --every 1s")
    (tmp_path / "gone.ipynb").unlink()
    for name, flags in (("raises", ""), ("hangs", "--timeout 3s"), ("prints", ""), ("fine", "")):
        person(f"%lepton schedule {name}.ipynb --every 12h {flags}")
    runs = {name: person(f"fired = lepton.tick({name!r})\nfired[0]") for name in ("raises", "hangs", "prints", "fine")}

    assert runs["raises"].state == "failed" and "ZeroDivisionError" in runs["raises"].error
    assert runs["hangs"].state == "failed" and "past its time-out of 3s" in runs["hangs"].error
    assert runs["prints"].state == "completed" and runs["fine"].state == "completed"
    assert RunFolder(runs["prints"].folder).notebook.stat().st_size < 3_000_000
    assert _alerts(person, "raises") == _alerts(person, "hangs") == {REPORT_FAILED: "firing"}
    assert _alerts(person, "prints") == _alerts(person, "fine") == {}

    eventually(lambda: _alerts(person, "gone") == {DID_NOT_FIRE: "firing"}, what="the alert of the missing notebook")
    person("lepton.stop('gone')")
    gone = person("lepton.show('schedule/gone')")
    assert "is gone" in repr(gone) and "did not fire: No notebook" in repr(gone)
    assert "its notebook is gone" in repr(person("lepton.schedules()"))

    _notebook(tmp_path / "raises.ipynb", "x = 1", "print('mended')")
    person("lepton.tick('raises')")
    assert _alerts(person, "raises") == {REPORT_FAILED: "resolved"}


def test_a_schedule_goes_on_when_the_kernel_that_made_it_and_then_the_backend_are_killed(
    new_notebook: Callable[..., Notebook], tmp_path: Path, client: Any, eventually: Wait
) -> None:
    (tmp_path / "work").mkdir()
    _notebook(tmp_path / "work" / "report.ipynb", "x = 1", "open('seen', 'a').write('.')")
    notebook = new_notebook(tmp_path / "work")
    notebook.run("%lepton schedule report.ipynb --every 2s --overlap skip")
    notebook.kill()
    eventually(lambda: client().schedule("report").n_fired >= 1, timeout_s=90, what="it fires")
    seen = tmp_path / "work" / "seen"
    eventually(seen.exists, timeout_s=60, what="the first run")
    os.kill(client().health().pid, signal.SIGKILL)
    n_seen = len(seen.read_text())
    eventually(lambda: len(seen.read_text()) >= n_seen + 2, timeout_s=90, what="it fires again, though nobody asks")
    assert client().pause_schedule("report").state == "paused"
    firings = client().schedule("report").firings
    assert len(firings) < 20  # all of them: the list holds twenty
    for later, earlier in pairwise(firings):  # every due time once: fired, skipped or missed
        assert later.due_at - earlier.due_at == pytest.approx(2.0 * (1 + later.n_missed), abs=0.01)


@pytest.fixture
def endpoint(person: Typing, home: Home) -> Typing:
    """A person with an endpoint whose training data had a column that never changed."""
    person(MODEL)
    person("rows(400).write_csv('rows.csv')")
    person("%lepton data kinds rows.csv --target y")
    person("%lepton train Net --data kinds --name Net")
    person("e = lepton.deploy('Net', as_='kinds', force='a test')")
    return person


def test_reports_say_what_they_can_and_no_more(endpoint: Typing, home: Home, tmp_path: Path) -> None:
    person = endpoint
    person("e.predict(rows(1).drop('y'))")
    one = person("lepton.monitor('kinds')")
    assert one.verdict == "NOT ENOUGH DATA" and one.checks["psi"] is None and one.checks["predictions"] == 1

    person("e.predict(rows(500, seed=2).drop('y').with_columns(pl.lit(0.25).alias('b')))")
    constant = person("lepton.monitor('kinds')")
    assert constant.verdict == "DRIFT" and constant.drifted == ("b",)
    assert "b" in repr(constant) and "<script" not in constant._repr_html_() and constant.figures()
    again = person(f"lepton.show({constant.ref!r})")
    assert again.record == constant.record

    person("lepton.stop('endpoint/kinds')")
    everything = person("lepton.monitor('kinds', window='1h')")  # of a stopped endpoint too
    assert everything.checks["predictions"] == 501


def test_an_endpoint_that_stops_under_its_monitor_leaves_reports_that_say_so(
    endpoint: Typing, capsys: Any, eventually: Wait
) -> None:
    person = endpoint
    card = person("s = lepton.monitor('kinds', every='3h', alert=['psi > 0.2', 'predictions < 1'], for_reports=1)\ns")
    assert card.name == "monitor-kinds" and "psi > 0.2; predictions < 1" in repr(card)
    person("lepton.stop('endpoint/kinds')")
    assert [run.state for run in person("lepton.tick('monitor-kinds')")] == ["completed"]
    assert card.last.verdict == "NO TRAFFIC" or person("lepton.show('monitor-kinds')").last.verdict == "NO TRAFFIC"
    assert _alerts(person, "monitor-kinds") == {"predictions < 1": "firing"}
    capsys.readouterr()
    person("lepton.monitor('kinds', every='4h')")
    assert "Endpoint 'kinds' is stopped" in capsys.readouterr().err
    person("lepton.delete('endpoint/kinds')")
    assert len(person("lepton.schedules()")) == 0


def test_a_report_of_ones_own_makes_its_own_checks(endpoint: Typing, tmp_path: Path, home: Home) -> None:
    person = endpoint
    _notebook(
        tmp_path / "mine.ipynb",
        "limit = 1",
        "import lepton_jupyter as lepton\nwindow = lepton.window()\nlepton.check('n', window.rows.height)",
    )
    person("e.predict(rows(7).drop('y'))")
    run = person("lepton.monitor('kinds', notebook='mine.ipynb')")
    assert run.state == "completed" and run.kind == "monitor"
    assert run.checks == {"n": 7.0} and "n 7" in repr(run)
    said = person.refused('%lepton monitor kinds --notebook mine.ipynb --every 1h --alert "psi > 0.2"')
    assert "No check named 'psi'" in said and "Known: n" in said
    person('%lepton monitor kinds --notebook mine.ipynb --every 1h --alert "n > 3" --for-reports 1')
    person("e.predict(rows(5).drop('y'))")
    person("lepton.tick('monitor-kinds')")
    assert _alerts(person, "monitor-kinds") == {"n > 3": "firing"}


def test_our_report_can_be_taken_out_edited_and_given_back(endpoint: Typing, tmp_path: Path) -> None:
    person = endpoint
    said = str(person("%lepton monitor kinds --eject mine.ipynb"))
    assert "--notebook mine.ipynb" in said
    assert "there already" in person.refused("%lepton monitor kinds --eject mine.ipynb")
    assert "is no notebook's name" in person.refused("%lepton monitor kinds --eject mine.txt")
    notebook = json.loads((tmp_path / "mine.ipynb").read_text())
    assert any("parameters" in cell["metadata"].get("tags", []) for cell in notebook["cells"])
    person("e.predict(rows(400, seed=3).drop('y'))")
    found = person("lepton.monitor('kinds', notebook='mine.ipynb')")
    assert found.checks["predictions"] == 400


REFUSED = [
    ("monitor kind", "No endpoint named 'kind'", "Did you mean 'kinds'"),
    ('monitor kinds --alert "psi > 0.2"', "--alert belongs to a schedule", "--every 1h"),
    ("monitor kinds --notify env:X --retries 2", "--retries, --notify belong to a schedule", "--every"),
    ('monitor kinds --every 1h --alert "psy > 0.2"', "No check named 'psy'", "Did you mean 'psi'"),
    ('monitor kinds --every 1h --alert "psi(c) > 0.2"', "No column named 'c'", "a, b"),
    ('monitor kinds --every 1h --alert "missing > 20"', "between 0 and 1", "write 0.2"),
    ('monitor kinds --every 1h --alert "unseen(a) > 0.1"', "would never be met", "outside > 10"),
    ("monitor kinds --every 0m", "'0m'", "too short"),
    ('monitor kinds --every "99 * * * *"', "'99 * * * *'", "no cron expression"),
    ("monitor kinds --every 1h --tz Mars/Olympus", "'Mars/Olympus'", "IANA"),
    ("monitor kinds --every 1h --window 5", "'5'", "no span"),
    ("monitor kinds --every 1h --notebook nope.ipynb", "No notebook", "nope.ipynb"),
    ("monitor kinds --every 1h --notify env:NOT_SET_HERE", "'NOT_SET_HERE'", "not set"),
    ("monitor kinds --every 1h --on-alert reboot", "reboot", "retrain"),
]


def test_a_monitor_that_makes_no_sense_is_refused_when_it_is_defined(endpoint: Typing, home: Home) -> None:
    for line, *wanted in REFUSED:
        said = endpoint.refused(f"%lepton {line}")
        assert all(text in said for text in wanted), (line, said)
    assert list(home.schedules.iterdir()) == []
