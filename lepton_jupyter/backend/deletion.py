"""Remove a run, a version, an endpoint or a dataset's version; what is in use is refused."""

from __future__ import annotations

import shutil

from lepton_jupyter.backend.beside import beside_of
from lepton_jupyter.backend.endpoints import Endpoints
from lepton_jupyter.backend.runs import Runs
from lepton_jupyter.backend.store import Store
from lepton_jupyter.backend.versions import CHAMPION, Versions
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import Reference, parse
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.states import ENDED


class Deletion:
    """Knows what uses what."""

    def __init__(self, home: Home, store: Store, runs: Runs, versions: Versions, endpoints: Endpoints) -> None:
        self.home = home
        self.store = store
        self.runs = runs
        self.versions = versions
        self.endpoints = endpoints

    def delete(self, text: str) -> str:
        """Remove what a reference means, and return what that was.

        Raises
        ------
        LeptonError
            If the kind was not said and could be several, nothing is there, or it is in use; nothing changes then.
        """
        reference = parse(text)
        if reference.kind == "endpoint":
            self.endpoints.row(reference.name)
            self.endpoints.delete(reference.name)
            return f"endpoint '{reference.name}'"
        if reference.kind == "dataset":
            return self._dataset(reference)
        if reference.kind == "run":
            return self._run(reference.name)
        if reference.kind == "model":
            return self._version(reference)
        name = str(reference)
        raise LeptonError(
            f"'{text}' could be several things; what is deleted is said with its kind.",
            f"Type one of: run/{name}, model/{name}, dataset/{name}, endpoint/{name}, schedule/{name}.",
        )

    def _run(self, prefix: str) -> str:
        ids = self.store.run_ids(prefix)
        if len(ids) != 1:
            known = "none begins so" if not ids else f"{len(ids)} begin so"
            raise LeptonError(f"No single run '{prefix}': {known}.", "List them with `%lepton runs`.", code="not_found")
        run_id = ids[0]
        followed = self.runs.followed(run_id)
        if followed is not None and followed.view.state not in ENDED:
            raise LeptonError(
                f"Run {run_id} is {followed.view.state}.", f"Stop it first: %lepton stop {run_id}", code="conflict"
            )
        version = self.store.version(run_id)
        if version is not None:
            raise LeptonError(
                f"Run {run_id} made {version.ref}, which is still there.",
                f"Delete that first: %lepton delete model/{version.ref}",
                code="conflict",
            )
        self.store.mark_run_deleted(run_id)
        shutil.rmtree(self.home.run(run_id).root, ignore_errors=True)
        return f"run {run_id}"

    def _version(self, reference: Reference) -> str:
        if reference.is_latest and not reference.may_be_run:
            raise LeptonError(
                f"'{reference}' does not say which version.", f"Say it: %lepton delete model/{reference.name}@1"
            )
        version = self.versions.resolve(str(Reference(reference.name, None, reference.version, reference.alias)))
        for row in self.store.endpoints():
            beside = beside_of(row)
            if row.run_id == version.run_id:
                raise LeptonError(
                    f"{version.ref} is what endpoint '{row.name}' serves.",
                    f"Deploy another version there, or delete endpoint/{row.name} first.",
                    code="conflict",
                )
            if beside is not None and beside.run_id == version.run_id:
                raise LeptonError(
                    f"{version.ref} is the {beside.kind} of endpoint '{row.name}'.",
                    f"End it first: %lepton rollback {row.name}",
                    code="conflict",
                )
        if CHAMPION in version.aliases and len(self.store.versions(version.model)) > 1:
            raise LeptonError(
                f"{version.ref} is the champion of {version.model}.",
                f"Promote another version first: %lepton promote {version.model}@N champion",
                code="conflict",
            )
        for run in self.runs.active():
            if version.run_id in (run.record.model_version, run.record.against):
                raise LeptonError(f"{version.ref} is being evaluated by run {run.view.run_id}.", code="conflict")
        for alias in version.aliases:
            self.store.move_alias(version.model, alias, None, why="its version was deleted")
        self.store.mark_version_deleted(version.run_id)
        shutil.rmtree(version.bundle, ignore_errors=True)
        return f"version {version.ref}"

    def _dataset(self, reference: Reference) -> str:
        from lepton_jupyter.stages.data.store import Store as Datasets  # Polars comes with it: only when asked for

        if reference.version is None:
            raise LeptonError(
                f"'{reference}' does not say which version.", f"Say it: %lepton delete dataset/{reference.name}@1"
            )
        datasets = Datasets(self.home)
        record = datasets.record(reference)
        name = f"{record.name}@{record.version}"
        for run in self.runs.active():
            if (run.record.dataset or "").partition(":")[0] == name:
                raise LeptonError(f"Dataset {name} is used by run {run.view.run_id}.", code="conflict")
        for version in self.store.versions():
            if version.dataset == name:
                raise LeptonError(
                    f"Dataset {name} is what {version.ref} was trained on.",
                    f"Delete that first: %lepton delete model/{version.ref}",
                    code="conflict",
                )
        datasets.delete(record.name, record.version)
        return f"dataset {name}"
