"""What happened to a model, in order: told from its runs and from the moves of its aliases, kept nowhere else."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import or_, select

from lepton_jupyter.backend.store import Store
from lepton_jupyter.backend.tables import aliases, runs
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.evaluation import Comparison
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import JournalEntry, RunView, VersionView
from lepton_jupyter.stages.maintain.decide import SAID

MAKERS = ("train", "tune", "cell", "save")


class Journal:
    """Tells the journals of models. Its methods may be called from any thread."""

    def __init__(self, home: Home, store: Store) -> None:
        self.home = home
        self.store = store

    def of(self, model: str) -> list[JournalEntry]:
        """Return what happened to a model, oldest first; nothing where there is no such model."""
        versions = {view.run_id: view for view in self.store.versions(model)}
        found = [self._of_run(view, versions) for view in self._runs(model, list(versions))]
        found += [_of_move(row, versions) for row in self._moves(model)]
        return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.at)

    def _runs(self, model: str, judged: list[str]) -> list[RunView]:
        statement = select(runs.c.view).where(
            ~runs.c.is_deleted,
            or_(
                (runs.c.model == model) & runs.c.kind.in_(MAKERS),
                runs.c.kind.in_(("evaluate", "retrain")),
            ),
        )
        with self.store.engine.connect() as connection:
            rows = connection.execute(statement.order_by(runs.c.submitted_at)).scalars()
            views = [msgspec.json.decode(text, type=RunView) for text in rows]
        return [
            view
            for view in views
            if view.kind in MAKERS
            or (view.kind == "evaluate" and view.model_version in judged)
            or (view.kind == "retrain" and view.title == model)
        ]

    def _moves(self, model: str) -> list[Any]:
        with self.store.engine.connect() as connection:
            statement = select(aliases).where(aliases.c.model == model).order_by(aliases.c.id)
            return list(connection.execute(statement).mappings())

    def _of_run(self, view: RunView, versions: dict[str, VersionView]) -> JournalEntry | None:
        if view.kind == "evaluate":
            return _of_evaluation(view, versions)
        if view.kind == "retrain":
            return _of_retrain(view)
        made = versions.get(view.run_id)
        ref = made.ref if made is not None else ""
        how = "saved from a notebook" if view.kind == "save" else f"trained on {view.dataset or 'data of its own'}"
        record = self._record(view.run_id)
        if record is not None and record.recipe:
            how += f" by the recipe of run {record.recipe}, for retrain {view.parent}"
        if view.state not in ENDED:
            how = f"{how}: {view.state}"
        elif view.state != "completed":
            how = f"training on {view.dataset or 'data of its own'} {view.state}{_why(view)}"
        remark = f" ({made.remark})" if made is not None and made.remark and view.kind != "save" else ""
        text = f"{ref + ': ' if ref else ''}{how}{remark}"
        return JournalEntry(at=_at(view), what="trained", text=text, ref=ref, run_id=view.run_id)

    def _record(self, run_id: str) -> RunRecord | None:
        try:
            return msgspec.json.decode(self.home.run(run_id).record.read_bytes(), type=RunRecord)
        except (OSError, msgspec.DecodeError):
            return None


def _at(view: RunView) -> float:
    return view.ended_at or view.created_at


def _why(view: RunView) -> str:
    return f": {view.error.message}" if view.error is not None and view.error.message else ""


def _of_evaluation(view: RunView, versions: dict[str, VersionView]) -> JournalEntry | None:
    if view.state != "completed":
        return None  # it changed nothing
    ref = versions[view.model_version or ""].ref
    verdict = view.result.get("verdict") or "no verdict"
    text = f"{ref}: {verdict} on {view.result.get('dataset') or view.dataset}{_against(view)}"
    return JournalEntry(at=_at(view), what="evaluated", text=text, ref=ref, run_id=view.run_id)


def _against(view: RunView) -> str:
    told = view.result.get("comparison")
    if not told:
        return ""
    comparison = msgspec.convert(told, Comparison)
    gain = f" ({comparison.metric} {comparison.difference:+.3g})" if comparison.difference is not None else ""
    return f"; against {comparison.against}: {comparison.verdict}{gain}"


def _of_retrain(view: RunView) -> JournalEntry:
    decision, reason = view.result.get("decision"), view.result.get("reason", "")
    ref = str(view.result.get("version") or "")
    if decision and view.state == "completed":
        text = f"{SAID.get(str(decision), str(decision))}: {reason}"
    else:
        text = f"retrain is {view.state}" if view.state not in ENDED else f"retrain {view.state}{_why(view)}"
    return JournalEntry(at=_at(view), what="retrain", text=text, ref=ref, run_id=view.run_id)


def _of_move(row: Any, versions: dict[str, VersionView]) -> JournalEntry:
    made = versions.get(row["run_id"] or "")
    ref = made.ref if made is not None else str(row["run_id"] or "")
    why = f": {row['why']}" if row["why"] else ""
    text = f"{ref} became {row['alias']}{why}" if row["run_id"] else f"{row['alias']} was taken away{why}"
    return JournalEntry(at=row["at"], what="alias", text=text, ref=ref)
