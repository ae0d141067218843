"""``study.db``: a study as Optuna keeps it in SQLite, with trials written whole, in one go each.

Optuna's own way asks the table before each of a trial's rows: 20 ms and more, where the trials of a small model take
as long as that. Here they are plain inserts, 0.3 ms; where a later Optuna has other tables, its own way is taken.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial

STUDY = "study.db"
FINITE = "FINITE"  # what Optuna writes beside a number that is one; others never come here


class StudyFile:
    """A study on disk.

    Parameters
    ----------
    folder : Path
        ``study.db`` in it is gone on from where it is there.
    name : str
        Of the study, for optuna-dashboard.
    direction : str
        ``minimize`` or ``maximize``.
    """

    def __init__(self, folder: Path, name: str, direction: Any) -> None:
        self._connection = connect = _opener(folder / STUDY)
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder / STUDY}", engine_kwargs={"creator": connect})
        self._study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)

    def trials(self) -> list[FrozenTrial]:
        """Return what is written."""
        return self._study.get_trials(deepcopy=False)

    def add(self, trial: FrozenTrial) -> None:
        """Write a trial that has ended."""
        connection = self._connection()
        try:
            with connection:  # all of it, or nothing
                _insert(connection, trial, self._study.study_name)
        except sqlite3.Error:
            self._study.add_trial(trial)
        finally:
            connection.close()


def _opener(path: Path) -> Callable[[], sqlite3.Connection]:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
        connection.execute("PRAGMA synchronous=OFF")  # a killed process loses nothing; a search is no ledger
        return connection

    return connect


def _insert(connection: sqlite3.Connection, trial: FrozenTrial, name: str) -> None:
    (study_id,) = connection.execute("SELECT study_id FROM studies WHERE study_name = ?", (name,)).fetchone()
    made = connection.execute(
        "INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete) "
        "SELECT COUNT(*), ?, ?, ?, ? FROM trials WHERE study_id = ?",
        (study_id, trial.state.name, _at(trial.datetime_start), _at(trial.datetime_complete), study_id),
    )
    trial_id = made.lastrowid
    if trial.value is not None:
        row = (trial_id, 0, trial.value, FINITE)
        connection.execute("INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, ?, ?, ?)", row)
    kinds = trial.distributions
    connection.executemany(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
        [
            (trial_id, key, kinds[key].to_internal_repr(value), distribution_to_json(kinds[key]))
            for key, value in trial.params.items()
        ],
    )
    connection.executemany(
        "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) "
        "VALUES (?, ?, ?, ?)",
        [(trial_id, step, value, FINITE) for step, value in trial.intermediate_values.items()],
    )
    for table, given in (("user", trial.user_attrs), ("system", trial.system_attrs)):
        connection.executemany(
            f"INSERT INTO trial_{table}_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",  # noqa: S608  of two
            [(trial_id, key, json.dumps(value)) for key, value in given.items()],
        )


def _at(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}" if moment is not None else None
