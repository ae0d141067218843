"""``schedule``, ``schedules``, ``tick``, and what ``show``, ``stop``, ``delete`` do with a schedule, as typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.arguments import parse, render, usage
from lepton_jupyter.faces.objects.schedule import outcome
from lepton_jupyter.faces.objects.when import local, span
from lepton_jupyter.formats.schedule import FiringView, ScheduleRecord
from lepton_jupyter.runner.spec import Panel
from lepton_jupyter.stages.monitor.spec import Tick
from tests.faces.test_flows import Typing, _notebook
from tests.faces.test_flows import person as person  # a fixture

REFUSED = [
    ("schedule report.ipynb", "needs --every", "%lepton run report.ipynb"),
    ("schedule report.ipynb --every often", "'often'", "Known: an interval"),
    ("schedule report.ipynb --every dayly", "'dayly'", "Did you mean 'daily'"),
    ('schedule report.ipynb --every "61 * * * *"', "'61 * * * *'", "no cron expression"),
    ('schedule report.ipynb --every "0 0 30 2 *"', "'0 0 30 2 *'", "never fires"),
    ('schedule report.ipynb --every "*/5 * * * * *"', "six fields", "five"),
    ("schedule report.ipynb --every 0s", "'0s'", "too short"),
    ("schedule report.ipynb --every 0", "'0'", "Known: an interval"),
    ("schedule report.ipynb --every 100ms", "'100ms'", "Known: an interval"),
    ("schedule report.ipynb --every 5m --tz Europe/Berln", "'Europe/Berln'", "Did you mean 'Europe/Berlin'"),
    ("schedule report.ipynb --every 5m --timeout 10", "'10'", "10"),
    ("schedule report.ipynb --every 5m --retries 11", "11", "at most 10"),
    ("schedule report.ipynb --every 5m --catch-up newest", "newest", "skip, latest, all"),
    ('schedule report.ipynb --every 5m --alert "shares > 1"', "'shares'", "Did you mean 'share'"),
    ('schedule report.ipynb --every 5m --alert "share"', "'share'", "is not a rule"),
    ("schedule report.ipynb --every 5m --notify env:NOT_SET_HERE", "'NOT_SET_HERE'", "not set"),
    ("schedule report.ipynb --every 5m --notify https://example.org/secret", "named, not typed", "env:"),
    ("schedule report.ipynb --every 0 7 * * mon", "'7 * * mon'", "quotes"),
    ("schedule reprot.ipynb --every 5m", "reprot.ipynb", "Did you mean 'report.ipynb'"),
    ("schedule broken.ipynb --every 5m", "broken.ipynb", "cannot be read as a notebook"),
    ("schedule 2024.ipynb --every 5m", "'2024'", "--name"),
    ("schedule report.ipynb --every 5m --name no/slash", "no/slash", "a name is a letter"),
]


@pytest.fixture
def at_work(person: Typing, tmp_path: Path) -> Typing:
    """A person in a folder with notebooks."""
    _notebook(
        tmp_path / "report.ipynb", "region = 'south'", "import lepton_jupyter as lepton\nlepton.check('share', 0.3)"
    )
    _notebook(tmp_path / "2024.ipynb", "x = 1")
    (tmp_path / "broken.ipynb").write_text("no json")
    return person


def _record(home: Home, name: str) -> ScheduleRecord:
    import msgspec

    (path,) = (home.schedules / name).glob("*/schedule.json")
    return msgspec.json.decode(path.read_bytes(), type=ScheduleRecord)


@pytest.mark.slow
def test_a_schedule_that_makes_no_sense_is_refused_and_leaves_nothing(at_work: Typing, home: Home) -> None:
    for line, *wanted in REFUSED:
        said = at_work.refused(f"%lepton {line}")
        assert all(text in said for text in wanted), (line, said)
    assert "Traceback" not in said
    assert len(at_work("schedules = %lepton schedules\nschedules")) == 0
    assert list(home.schedules.iterdir()) == []


@pytest.mark.slow
def test_a_definition_holds_everything_that_a_firing_needs(
    at_work: Typing, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_WEBHOOK", "http://127.0.0.1:9/secret-word")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "hub-word")
    shown = at_work(
        's = %lepton schedule report.ipynb --every "0 7 * * mon" --tz Europe/Berlin -p region=north --timeout 10m '
        '--retries 2 --alert "share > 0.5" --notify env:OPS_WEBHOOK --catch-up all --overlap queue\ns'
    )
    record = _record(home, "report")
    assert (record.kind, record.subject, record.cwd) == ("notebook", "report.ipynb", str(tmp_path))
    assert (record.python, record.notebook) == (sys.executable, str(tmp_path / "report.ipynb"))
    assert (record.every, record.tz, record.timeout_s, record.retries) == ("0 7 * * mon", "Europe/Berlin", 600.0, 2)
    assert (record.catch_up, record.overlap, record.parameters) == ("all", "queue", {"region": "north"})
    assert record.alerts == ("share > 0.5",) and record.notify == ("env:OPS_WEBHOOK",) and len(record.source_hash) == 64
    assert record.command.startswith("%lepton schedule report.ipynb --every")
    text = repr(shown)
    assert "next Mon" in text and "07:00 CE" in text and "%lepton tick report" in text
    assert "<script" not in shown._repr_html_()
    files = [path for path in home.root.rglob("*") if path.is_file()]
    holders = {path.name for path in files if b"secret-word" in path.read_bytes()}
    assert holders == {"environment.json"}
    (environment,) = home.schedules.glob("report/*/environment.json")
    assert environment.stat().st_mode & 0o777 == 0o600 and "hub-word" not in environment.read_text()


@pytest.mark.slow
def test_a_schedule_is_paused_shown_fired_by_hand_and_removed(at_work: Typing, home: Home, capsys: Any) -> None:
    at_work("%lepton schedule report.ipynb --every 1h")
    first = at_work('lepton.show("report")')
    assert first.state == "active" and first.ref == "schedule/report" and 3500 < first.next_due_at - time.time() <= 3600
    fired = at_work('fired = lepton.tick("report")\nfired')
    assert [run.state for run in fired] == ["completed"]
    card = at_work('lepton.show("schedule/report")')
    assert [firing.state for firing in card.firings] == ["fired"] and card.last.run_id == fired[0].run_id
    assert f"run/{fired[0].run_id}" in repr(card) and "completed" in repr(card)
    assert fired[0].run_id in repr(at_work('lepton.show("' + fired[0].ref + '")'))
    assert repr(at_work("lepton.tick()")).startswith("Nothing was due; 'report' is next")
    paused = at_work('lepton.stop("report")')
    assert paused.state == "paused" and paused.next_due_at is None
    assert "%lepton schedule report.ipynb --every 1h" in capsys.readouterr().out
    assert "No schedule is active" in repr(at_work("lepton.tick()"))
    assert at_work("lepton.schedule('report.ipynb', every='1h')").state == "active"
    assert "Write" in at_work.refused("%lepton delete report") and "schedule/report" in at_work.refused(
        "%lepton delete report"
    )
    assert str(at_work("%lepton delete schedule/report")) == "schedule/report was deleted."
    assert "No schedule" in at_work.refused("%lepton show schedule/report")
    assert "No schedule named 'reprot'" in at_work.refused("%lepton tick reprot")
    assert list(home.schedules.iterdir()) == []


@pytest.mark.slow
def test_defining_again_replaces_but_never_another_notebook_of_the_same_name(
    at_work: Typing, home: Home, tmp_path: Path
) -> None:
    at_work("%lepton schedule report.ipynb --every 1h")
    at_work("%lepton schedule report.ipynb --every 2h")
    assert [view.view.every for view in at_work("lepton.schedules()")] == ["2h"]
    (tmp_path / "other").mkdir()
    _notebook(tmp_path / "other" / "report.ipynb", "x = 1")
    said = at_work.refused("%lepton schedule other/report.ipynb --every 1h")
    assert "--name report-2" in said and _record(home, "report").every == "2h"
    at_work("%lepton schedule other/report.ipynb --every 1h --name second")
    assert {view.name for view in at_work("lepton.schedules()")} == {"report", "second"}
    (tmp_path / "report.ipynb").unlink()
    assert "gone" in repr(at_work("lepton.schedules()"))
    at_work("%lepton schedule other/report.ipynb --every 1h")  # that one is gone: its place is free
    assert _record(home, "report").notebook == str(tmp_path / "other" / "report.ipynb")


@pytest.mark.slow
def test_parameters_that_nobody_reads_are_told(at_work: Typing, tmp_path: Path, capsys: Any) -> None:
    at_work("%lepton schedule report.ipynb --every 1h -p regoin=north")
    assert "no parameter 'regoin'" in capsys.readouterr().err
    notebook = json.loads((tmp_path / "report.ipynb").read_text())
    notebook["cells"][0]["metadata"] = {}
    (tmp_path / "bare.ipynb").write_text(json.dumps(notebook))
    at_work("%lepton schedule bare.ipynb --every 1h -p region=north")
    assert "no cell tagged 'parameters'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_changed_notebook_is_shown_until_it_is_scheduled_again(at_work: Typing, tmp_path: Path) -> None:
    at_work("%lepton schedule report.ipynb --every 1h")
    _notebook(tmp_path / "report.ipynb", "region = 'south'", "print('changed')")
    assert "has changed since it was scheduled" in repr(at_work('lepton.show("schedule/report")'))
    at_work("%lepton schedule report.ipynb --every 1h")
    assert "has changed" not in repr(at_work('lepton.show("schedule/report")'))


@pytest.mark.slow
def test_tick_in_a_shell_fires_waits_and_exits_0(at_work: Typing, home: Home, tmp_path: Path) -> None:
    at_work("%lepton schedule report.ipynb --every 1h")
    done = _shell("tick", "report")
    assert done.returncode == 0 and "completed" in done.stdout, done
    assert _shell("tick").stdout.startswith("Nothing was due")
    detached = _shell("tick", "report", "--detach")
    assert detached.returncode == 0
    assert _shell("tick", "reprot").returncode == 2


def _shell(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "lepton_jupyter.faces.cli", *words]
    return subprocess.run(argv, capture_output=True, text=True, env=dict(os.environ), timeout=120, check=False)


@pytest.mark.slow
def test_tick_sees_the_runs_through_that_are_due(at_work: Typing, eventually: Callable[..., Any]) -> None:
    at_work("%lepton schedule report.ipynb --every 1s --overlap skip")
    card = at_work('lepton.show("schedule/report")')
    eventually(lambda: card.firings, what="it is due")
    runs = at_work("lepton.tick()")
    at_work("lepton.stop('report')")
    assert all(run.state == "completed" for run in runs)


# -- without a backend


@pytest.mark.parametrize(
    ("words", "schedule", "detach"),
    [([], None, False), (["report"], "report", False), (["--detach"], None, True), (["--detach", "r"], "r", True)],
)
def test_a_word_that_may_be_left_out_may_be_left_out(words: list[str], schedule: str | None, detach: bool) -> None:
    spec = parse(Tick, words)
    assert (spec.schedule, spec.detach) == (schedule, detach)
    assert parse(Tick, render(spec).split()[1:]) == spec
    assert usage(Tick) == "%lepton tick [SCHEDULE] [--detach]"
    assert usage(Panel) == "%lepton panel [WORD]"


def test_what_became_of_a_firing_is_said_in_words() -> None:
    def said(**more: Any) -> str:
        return outcome(FiringView(due_at=0.0, at=0.0, **more))

    assert said(state="fired", run_state="running") == "running"
    assert said(state="fired", run_state="completed", verdict="DRIFT", n_missed=2) == "DRIFT; 2 earlier missed"
    assert said(state="missed", n_missed=4) == "5 times missed" and said(state="missed") == "missed"
    assert said(state="failed", why="No notebook 'x'.") == "did not fire: No notebook 'x'."
    assert said(state="skipped", why="the run before was still going") == "skipped: the run before was still going"
    assert outcome(None) == ""


def test_times_are_shown_by_the_clock_of_their_zone() -> None:
    assert local(1_772_430_000.0, "Europe/Berlin") == "Mon 2026-03-02 06:40 CET"
    assert local(1_772_430_005.0, "UTC") == "Mon 2026-03-02 05:40:05 UTC"
    assert local(1_772_430_000.0, "No/Such") == "2026-03-02 05:40 UTC"
    assert local(None, "UTC") == ""
    assert span(6 * 86_400 + 3 * 3600) == "6 d 3 h" and span(47 * 3600) == "47 h 0 min"


@pytest.mark.parametrize(
    ("stem", "name"), [("01_weekly_report", "weekly_report"), ("weekly report (2)", "weekly_report_2"), ("2024", "")]
)
def test_a_schedule_takes_what_a_name_may_keep_of_its_files(stem: str, name: str) -> None:
    from lepton_jupyter.faces.flows.schedule import name_from

    assert name_from(stem) == name
