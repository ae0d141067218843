"""Locks, identities, spawning: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lepton_jupyter.core.files import tail, write_atomic
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, Lock, is_held, kept_environment, reap, spawn

HOLDER = """
import sys, time
from pathlib import Path
from lepton_jupyter.core.processes import Lock
lock = Lock.take(Path(sys.argv[1]))
print("held" if lock else "taken", flush=True)
time.sleep(60)
"""

PROBER = """
from pathlib import Path
from lepton_jupyter.core.processes import is_held
for _ in range(20000):
    is_held(Path({path!r}))
"""


def _hold(path: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "held"
    return child


def test_a_lock_ends_with_its_holder_even_by_kill_9(tmp_path: Path) -> None:
    child = _hold(tmp_path / "lock")
    assert is_held(tmp_path / "lock")
    assert Lock.take(tmp_path / "lock") is None
    child.kill()
    child.wait()
    assert not is_held(tmp_path / "lock")
    lock = Lock.take(tmp_path / "lock")
    assert lock is not None
    lock.release()


def test_probing_a_free_lock_does_not_turn_a_taker_away(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    probe = PROBER.format(path=str(path))
    prober = subprocess.Popen([sys.executable, "-c", probe])
    try:
        for _ in range(300):
            lock = Lock.take(path)
            assert lock is not None
            lock.release()
    finally:
        prober.kill()
        prober.wait()


def test_a_holder_notices_that_its_lock_was_swept(tmp_path: Path) -> None:
    lock = Lock.take(tmp_path / "lock")
    assert lock is not None
    assert not lock.is_swept()
    (tmp_path / "lock").unlink()
    assert lock.is_swept()
    (tmp_path / "lock").touch()
    assert lock.is_swept()
    lock.release()


def test_a_lease_lives_as_long_as_the_last_process_that_inherited_it(
    tmp_path: Path, eventually: Callable[..., object]
) -> None:
    lock = Lock.take(tmp_path / "cpu-0")
    assert lock is not None
    child = spawn(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env=dict(os.environ),
        cwd=tmp_path,
        log=tmp_path / "log",
        pass_fds=(lock.descriptor,),
    )
    lock.release()
    assert is_held(tmp_path / "cpu-0")
    child.kill()
    eventually(lambda: not is_held(tmp_path / "cpu-0"), timeout_s=5)
    reap()


def test_an_identity_is_not_fooled_by_a_zombie_or_another_start() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    identity = Identity.of(child.pid)
    assert identity is not None
    assert identity.is_alive()
    assert Identity(**identity.to_dict()) == identity  # type: ignore[arg-type]
    later = Identity(identity.pid, identity.start_ticks + 1, identity.boot_id)
    assert not later.is_alive()
    assert not later.send(signal.SIGKILL)
    assert identity.send(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.is_alive()
    child.wait()


def test_a_record_is_old_or_new_and_never_half(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomic(path, b"old")
    assert path.stat().st_mode & 0o777 == 0o600
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n".join(str(i) for i in range(10_000)))
    assert tail(tmp_path / "log", 2) == "9998\n9999"
    assert tail(tmp_path / "none") == ""


def test_a_backend_inherits_no_secret() -> None:
    kept = kept_environment({"HOME": "/h", "LEPTON_HOME": "/l", "DB_URL": "secret", "JUPYTERHUB_API_TOKEN": "secret"})
    assert kept == {"HOME": "/h", "LEPTON_HOME": "/l"}


def test_a_socket_path_fits_however_long_the_home_is(tmp_path: Path) -> None:
    home = Home(tmp_path / ("h" * 100) / ("o" * 100))
    assert len(os.fsencode(home.runtime().socket)) < 104
