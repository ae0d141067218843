"""Endpoints: what they shall serve, and what they do serve."""

from __future__ import annotations

import logging
import shutil
import time
from typing import NoReturn

import msgspec

from lepton_jupyter.backend import beside as besides
from lepton_jupyter.backend.beside import Beside, Besides, beside_of
from lepton_jupyter.backend.options import dump, free_port, options_of, remarks_of
from lepton_jupyter.backend.standing import failure, is_enough, n_ready, state_of
from lepton_jupyter.backend.store import EndpointRow, ReleaseRow, Store
from lepton_jupyter.backend.tokens import Tokens, owner_hash
from lepton_jupyter.backend.watch import Watcher, replicas_of
from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.names import check_name
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.endpoint import EndpointConfig, Options, url_of
from lepton_jupyter.formats.views import EndpointView, Failure, Release, VersionView

log = logging.getLogger("lepton.backend")

AS_BEFORE = Options()
SERVED = ("deploy", "promote", "rollback", "canary promoted")  # actions of a history that changed the live version
READY_S = 30.0  # how long a deploy waits for its endpoint
BACK_S = 5.0  # how long a deploy that failed waits until the release before is served again


class Endpoints:
    """Every endpoint of the home. Its methods may be called from any thread."""

    def __init__(self, home: Home, store: Store) -> None:
        self.home = home
        self.store = store
        self.is_watching = True
        self._watcher = Watcher(home, store)
        self._besides = Besides(home, store, self._watcher, self._release)
        self.tokens = Tokens(home, store, self._watcher, self._tell)

    # -- changes

    def deploy(
        self,
        name: str,
        version: VersionView,
        *,
        follows: str | None,
        port: int | None,
        who: str,
        why: str,
        warning: str = "",
        options: Options = AS_BEFORE,
    ) -> EndpointView:
        """Serve a version under a name: a new endpoint, or a swap of the one that is there.

        Raises
        ------
        LeptonError
            If the port is in use (nothing has changed then), or the endpoint does not take the version.
        """
        check_name(name, "endpoint")
        with self._watcher.of(name).lock:
            old = self.store.endpoint(name)
            said = options_of(old, options)
            port = self._port(old, port, said)
            row = EndpointRow(
                name=name,
                created_at=old.created_at if old else time.time(),
                is_wanted=True,
                model=version.model,
                run_id=version.run_id,
                port=port,
                release=(old.release if old else 0) + 1,
                follows=follows,
                process=old.process if old else None,
                warning=warning,
                options=dump(said),
            )
            if old is not None and old.is_wanted and self._is_same(old, row) and self._is_ready(old):
                self.store.save_endpoint(row := msgspec.structs.replace(row, release=old.release))
                return self.view(row)
            self._release(
                row,
                version,
                ReleaseRow(endpoint=name, at=time.time(), action="deploy", run_id=row.run_id, who=who, why=why),
            )
        return self._when_ready(row, old)

    def deploy_beside(
        self,
        name: str,
        version: VersionView,
        beside: Beside,
        *,
        port: int | None,
        why: str = "",
        options: Options = AS_BEFORE,
    ) -> EndpointView:
        """Have a canary or a shadow beside what an endpoint serves; one that is there already is replaced.

        Raises
        ------
        LeptonError
            If nothing is live there, or the version does not fit what is; nothing has changed then.
        """
        with self._watcher.of(name).lock:
            row, live = besides.may_stand(self.store, name, version, beside, port)
            wanted = msgspec.structs.replace(row, options=dump(options_of(row, options)))
            current = beside_of(row)
            if wanted == row and current is not None and current.is_same(beside) and self._is_ready(row):
                return self.view(row)
            new, release = besides.begun(wanted, beside, why=why)
            self._release(new, live, release)
        return self._when_ready(new, row)

    def swap(
        self,
        row: EndpointRow,
        version: VersionView,
        *,
        action: str,
        who: str = "",
        why: str = "",
        is_held: bool = False,
    ) -> EndpointView:
        """Let an endpoint serve another version, on the same port."""
        with self._watcher.of(row.name).lock:
            new = msgspec.structs.replace(
                row, model=version.model, run_id=version.run_id, release=row.release + 1, is_held=is_held, warning="",
                beside=None,
            )  # fmt: skip
            release = ReleaseRow(
                endpoint=row.name, at=time.time(), action=action, run_id=version.run_id, who=who, why=why
            )
            self._release(new, version, release)
        return self._when_ready(new, row) if new.is_wanted else self.view(new)

    def follow(self, version: VersionView, alias: str) -> list[EndpointView]:
        """Swap the endpoints that follow an alias to the version that has it now; a held one is held no more."""
        swapped = []
        for row in self.store.endpoints():
            if (row.model, row.follows) != (version.model, alias) or (row.run_id == version.run_id and not row.is_held):
                continue
            try:
                swapped.append(self.swap(row, version, action="promote", why=f"follows {version.model}@{alias}"))
            except LeptonError as error:  # it serves what it did, and shows why; the others swap
                log.warning("%s", error)
        return swapped

    def rollback(self, name: str) -> EndpointView:
        """Put an endpoint back to the version before, and hold it there; where a canary or a shadow is, end that.

        Raises
        ------
        LeptonError
            If it has served one version only, or the one before is gone.
        """
        row = self.row(name)
        if row.beside is not None:
            return self._when_ready(self._besides.end(row, "ended", why="rollback"), row)
        served: list[str] = []
        for release in self.store.releases(name):
            if release.action not in SERVED:
                continue
            if release.action == "rollback" and len(served) > 1:
                served.pop()
            elif not served or served[-1] != release.run_id:
                served.append(release.run_id)
        before = self.store.version(served[-2]) if len(served) > 1 else None
        if before is None:
            raise LeptonError(
                f"Endpoint '{name}' has no earlier version to go back to.",
                f"Deploy another one: %lepton deploy {row.model}@1 --as {name}",
                code="conflict",
            )
        return self.swap(row, before, action="rollback", is_held=True)

    def stop(self, name: str) -> EndpointView:
        """Stop an endpoint; `deploy` starts it again on the same port."""
        row = self.row(name)
        with self._watcher.of(name).lock:
            row = msgspec.structs.replace(row, is_wanted=False)
            self.store.save_endpoint(row)
            self._watcher.end(row)
            self.home.endpoint(name).drained.unlink(missing_ok=True)
        return self.view(row)

    def delete(self, name: str) -> None:
        """Stop an endpoint and remove its folder."""
        with self._watcher.of(name).lock:
            self.stop(name)
            self.store.drop_endpoint(name)
            shutil.rmtree(self.home.endpoint(name).root, ignore_errors=True)
            self._watcher.drop(name)

    def row(self, name: str) -> EndpointRow:
        """Return one endpoint's row.

        Raises
        ------
        LeptonError
            If there is none; the message lists the known ones.
        """
        row = self.store.endpoint(name)
        if row is None:
            raise unknown("endpoint", name, [each.name for each in self.store.endpoints()])
        return row

    # -- what is served

    def views(self) -> list[EndpointView]:
        """Return every endpoint, newest first."""
        return [self.view(row) for row in self.store.endpoints()]

    def signature(self) -> tuple[object, ...]:
        """Return something that differs where a state differs without a change of the database. Reads no table."""
        return tuple((name, *self._watcher.signature(name)) for name in sorted(self._watcher.names()))

    def view(self, row: EndpointRow) -> EndpointView:
        """Return one endpoint as it stands."""
        folder = self.home.endpoint(row.name)
        refs = {view.run_id: view.ref for view in self.store.versions()}
        state, error = state_of(self._watcher, row)
        history = tuple(
            Release(
                at=each.at, action=each.action, version=refs.get(each.run_id, each.run_id), who=each.who, why=each.why
            )
            for each in self.store.releases(row.name)
        )
        options, status = options_of(row), self._watcher.status(row)
        tls = status.tls if status is not None else None
        return EndpointView(
            name=row.name, state=state, version=refs.get(row.run_id, row.run_id), model=row.model, run_id=row.run_id,
            url=url_of(options, row.port), port=row.port, token_path=str(folder.token), folder=str(folder.root),
            created_at=row.created_at, follows=row.follows, is_held=row.is_held, error=error, history=history,
            n_restarts=self._watcher.of(row.name).n_restarts, warning=row.warning,
            beside=besides.view_of(row, folder, refs), replicas=replicas_of(row),
            n_ready=n_ready(self._watcher, row), remarks=remarks_of(options, status if row.is_wanted else None),
            certificate=tls, certificate_path=str(folder.certificate) if tls is not None else "",
        )  # fmt: skip

    def _is_ready(self, row: EndpointRow) -> bool:
        return state_of(self._watcher, row) == ("ready", None) and is_enough(self._watcher, row, None)

    @staticmethod
    def _is_same(old: EndpointRow, new: EndpointRow) -> bool:
        is_served = (old.run_id, old.port, old.options) == (new.run_id, new.port, new.options)
        return is_served and not old.is_held and old.beside is None

    # -- the clock

    def tick(self) -> None:
        """Start what should be up and is not, and decide what becomes of canaries."""
        for row in self.store.endpoints():
            watch = self._watcher.of(row.name)
            if not row.is_wanted or not self.is_watching or not watch.lock.acquire(blocking=False):
                continue
            try:
                row = self.store.endpoint(row.name) or row
                if not watch.is_reconciled or not self.home.endpoint(row.name).config.exists():
                    self._reconcile(row)
                    watch.is_reconciled = True
                if row.is_wanted:
                    self._watcher.keep_up(row)
                    self._besides.rule(row)
            finally:
                watch.lock.release()

    def _reconcile(self, row: EndpointRow) -> None:
        """Write what the endpoint follows, where a kill came between the intent and this."""
        try:
            said = msgspec.json.decode(self.home.endpoint(row.name).config.read_bytes(), type=EndpointConfig)
        except (OSError, msgspec.DecodeError):
            said = None
        owner = owner_hash(self.home.endpoint(row.name))
        wanted = (row.release, self.tokens.let_in(row.name), (owner,))
        if said is None or (said.release, said.tokens, said.token_hashes) != wanted:
            self._tell(row)

    # -- one change

    def _release(self, row: EndpointRow, version: VersionView | None, release: ReleaseRow) -> None:
        """Record the intent, then write what the endpoint follows, then start it where it is not there."""
        before = self.store.endpoint(row.name)
        if before is not None:
            row = msgspec.structs.replace(row, process=before.process)
        self.store.save_endpoint(row, *besides.ended(before, row, release), release)
        self._write_config(row, version)
        if row.is_wanted:
            self._watcher.forget_the_dead(row)
            self._watcher.keep_up(row)

    def _tell(self, row: EndpointRow) -> None:
        """Write what the endpoint follows, of the release that it has."""
        self._write_config(row, self.store.version(row.run_id))

    def _write_config(self, row: EndpointRow, version: VersionView | None) -> None:
        if version is None:
            return
        folder = self.home.endpoint(row.name)
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = EndpointConfig(
            name=row.name,
            release=row.release,
            model=version.model,
            version=version.ref,
            bundle=version.bundle,
            manifest_hash=version.manifest_hash,
            port=row.port,
            token_hashes=(owner_hash(folder),),
            tokens=self.tokens.let_in(row.name),
            beside=besides.config_of(self.store, row),
            options=options_of(row),
        )
        write_atomic(folder.config, encode(config))

    def _when_ready(self, row: EndpointRow, old: EndpointRow | None) -> EndpointView:
        """Wait until the endpoint serves a release.

        Raises
        ------
        LeptonError
            If it says that it cannot, or says nothing for 30 s.
        """
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            current = self.store.endpoint(row.name)
            if current is None or not current.is_wanted or current.release != row.release:
                break  # stopped or swapped meanwhile: whoever did that waits for it
            state, error = state_of(self._watcher, current)
            if state == "ready" and error is None and is_enough(self._watcher, current, old):
                return self.view(current)
            if error is not None:
                self._take_back(current, old, error)
            self.tick()
            time.sleep(0.05)
        else:
            self._take_back(row, old, failure(row, f"not ready within {READY_S:.0f} s", self.home.endpoint(row.name)))
        return self.view(self.row(row.name))

    def _take_back(self, row: EndpointRow, old: EndpointRow | None, error: Failure) -> NoReturn:
        """Undo a release that was not taken: back to what was served before, or to no endpoint at all; then raise."""
        before = self.store.version(old.run_id) if old is not None else None
        if old is None:
            self.delete(row.name)
        elif old.is_wanted and before is not None and self._watcher.is_alive(row.name):
            beside = beside_of(row)
            warning = f"did not take {beside.run_id if beside else row.run_id}: {error.message}"
            with self._watcher.of(row.name).lock:
                back = msgspec.structs.replace(old, release=row.release + 1, warning=warning, beside=None)
                action, run_id = (beside.failed, beside.run_id) if beside else ("rollback", old.run_id)
                release = ReleaseRow(endpoint=row.name, at=time.time(), action=action, run_id=run_id, why=error.message)
                self._release(back, before, release)
            deadline = time.monotonic() + BACK_S
            while not self._is_ready(back) and time.monotonic() < deadline:
                time.sleep(0.05)
        raise LeptonError(**msgspec.structs.asdict(error))

    def _port(self, old: EndpointRow | None, port: int | None, options: Options) -> int:
        """Return the port to serve on: the one that was said, else the one from before, else a free one."""
        if old is not None and port in (None, old.port):
            if self._watcher.is_alive(old.name):
                return old.port
            port = old.port
        return free_port(options, port)
