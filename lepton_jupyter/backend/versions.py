"""Versions: registered when a run ends, judged by evaluations, named by aliases."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.backend.signing import sign_where_asked
from lepton_jupyter.backend.store import Store
from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.names import check_name, parse
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import MANIFEST, Bundle, open_bundle
from lepton_jupyter.formats.evaluation import EvaluationRecord
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import RunView, VersionView

MAKERS = ("train", "tune", "cell", "save")
CHAMPION = "champion"
PREVIOUS = "previous"


class Versions:
    """The versions of every model."""

    def __init__(self, home: Home, store: Store) -> None:
        self.home = home
        self.store = store

    # -- made

    def register(self, run: FollowedRun, state: str) -> VersionView | None:
        """Write the row of the version that a run leaves; None where it leaves none. Once more is no harm.

        Raises
        ------
        LeptonError
            If the bundle is not whole, or cannot be moved into its place.
        """
        model = run.record.model
        if run.record.kind not in MAKERS or model is None or state not in ("completed", "stopped"):
            return None
        place = self.home.bundles / run.view.run_id
        if not (place / MANIFEST).exists():
            if not (run.folder.bundle / MANIFEST).exists():
                return None
            _move(run.folder.bundle, place)
        bundle = open_bundle(place)
        sign_where_asked(bundle)
        self.store.add_version(_first_view(bundle, run, model))
        return self.store.version(run.view.run_id)

    def judge(self, run: FollowedRun) -> None:
        """Take over what an evaluation found; the first version without FAIL becomes champion where there is none."""
        version = self.store.version(run.record.model_version or "")
        if version is None:
            return
        found = _evaluation(run.view, run.folder.result)
        verdict = str(found.get("verdict", ""))
        self.store.save_version(msgspec.structs.replace(version, verdict=verdict, evaluation=found))
        if self._is_retrains(run):
            return  # it promotes by itself, or asks
        if verdict and verdict != "FAIL" and (version.model, CHAMPION) not in self.store.aliases(version.model):
            self.store.move_alias(
                version.model, CHAMPION, version.run_id, why="the first that was evaluated without FAIL"
            )

    def _is_retrains(self, run: FollowedRun) -> bool:
        parent = self.store.run(run.record.parent) if run.record.parent else None
        return parent is not None and parent.kind == "retrain"

    # -- found

    def resolve(self, text: str) -> VersionView:
        """Return the version that a reference means: ``NAME``, ``NAME@3``, ``NAME@champion``, a run's id or prefix.

        Raises
        ------
        LeptonError
            If there is none; the message lists the known ones.
        """
        reference = parse(text)
        if reference.kind not in (None, "model", "run"):
            raise LeptonError(f"'{text}' is a {reference.kind}; a model is wanted here.")
        everything = self.store.versions()
        of_model = [view for view in everything if view.model == reference.name]
        if not of_model and reference.may_be_run:
            return self._of_run(reference.name, everything)
        if not of_model:
            raise self._no_model(reference.name, everything)
        if reference.is_latest:
            return of_model[0]
        for view in of_model:
            if view.number == reference.version if reference.version is not None else reference.alias in view.aliases:
                return view
        wanted = str(reference.version if reference.version is not None else reference.alias)
        known = [str(view.number) for view in of_model if view.number is not None]
        known += [alias for view in of_model for alias in view.aliases]
        kind = f"version of {reference.name}" if reference.version is not None else f"alias of {reference.name}"
        raise unknown(kind, wanted, known, "List them with `%lepton models`.")

    def _of_run(self, prefix: str, everything: list[VersionView]) -> VersionView:
        found = [view for view in everything if view.run_id.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        if found:
            raise LeptonError(f"'{prefix}' is the beginning of {len(found)} run ids. Type more of it.")
        ids = self.store.run_ids(prefix)
        if ids:
            view = self.store.run(ids[0])
            state = view.state if view is not None else "unknown"
            raise LeptonError(f"Run {ids[0]} has made no version (its state: {state}).", code="not_found")
        raise self._no_model(prefix, everything)

    def _no_model(self, name: str, everything: list[VersionView]) -> LeptonError:
        run_id = self.store.newest_run_of(name)
        view = self.store.run(run_id) if run_id is not None else None
        if view is not None:
            return LeptonError(
                f"Model '{name}' has no version: its newest run {view.run_id} is {view.state}.",
                f"Look at it: %lepton show {view.run_id}",
                code="not_found",
            )
        names = list(dict.fromkeys(view.model for view in everything))
        return unknown("model", name, names, "Train one: %lepton train MODEL --data NAME")

    # -- named

    def promote(self, text: str, alias: str, *, why: str = "") -> VersionView:
        """Move an alias to a version; the champion before becomes ``previous``.

        Raises
        ------
        LeptonError
            If there is no such version, or the alias cannot be one.
        """
        check_name(alias, "alias")
        if alias == "latest" or (alias[:1] in "vV" and alias[1:].isdigit()):
            raise LeptonError(f"'{alias}' cannot be an alias: it would read like a version.", "Try 'champion'.")
        version = self.resolve(text)
        last = self.store.aliases(version.model).get((version.model, alias))
        if last == version.run_id:
            return version
        if alias == CHAMPION and last is not None:
            self.store.move_alias(version.model, PREVIOUS, last, why=f"was {CHAMPION}")
        self.store.move_alias(version.model, alias, version.run_id, why=why or "promoted")
        return self.resolve(version.run_id)


def _first_view(bundle: Bundle, run: FollowedRun, model: str) -> VersionView:
    card, schema, record = bundle.card, bundle.schema, run.record
    return VersionView(
        model=model,
        run_id=record.run_id,
        number=None,
        bundle=str(bundle.root),
        manifest_hash=bundle.manifest_hash,
        is_deployable=card.is_deployable,
        created_at=time.time(),
        why_not=card.why_not,
        task=schema.task,
        framework=card.framework,
        dataset=card.trained_on or record.dataset,
        metrics=card.metrics,
        remark=_remark(card.stopped_at, record),
    )


def _remark(stopped_at: int | None, record: RunRecord) -> str:
    if stopped_at is not None:
        return f"stopped at epoch {stopped_at}"
    return "saved from a notebook" if record.kind == "save" else ""


def _evaluation(view: RunView, path: Path) -> dict[str, Any]:
    """Return what is shown of an evaluation: all of ``result.json`` but the tables behind the charts."""
    try:
        record = msgspec.json.decode(path.read_bytes(), type=EvaluationRecord)
    except (OSError, msgspec.DecodeError):
        return dict(view.result)
    return {key: value for key, value in msgspec.to_builtins(record).items() if key != "tables"}


def _move(source: Path, target: Path) -> None:
    """Move a bundle so that it is whole or not there, over a border of file systems too."""
    try:
        source.rename(target)
        return
    except OSError:
        pass  # another file system: copied beside, then renamed
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise LeptonError(
            f"The bundle of run '{target.name}' cannot be kept in '{target.parent}': {error.strerror}.",
            "Make room, then train again.",
            code="failed",
        ) from error
    shutil.rmtree(source, ignore_errors=True)
