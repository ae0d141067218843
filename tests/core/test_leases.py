"""Locks on devices, in a folder that others write to as well."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.leases import LeaseFolder, sign

Wait = Callable[..., Any]
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> LeaseFolder:
    made = LeaseFolder(tmp_path / "leases")
    made.check()
    return made


def test_files_and_folder_are_for_everybody_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = LeaseFolder(tmp_path / "leases")
        folder.check()
        lock = folder.take("GPU-a")
    finally:
        os.umask(before)
    assert lock is not None
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o1777
    assert stat.S_IMODE(folder.path("GPU-a").stat().st_mode) == 0o666
    lock.release()
    assert not folder.is_held("GPU-a")


def test_a_folder_in_which_anybody_can_replace_a_file_is_refused(folder: LeaseFolder) -> None:
    folder.root.chmod(0o777)
    with pytest.raises(LeptonError, match="replace another user's file"):
        folder.check()


@pytest.mark.parametrize("planted", ["link", "pipe", "second name"])
def test_what_somebody_planted_in_a_files_place_is_not_touched(
    folder: LeaseFolder, tmp_path: Path, planted: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    path = folder.path("GPU-a")
    match planted:
        case "link":
            path.symlink_to(precious)
        case "pipe":
            os.mkfifo(path)
        case _:
            path.hardlink_to(precious)
    with pytest.raises(LeptonError, match="GPU-a"):
        folder.take("GPU-a")
    assert not folder.is_held("GPU-a")
    assert precious.read_text() == "mine"


def test_a_killed_holder_frees_a_device_only_when_its_last_process_is_gone(
    folder: LeaseFolder, eventually: Wait
) -> None:
    lock = folder.take("GPU-a")
    assert lock is not None
    code = "import subprocess, sys, time\np = subprocess.Popen(['sleep', '60'], pass_fds=[int(sys.argv[1])])\n"
    code += "print(p.pid, flush=True)\ntime.sleep(60)"
    argv = [sys.executable, "-c", code, str(lock.descriptor)]
    parent = subprocess.Popen(argv, pass_fds=[lock.descriptor], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    sign(lock, parent.pid, "abc")
    lock.release()
    holder = folder.holder("GPU-a")
    assert holder is not None and (holder.pid, holder.uid, holder.run_id) == (parent.pid, os.getuid(), "abc")
    parent.kill()
    parent.wait()
    assert folder.take("GPU-a") is None
    left = folder.holder("GPU-a")
    assert left is not None and left.pid in (child, os.getpid())  # the system knows who took it, /proc who has it
    os.kill(child, signal.SIGKILL)
    eventually(lambda: not folder.is_held("GPU-a"), timeout_s=5)
    assert folder.holder("GPU-a") is None


def test_what_a_file_says_makes_no_device_taken(folder: LeaseFolder) -> None:
    lock = folder.take("GPU-a")
    assert lock is not None
    sign(lock, os.getpid(), "abc")
    lock.release()
    assert folder.path("GPU-a").read_text()
    assert folder.holder("GPU-a") is None


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user: root only")
def test_two_users_of_a_host_never_hold_the_same_device(folder: LeaseFolder, eventually: Wait) -> None:
    for above in (folder.root, *folder.root.parents):
        if above.is_relative_to("/tmp") and above != Path("/tmp") and above != folder.root:
            above.chmod(above.stat().st_mode | 0o011)
    mine = folder.take("GPU-a")
    assert mine is not None
    reader, writer = os.pipe()
    other = os.fork()  # not a new interpreter: another user may have no way to ours
    if other == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        mine.release()
        folder.check()
        locks = [folder.take("GPU-a"), folder.take("GPU-b")]
        found = folder.holder("GPU-a")
        os.write(writer, f"{[lock is not None for lock in locks]} {found and found.uid}".encode())
        signal.pause()
    try:
        assert os.read(reader, 100).decode() == f"[False, True] {os.getuid()}"
        assert folder.take("GPU-b") is None
        holder = folder.holder("GPU-b")
        assert holder is not None and (holder.pid, holder.uid, holder.run_id) == (other, NOBODY, "")
        assert "65534" in holder.text or "nobody" in holder.text
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    eventually(lambda: not folder.is_held("GPU-b"), timeout_s=5)
    mine.release()
