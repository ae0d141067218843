"""A further process of a search: ``python -m lepton_jupyter.stages.tune.worker FOLDER DEVICE``.

It asks for trials by lines of JSON on its standard output, and hears of them on its standard input.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import IO, Any

import msgspec

from lepton_jupyter.core.session import Quiet, Session
from lepton_jupyter.stages.train.job import Outcome
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.tune.engine import train_trials
from lepton_jupyter.stages.tune.searching import Begun, reason_of
from lepton_jupyter.stages.tune.space import Space
from lepton_jupyter.stages.tune.spec import Tune
from lepton_jupyter.stages.tune.trial import Question
from lepton_jupyter.stages.tune.workers import QUESTION


class Line:
    """The search, as it is asked over a line; see `searching.Asked`."""

    def __init__(self, session: Session, given: tuple[Question, Train, Space, Tune], pipes: tuple[IO[str], IO[str]]):
        self.session = session
        self.question, self.training, self.space, self.spec = given
        self._answers, self._requests = pipes

    def _ask(self, do: str, **said: Any) -> Any:
        self._requests.write(json.dumps({"do": do, **said}) + "\n")
        self._requests.flush()
        answer = self._answers.readline()
        if not answer:
            os._exit(1)  # nobody is there any more
        return json.loads(answer)

    @property
    def n_left(self) -> int:
        """How many trials are still to be begun."""
        return int(self._ask("n_left"))

    def begin(self) -> Begun | None:
        """Begin a trial; None where no further one is wanted."""
        found = self._ask("begin")
        if found is None:
            return None
        return Begun(found["number"], found["values"], msgspec.convert(found["training"], Train))

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Note a trial's value after an epoch; return whether it is to end here."""
        return bool(self._ask("report", number=number, epoch=epoch, value=value))

    def keep(self, number: int, value: float, outcome: Outcome, folder: Path) -> None:
        """Take over the weights below a folder, where the trial is the best so far."""
        told = {"history": outcome.history, "epochs": outcome.epochs}
        self._ask("keep", number=number, value=value, outcome=told, folder=str(folder))

    def end(self, number: int, state: str, value: float | None = None, *, reason: str = "") -> None:
        """End a trial."""
        self._ask("end", number=number, state=state, value=value, reason=reason)

    def fail(self, number: int, error: Exception) -> None:
        """End a trial by its error."""
        if self._ask("fail", number=number, reason=reason_of(error)):
            raise error

    def has_best(self) -> bool:
        """Whether a trial was completed."""
        return bool(self._ask("has_best"))


def main(folder: Path, device: str) -> None:
    """Train trials until there are no more. What the user's code prints goes to the log."""
    requests = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    given = pickle.loads((folder / "trials" / QUESTION).read_bytes())  # noqa: S301  the run's kernel wrote it, mode 0600
    train_trials(
        Line(Quiet(folder.name, folder, (device,)), given, (sys.stdin, requests)), slot=device.replace("/", "-")
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
