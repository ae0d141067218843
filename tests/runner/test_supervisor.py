"""Real supervisors and real kernels: how a run ends, and what its notebook says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, Lock, is_held
from lepton_jupyter.runner.sweep import sweep_session
from lepton_jupyter.runner.truth import repair_notebook
from tests.runner.conftest import StartedRun

pytestmark = pytest.mark.slow

Start = Callable[..., StartedRun]
Wait = Callable[..., Any]


def _in_cell(run: StartedRun, wait: Wait, *, index: int = 0) -> Identity:
    """Wait until a cell runs and has printed; return the kernel."""
    wait(
        lambda: any(e["kind"] == "cell" and e["index"] == index and e["status"] == "running" for e in run.events()),
        what="the cell begins",
    )
    sleep(0.3)  # between the message and the first line of the cell there is nothing to look at
    kernel = run.kernel
    assert kernel is not None
    return kernel


def test_a_run_of_two_cells_completes(start: Start, home: Home, tmp_path: Path) -> None:
    run = start("x = 6", "print(x * 7)", parameters={"y": 3}, output="out/copy.ipynb")
    end = run.end()
    assert end["kind"] == "state" and end["state"] == "completed", (end, run.folder.log.read_text())
    states = [event["state"] for event in run.events() if event["kind"] == "state"]
    assert states == ["starting", "running", "completed"]
    assert run.statuses() == ["completed"] * 3  # papermill injected the parameters
    text = run.folder.notebook.read_text()
    assert "42" in text and "y = 3" in text
    assert (tmp_path / "out" / "copy.ipynb").read_bytes() == run.folder.notebook.read_bytes()
    assert not is_held(home.runtime().run_lock(run.folder.run_id))
    assert list(home.runtime().kernels.iterdir()) == []


def test_a_failing_cell_tells_the_users_frames(start: Start, tmp_path: Path) -> None:
    (tmp_path / "mylib.py").write_text("def divide(x):\n    return x / 0\n")
    run = start(
        "import mylib\ndef outer(x):\n    return mylib.divide(x)", "print('before')\nouter(7)", "print('never')"
    )
    end = run.end()
    assert end["state"] == "failed"
    assert end["error"]["message"].startswith("ZeroDivisionError: division by zero (Cell In[1], line 3, in outer")
    assert "mylib.py:2" in end["error"]["detail"] and "return x / 0" in end["error"]["detail"]
    assert "\x1b" not in end["error"]["detail"]
    assert run.statuses() == ["completed", "failed", "pending"]
    cells = [event["status"] for event in run.events() if event["kind"] == "cell"]
    assert cells == ["running", "completed", "running", "failed"]


def test_an_error_of_ours_keeps_its_two_lines_and_its_code(start: Start) -> None:
    run = start(
        "from lepton_jupyter.core.errors import LeptonError",
        "raise LeptonError('No thing.\\nReally.', 'Type this.', code='refused', detail='a\\nb')",
    )
    assert run.end()["error"] == {
        "message": "No thing.\nReally.", "hint": "Type this.", "code": "refused", "detail": "a\nb",
    }  # fmt: skip


def test_a_killed_kernel_is_told_of_with_the_end_of_the_log(start: Start, eventually: Wait) -> None:
    run = start("import os, time\nos.system('echo last words >&2')\nprint('said', flush=True)\ntime.sleep(60)", "x = 1")
    kernel = _in_cell(run, eventually)
    kernel.send(signal.SIGKILL)
    end = run.end()
    assert end["state"] == "failed"
    assert re.fullmatch(
        r"The kernel was killed by the system \(SIGKILL\), perhaps for memory: it had used \d+ MB at its peak\.",
        end["error"]["message"],
    )
    assert end["died"]
    assert "Last lines of the log" in end["error"]["detail"] or not run.folder.log.read_text()
    assert run.statuses() == ["failed", "pending"]
    outputs = json.loads(run.folder.notebook.read_bytes())["cells"][0]["outputs"]
    assert outputs[-1]["output_type"] == "error" and "SIGKILL" in outputs[-1]["evalue"]


def test_a_kernel_that_exits_by_itself_says_its_code(start: Start) -> None:
    end = start("import os\nos._exit(3)").end()
    assert end["error"]["message"] == "The kernel ended by itself with exit code 3."


def test_a_killed_supervisor_takes_its_kernel_along_and_the_notebook_can_be_repaired(
    start: Start, eventually: Wait, home: Home
) -> None:
    # a cell that holds the interpreter's lock: nothing inside the kernel could look for its parent
    run = start("x = 1", "print('in', flush=True)\nsum(range(10**11))", "y = 2")
    kernel = _in_cell(run, eventually, index=1)
    run.process.kill()
    run.process.wait()
    eventually(lambda: not kernel.is_alive(), timeout_s=2, what="the kernel dies with its supervisor")
    assert not is_held(home.runtime().run_lock(run.folder.run_id))
    assert run.statuses() == ["completed", "running", "pending"]
    assert repair_notebook(run.folder.notebook, state="failed", message="The supervisor was killed.")
    assert run.statuses() == ["completed", "failed", "pending"]
    assert "The supervisor was killed." in run.folder.notebook.read_text()
    assert not repair_notebook(run.folder.notebook, state="failed", message="again")


def test_children_of_a_kernel_do_not_outlive_the_run(start: Start, tmp_path: Path, eventually: Wait) -> None:
    run = start(
        "import subprocess\nchild = subprocess.Popen(['sleep', '300'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))"
    )
    assert run.end()["state"] == "completed"
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: Identity.of(pid) is None, timeout_s=2)


def test_what_a_killed_supervisor_leaves_is_swept(start: Start, tmp_path: Path, eventually: Wait) -> None:
    path = tmp_path / "pid"
    run = start(
        "import subprocess, time\nchild = subprocess.Popen(['sleep', '300'], process_group=0)\n"
        f"open({str(path)!r}, 'w').write(str(child.pid))\ntime.sleep(100)"
    )
    kernel = _in_cell(run, eventually)
    eventually(lambda: path.exists() and path.read_text())
    run.process.kill()
    child = Identity.of(int(path.read_text()))
    assert child is not None
    eventually(lambda: not kernel.is_alive(), timeout_s=2)
    assert sweep_session(kernel) >= 1
    eventually(lambda: not child.is_alive(), timeout_s=2)


def test_a_stopped_run_ends_at_once_and_later_cells_do_not_run(start: Start, eventually: Wait) -> None:
    run = start("import time\nprint('go', flush=True)\ntime.sleep(60)", "print('never')")
    _in_cell(run, eventually)
    asked = monotonic()
    run.process.terminate()
    end = run.end()
    assert monotonic() - asked < 3
    assert end["state"] == "stopped" and end["error"]["code"] == "stopped"
    assert run.statuses()[1] == "pending"
    assert "never" not in json.dumps([c["outputs"] for c in json.loads(run.folder.notebook.read_bytes())["cells"]])


def test_a_loop_that_looks_at_the_flag_ends_by_itself(start: Start, eventually: Wait) -> None:
    loop = (
        "import time\nfrom lepton_jupyter.runner import session\nrun = session.current()\n"
        "while not run.should_stop():\n    time.sleep(0.01)\nprint('kept the best')"
    )
    run = start(loop, "print('shown')")
    _in_cell(run, eventually)
    run.process.terminate()
    end = run.end()
    assert end["state"] == "stopped"
    assert {"kind": "state", "state": "stopping"}.items() <= run.told()[-1].items()
    text = run.folder.notebook.read_text()
    assert "kept the best" in text and "shown" in text and run.statuses() == ["completed", "completed"]


def test_a_run_that_is_stopped_before_its_kernel_is_up_is_stopped(start: Start, eventually: Wait) -> None:
    run = start("print('never')")
    eventually(lambda: run.events(), what="the supervisor holds its lock")
    run.process.terminate()
    assert run.end()["state"] == "stopped"
    assert not run.folder.notebook.exists()


def test_a_second_signal_kills_a_cell_that_does_not_listen(start: Start, eventually: Wait) -> None:
    deaf = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(90)"
    )
    run = start(deaf, "print('never')")
    kernel = _in_cell(run, eventually)
    run.process.terminate()
    sleep(0.3)
    run.process.terminate()
    end = run.end()
    assert end["state"] == "stopped"
    assert not kernel.is_alive()
    assert run.statuses() == ["stopped", "pending"]


def test_the_environment_is_in_no_file_but_one(start: Start, home: Home) -> None:
    secret = "postgres://correct-horse-battery"
    run = start(
        "import os\nassert os.environ['DB_URL'].startswith('postgres')\n"
        "assert 'JUPYTERHUB_API_TOKEN' not in os.environ and 'JPY_PARENT_PID' not in os.environ\n"
        "print(os.environ['LEPTON_RUN'])",
        environment={"DB_URL": secret, "JUPYTERHUB_API_TOKEN": "hubtoken123", "JPY_PARENT_PID": "1"},
    )
    assert run.end()["state"] == "completed", run.events()[-1]
    files = [path for path in home.root.rglob("*") if path.is_file()]
    holders = [path.name for path in files if secret.encode() in path.read_bytes()]
    assert holders == ["environment.json"]
    assert run.folder.environment.stat().st_mode & 0o777 == 0o600
    assert not any(b"hubtoken123" in path.read_bytes() for path in files)


def test_a_swept_runtime_folder_does_not_end_a_run(start: Start, home: Home, eventually: Wait) -> None:
    run = start("import time\nprint('go', flush=True)\ntime.sleep(2.5)\nprint('done')")
    _in_cell(run, eventually)
    shutil.rmtree(home.runtime().root)
    eventually(lambda: is_held(home.runtime().run_lock(run.folder.run_id)), timeout_s=2, what="the lock is back")
    assert run.end()["state"] == "completed"
    assert "done" in run.folder.notebook.read_text()


def test_a_lease_lasts_as_long_as_the_kernel_and_no_longer(start: Start, home: Home, eventually: Wait) -> None:
    path = home.runtime().make().root / "cpu0"
    lease = Lock.take(path)
    assert lease is not None
    os.set_inheritable(lease.descriptor, True)
    run = start("import time\nprint('go', flush=True)\ntime.sleep(60)", pass_fds=(lease.descriptor,))
    lease.release()
    kernel = _in_cell(run, eventually)
    assert is_held(path)
    held = {str(link.readlink()) for link in Path(f"/proc/{kernel.pid}/fd").iterdir()}
    assert str(path) in held
    run.process.kill()
    run.process.wait()
    eventually(lambda: not is_held(path), timeout_s=3)


def test_a_second_supervisor_of_the_same_run_goes_away(start: Start, eventually: Wait, home: Home) -> None:
    run = start("import time\ntime.sleep(1.5)")
    _in_cell(run, eventually)
    argv = [sys.executable, "-m", "lepton_jupyter.runner.supervisor", str(run.folder.root)]
    assert subprocess.run(argv, check=False, timeout=20).returncode == 0
    assert run.end()["state"] == "completed"
    assert [e["state"] for e in run.events() if e["kind"] == "state"].count("starting") == 1


def test_an_interpreter_or_a_folder_that_is_gone_is_named(start: Start, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    run = start("x = 1", cwd=gone)
    shutil.rmtree(gone)
    end = run.end()
    assert end["state"] in ("failed", "completed")
    if end["state"] == "failed":
        assert str(gone) in end["error"]["message"]


def test_exit_handlers_of_the_notebook_are_called_once(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "left"
    run = start(f"import atexit\natexit.register(lambda: open({str(path)!r}, 'a').write('bye'))", "print('last')")
    assert run.end()["state"] == "completed"
    assert path.read_text() == "bye"
