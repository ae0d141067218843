"""What a run may take: its time, and the room that its output has."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import psutil
import pytest
from nbformat import from_dict

from lepton_jupyter.runner import outputs
from lepton_jupyter.runner.outputs import KeptOutput, shortened, trim_log
from lepton_jupyter.runner.stopping import _span
from tests.runner.conftest import StartedRun

Start = Callable[..., StartedRun]

HANGS = {
    "sleeps": "import time\ntime.sleep(300)",
    "holds the interpreter's lock in C": "sum(range(10**13))",
    "does not listen to signals": "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(300)",
    "swallows the interrupt": "import time\ntry:\n    time.sleep(300)\nexcept KeyboardInterrupt:\n    pass",
    "prints for ever": "while True:\n    print('x' * 1000)",
    "prints for ever, line by line": "while True:\n    print('x', flush=True)",
}


def _cells(run: StartedRun) -> list[dict[str, Any]]:
    return list(json.loads(run.folder.notebook.read_bytes())["cells"])


def _text(cell: dict[str, Any]) -> str:
    return "".join(output.get("text", "") for output in cell["outputs"])


@pytest.mark.slow
@pytest.mark.parametrize("cell", HANGS.values(), ids=HANGS)
def test_a_run_that_hangs_past_its_time_out_has_failed_and_says_so(start: Start, cell: str) -> None:
    run = start(cell, "print('never')", timeout_s=2.0)
    end = run.end()
    assert end["state"] == "failed", end
    assert end["error"]["message"].startswith("It ran past its time-out of 2s."), end
    assert run.statuses()[1] == "pending"
    assert run.kernel is not None and not run.kernel.is_alive()
    assert run.folder.notebook.stat().st_size < 3_000_000


@pytest.mark.slow
def test_a_run_within_its_time_is_left_alone(start: Start) -> None:
    assert start("print('quick')", timeout_s=120.0).end()["state"] == "completed"


@pytest.mark.slow
def test_a_time_out_is_over_before_the_kernel_is_up(start: Start) -> None:
    end = start("print('never')", timeout_s=0.01).end()
    assert end["state"] == "failed" and "time-out of 0.01s" in end["error"]["message"]


@pytest.mark.slow
def test_who_stops_a_run_before_its_time_is_over_has_stopped_it(start: Start, eventually: Callable[..., Any]) -> None:
    run = start("import time\ntime.sleep(300)", timeout_s=250.0)
    eventually(lambda: any(event["kind"] == "cell" for event in run.events()), what="the cell begins")
    sleep(0.3)  # between the message and the first line of the cell there is nothing to look at
    run.process.send_signal(signal.SIGTERM)
    assert run.end()["state"] == "stopped"


class _Peak(threading.Thread):
    """The most memory that a process has had."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.rss = 0
        self.start()

    def run(self) -> None:
        try:
            while True:
                self.rss = max(self.rss, self.process.memory_info().rss)
                sleep(0.05)
        except psutil.Error:
            return


@pytest.mark.slow
def test_a_cell_that_prints_100_mb_keeps_its_beginning_and_its_end(start: Start) -> None:
    run = start(
        "print('begin')\nfor i in range(10**6):\n    print('y' * 99)\nprint('end')",
        "print('begin', 'x' * 10**8, 'end')",
        "'z' * 10**8",
        "print('goes on')",
    )
    peak = _Peak(run.process.pid)
    end = run.end()
    assert end["state"] == "completed", end
    cells = _cells(run)
    for cell in cells[:2]:
        text = _text(cell)
        assert text.startswith("begin") and text.endswith("end\n")
        assert "characters left out" in text and 900_000 < len(text) < 1_100_000
        assert len(cell["outputs"]) < 400
    result = cells[2]["outputs"][0]["data"]["text/plain"]
    assert "characters left out" in result and len(result) < 1_100_000
    assert _text(cells[3]) == "goes on\n"
    assert peak.rss < 900_000_000


@pytest.mark.slow
def test_an_error_of_100_mb_is_cut_where_it_is_told(start: Start) -> None:
    run = start("raise ValueError('e' * 10**8)", kind="cell")
    end = run.end()
    assert end["state"] == "failed" and end["error"]["message"].startswith("ValueError: eee")
    assert len(json.dumps(end)) < 60_000
    assert run.folder.kernel_events.stat().st_size < 60_000
    assert run.folder.notebook.stat().st_size < 3_000_000


