"""The one table of verbs: which struct says what can be typed, and which function does it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.runner import spec as runs
from lepton_jupyter.stages.data import spec as data
from lepton_jupyter.stages.deploy import spec as deploy
from lepton_jupyter.stages.evaluate import spec as evaluate
from lepton_jupyter.stages.maintain import spec as maintain
from lepton_jupyter.stages.monitor import spec as monitor
from lepton_jupyter.stages.train import spec as train
from lepton_jupyter.stages.tune import spec as tune
from lepton_jupyter.stages.verbs import Verb

_FLOWS = "lepton_jupyter.faces.flows."


@dataclass(frozen=True)
class Command:
    """One verb of the table.

    Attributes
    ----------
    spec : type
        The struct: every face is derived from it.
    flow : str
        ``module:function`` below `lepton_jupyter.faces.flows`, loaded when the verb is used. The function gets an
        `Asker`, the struct and the objects that were given in place of text (by field).
    cell : type or None
        The struct of the cell magic, for a verb that has one; its function is `flow` with ``_cell`` behind it.
    """

    spec: type[Verb]
    flow: str
    cell: type[Verb] | None = None

    def load(self, *, is_cell: bool = False) -> Callable[..., object]:
        """Import the function that does it."""
        module, _, name = self.flow.partition(":")
        loaded: Callable[..., object] = getattr(
            importlib.import_module(_FLOWS + module), name + ("_cell" if is_cell else "")
        )
        return loaded


COMMANDS: tuple[Command, ...] = (
    Command(data.Data, "data:data"),
    Command(train.Train, "train:train", train.TrainCell),
    Command(tune.Tune, "tune:tune"),
    Command(evaluate.Evaluate, "evaluate:evaluate"),
    Command(deploy.Predict, "predict:predict"),
    Command(deploy.Deploy, "deploy:deploy"),
    Command(deploy.Token, "token:token"),
    Command(deploy.Export, "export:export"),
    Command(deploy.ExportLog, "export_log:export_log"),
    Command(runs.Run, "runs:run"),
    Command(monitor.Monitor, "monitor:monitor"),
    Command(monitor.Feedback, "feedback:feedback"),
    Command(monitor.Schedule, "schedule:schedule"),
    Command(maintain.Retrain, "retrain:retrain"),
    Command(maintain.Promote, "maintain:promote"),
    Command(maintain.Rollback, "maintain:rollback"),
    Command(maintain.Delete, "maintain:delete"),
    Command(monitor.Tick, "schedule:tick"),
    Command(runs.Show, "show:show"),
    Command(runs.Compare, "show:compare"),
    Command(runs.Logs, "runs:logs"),
    Command(runs.Open, "runs:open_run"),
    Command(runs.Stop, "runs:stop"),
    Command(data.Datasets, "tables:datasets"),
    Command(deploy.Models, "tables:models"),
    Command(runs.Runs, "tables:runs"),
    Command(deploy.Endpoints, "tables:endpoints"),
    Command(monitor.Schedules, "schedule:schedules"),
    Command(monitor.Alerts, "alerts:alerts"),
    Command(runs.Devices, "tables:devices"),
    Command(runs.Panel, "panel:panel"),
    Command(runs.Doctor, "doctor:doctor"),
)

VERBS: dict[str, Command] = {command.spec.verb: command for command in COMMANDS}


def find(verb: str, *, is_cell: bool = False) -> Command:
    """Return the command of a verb.

    Raises
    ------
    LeptonError
        If there is none (did you mean), or it is no cell magic.
    """
    command = VERBS.get(verb)
    if command is None:
        raise unknown("verb", verb, VERBS, "Type '%lepton' alone for the list.")
    if is_cell and command.cell is None:
        cells = ", ".join(f"%%lepton {name}" for name, other in VERBS.items() if other.cell)
        raise LeptonError(
            f"'{verb}' takes no cell. Known: {cells}.", f"Write it on a line of its own: %lepton {verb} …"
        )
    return command
