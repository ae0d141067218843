"""Trials in parallel: a process for every further device, which asks this one for trials and tells it of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.processes import die_with_parent
from lepton_jupyter.stages.by_value import dumps
from lepton_jupyter.stages.train.job import Outcome
from lepton_jupyter.stages.tune.searching import Searching

LOOK_S = 0.05  # between two looks at whether the run is to stop
QUESTION = "question.pkl"


class Workers:
    """The processes of a search; they die with this one.

    Parameters
    ----------
    search : Searching
    devices : tuple of str
        One process each; the first of the run's is this process's own.
    """

    def __init__(self, search: Searching, devices: tuple[str, ...]) -> None:
        self._search = search
        self._folder = search.session.folder / "trials"
        self._workers: list[_Worker] = []
        if devices:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = dumps((search.question, search.training, search.space, search.spec))
            write_atomic(self._folder / QUESTION, content, is_durable=False)
        for device in devices:
            self._workers.append(_Worker(search, device, self._folder))

    def wait(self) -> None:
        """Wait until all have ended their trials, or the run is to stop."""
        while any(worker.is_alive() for worker in self._workers) and not self._search.session.should_stop():
            for worker in self._workers:
                worker.join(LOOK_S)

    def end(self) -> None:
        """End them, whatever they are at: a trial that was begun is begun again when the search goes on."""
        for worker in self._workers:
            worker.end()


class _Worker:
    """One process, and the thread that answers it."""

    def __init__(self, search: Searching, device: str, folder: Path) -> None:
        self._search = search
        self._running: set[int] = set()
        self._is_ended = False
        visible = {} if device.startswith("cpu") else {"CUDA_VISIBLE_DEVICES": device}
        with (folder.parent / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lepton_jupyter.stages.tune.worker", str(folder.parent), device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log.fileno(),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **visible},
                preexec_fn=die_with_parent(),
                start_new_session=True,  # ■ is this process's affair
                text=True,
            )
        self._thread = threading.Thread(target=self._answer, name=f"trials on {device}", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it may still ask for something."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def end(self) -> None:
        """End it and collect it."""
        self._is_ended = True
        self._process.kill()
        self._thread.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # it was gone with an answer unread
                    pass

    def _answer(self) -> None:
        """Answer until it is gone; what it was at then has failed."""
        requests, answers = self._process.stdout, self._process.stdin
        assert requests is not None
        assert answers is not None
        try:
            for line in requests:
                answers.write(json.dumps(self._reply(**json.loads(line))) + "\n")
                answers.flush()
        except OSError:
            pass  # it died while it was answered
        code = self._process.wait()
        for number in () if self._is_ended else sorted(self._running):
            self._search.end(number, "failed", reason=f"The process that trained it ended with {code}.")

    def _reply(self, do: str, number: int = -1, **said: Any) -> Any:
        search = self._search
        if do == "begin":
            begun = search.begin()
            if begun is not None:
                self._running.add(begun.number)
            return msgspec.to_builtins(begun)
        if do == "report":
            return search.report(number, said["epoch"], said["value"])
        if do == "keep":
            search.keep(number, said["value"], Outcome(**said["outcome"]), Path(said["folder"]))
        elif do == "end":
            self._running.discard(number)
            search.end(number, said["state"], said["value"], reason=said["reason"])
        elif do == "fail":
            self._running.discard(number)
            try:
                search.fail(number, LeptonError(said["reason"], code="failed"))
            except LeptonError:
                return True  # and nobody begins another
        elif do == "has_best":
            return search.has_best()
        elif do == "n_left":
            return search.n_left
        return None