@pytest.mark.slow
def test_a_log_of_100_mb_is_cut_while_it_grows(start: Start) -> None:
    run = start("import os\nfor i in range(1000):\n    os.write(1, b'w' * 99_999 + b'!')", "import time\ntime.sleep(1)")
    assert run.end()["state"] == "completed"
    assert run.folder.log.stat().st_size < 2 * outputs.LOG_MAX


# -- without a kernel


def _print(kept: KeptOutput, text: str, name: str = "stdout") -> None:
    message = {"msg_type": "stream", "content": {"name": name, "text": text}}
    kept.take(message, _adder(kept.outputs))


def _adder(found: list[Any]) -> Callable[[dict[str, Any]], Any]:
    def add(message: dict[str, Any]) -> Any:
        output = from_dict({"output_type": message["msg_type"], **message["content"]})
        found.append(output)
        return output

    return add


def test_what_fits_is_kept_as_it_is() -> None:
    found: list[Any] = []
    kept = KeptOutput(found)
    for name in ("stdout", "stdout", "stderr", "stdout"):
        _print(kept, "a\n", name)
    kept.close()
    assert [(output["name"], output["text"]) for output in found] == [
        ("stdout", "a\na\n"), ("stderr", "a\n"), ("stdout", "a\n"),
    ]  # fmt: skip


def test_what_is_left_out_is_counted_to_the_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "KEPT", 10)
    found: list[Any] = []
    kept = KeptOutput(found)
    for digit in "0123456789" * 5:
        _print(kept, digit)
    kept.close()
    assert found[0]["text"] == "0123456789" and found[-1]["text"] == "0123456789"
    assert "30 characters left out" in found[1]["text"]


def test_a_little_too_much_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "KEPT", 10)
    found: list[Any] = []
    kept = KeptOutput(found)
    _print(kept, "0123456789abc")
    kept.close()
    assert "".join(output["text"] for output in found) == "0123456789\nabc"


def test_an_error_comes_behind_the_end_of_what_was_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "KEPT", 10)
    found: list[Any] = []
    kept = KeptOutput(found)
    _print(kept, "x" * 100 + "last words")
    error = {"ename": "E", "evalue": "v" * 10**6, "traceback": ["t" * 10**6]}
    kept.take({"msg_type": "error", "content": error}, _adder(found))
    kept.close()
    assert [output["output_type"] for output in found] == ["stream", "stream", "stream", "error"]
    assert found[2]["text"] == "last words"
    assert len(found[3]["evalue"]) < 30_000 and len(found[3]["traceback"][0]) < 30_000


def test_pictures_past_the_limit_are_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "RICH_MAX", 1000)
    found: list[Any] = []
    kept = KeptOutput(found)
    for _ in range(3):
        data = {"image/png": "p" * 600, "text/plain": "<Figure>"}
        kept.take({"msg_type": "display_data", "content": {"data": data, "metadata": {}}}, _adder(found))
    assert "image/png" in found[0]["data"]
    assert "image/png" not in found[1]["data"] and found[1]["data"]["text/plain"] == "<Figure>"


def test_a_text_is_shortened_in_its_middle_only_where_it_is_long() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("a" * 100, 10).startswith("aaaaa\n[… 90 characters left out …]")


def test_a_program_that_appends_to_its_log_goes_on_after_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "LOG_MAX", 1000)
    monkeypatch.setattr(outputs, "LOG_KEPT", 10)
    path = tmp_path / "log.txt"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b"beginning!" + b"x" * 2000 + b"the end..\n")
    trim_log(path)
    os.write(descriptor, b"more\n")
    os.close(descriptor)
    assert path.read_text() == "beginning!\n[… 2,000 bytes left out …]\nthe end..\nmore\n"
    trim_log(path)
    trim_log(tmp_path / "none")
    assert path.stat().st_size < 100


@pytest.mark.parametrize(("seconds", "text"), [(600, "10m"), (3600, "1h"), (90, "90s"), (0.5, "0.5s"), (5400, "90m")])
def test_a_time_out_is_told_as_it_was_typed(seconds: float, text: str) -> None:
    assert _span(seconds) == text
