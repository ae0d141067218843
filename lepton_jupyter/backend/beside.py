"""What stands beside an endpoint's live version, a canary or a shadow: begun, looked at, promoted, ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from lepton_jupyter.backend.store import EndpointRow, ReleaseRow, Store
from lepton_jupyter.backend.watch import Watcher
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import EndpointFolder, Home
from lepton_jupyter.core.replicas import own_folders
from lepton_jupyter.formats import endpoint as formats
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.formats.endpoint import BesideKind
from lepton_jupyter.formats.figures import Figures, together
from lepton_jupyter.formats.views import BesideView, DeployRequest, VersionView
from lepton_jupyter.stages.deploy.canary import (
    REQUESTS,
    SECONDS,
    Decision,
    check,
    check_flags,
    decide,
    describe_shadow,
    nothing_live,
)


class Beside(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What an endpoint's row says of it.

    Attributes
    ----------
    since : int
        The release at which it began.
    follows : str or None
        The alias that the endpoint follows once this is live.
    warning : str
        What is shown of the endpoint then.
    """

    kind: BesideKind
    run_id: str
    since: int
    started_at: float
    share: float = 0.0
    min_requests: int = REQUESTS
    min_seconds: float = SECONDS
    follows: str | None = None
    who: str = ""
    warning: str = ""

    @property
    def failed(self) -> str:
        """What a history says where its endpoint cannot load it."""
        return "canary rolled back" if self.kind == "canary" else "shadow ended"

    def is_same(self, other: Beside) -> bool:
        """Whether both ask for the same."""
        names = ("kind", "run_id", "share", "min_requests", "min_seconds", "follows")
        return all(getattr(self, name) == getattr(other, name) for name in names)


def asked_of(request: DeployRequest, version: VersionView, *, follows: str | None, warning: str) -> Beside | None:
    """Return what a request asks for beside the live version; None where it asks for none.

    Raises
    ------
    LeptonError
        If it asks for a canary and a shadow, or for a canary's length without one.
    """
    check_flags(
        canary=request.canary,
        requests=request.canary_requests,
        seconds=request.canary_seconds,
        is_shadow=request.is_shadow,
    )
    if request.canary is None and not request.is_shadow:
        return None
    return Beside(
        kind="canary" if request.canary is not None else "shadow",
        run_id=version.run_id,
        since=0,
        started_at=time.time(),
        share=request.canary or 0.0,
        min_requests=REQUESTS if request.canary_requests is None else request.canary_requests,
        min_seconds=SECONDS if request.canary_seconds is None else request.canary_seconds,
        follows=follows,
        who=request.who,
        warning=warning,
    )


def beside_of(row: EndpointRow) -> Beside | None:
    """Return what stands beside an endpoint's live version."""
    return msgspec.json.decode(row.beside, type=Beside) if row.beside else None


def begun(row: EndpointRow, beside: Beside, *, why: str = "") -> tuple[EndpointRow, ReleaseRow]:
    """Return the row of a next release with this beside its live version, and its line of history."""
    release = row.release + 1
    said = msgspec.json.encode(msgspec.structs.replace(beside, since=release)).decode()
    share = f"{beside.share:.3g} of the requests" if beside.kind == "canary" else ""
    line = ReleaseRow(
        endpoint=row.name,
        at=time.time(),
        action=beside.kind,
        run_id=beside.run_id,
        who=beside.who,
        why="; ".join(part for part in (share, why) if part),
    )
    return msgspec.structs.replace(row, release=release, beside=said), line


def may_stand(
    store: Store, name: str, version: VersionView, beside: Beside, port: int | None
) -> tuple[EndpointRow, VersionView]:
    """Return an endpoint and its live version, beside which this one can stand.

    Raises
    ------
    LeptonError
        If nothing is live there, it is the live version itself, it does not take the same columns, or the port is
        another one.
    """
    row, kind = store.endpoint(name), beside.kind
    live = store.version(row.run_id) if row is not None and row.is_wanted else None
    if row is None or live is None:
        raise nothing_live(name, version.ref, kind)
    if live.run_id == version.run_id:
        raise LeptonError(
            f"Endpoint '{name}' serves {version.ref} already: a {kind} is another version.",
            f"Versions: %lepton models. One of them beside it: %lepton deploy {version.model}@N --as {name} …",
            code="conflict",
        )
    if port not in (None, row.port):
        raise LeptonError(f"Endpoint '{name}' keeps its port {row.port} for a {kind}.", "Leave out --port.")
    schemas = [open_bundle(Path(one.bundle), one.manifest_hash).schema for one in (live, version)]
    check(schemas[0], schemas[1], names=(live.ref, version.ref))
    return row, live


def config_of(store: Store, row: EndpointRow) -> formats.Beside | None:
    """Return what the endpoint is told to have beside its live version."""
    beside = beside_of(row)
    version = store.version(beside.run_id) if beside is not None else None
    if beside is None or version is None:
        return None
    return formats.Beside(
        kind=beside.kind,
        model=version.model,
        version=version.ref,
        bundle=version.bundle,
        manifest_hash=version.manifest_hash,
        since=beside.since,
        share=beside.share,
    )


def ended(before: EndpointRow | None, row: EndpointRow, release: ReleaseRow) -> list[ReleaseRow]:
    """Return the line of history for what ends because a release does not go on with it; none where it is that line."""
    beside = beside_of(before) if before is not None else None
    own = {f"{beside.kind} {word}" for word in ("ended", "promoted", "rolled back")} if beside is not None else set()
    if before is None or beside is None or row.beside == before.beside or release.action in own:
        return []
    why = f"replaced by {release.action}"
    return [msgspec.structs.replace(release, action=f"{beside.kind} ended", run_id=beside.run_id, why=why)]


def read_figures(folder: EndpointFolder, beside: Beside) -> Figures | None:
    """Return what all of its endpoint's processes counted of both versions; None where there is nothing yet."""
    found = []
    for own in own_folders(folder).values():
        try:
            figures = msgspec.json.decode(own.figures.read_bytes(), type=Figures)
        except (OSError, msgspec.DecodeError):
            continue
        if figures.since == beside.since:
            found.append(figures)
    return together(found) if found else None


def judge(beside: Beside, figures: Figures | None) -> Decision:
    """Decide what becomes of it; a shadow waits until it is ended."""
    if figures is None:
        return Decision("wait", "no requests yet")
    if beside.kind == "shadow":
        return Decision("wait", describe_shadow(figures))
    age_s = time.time() - beside.started_at
    return decide(figures, age_s=age_s, min_requests=beside.min_requests, min_seconds=beside.min_seconds)


def view_of(row: EndpointRow, folder: EndpointFolder, refs: Mapping[str, str]) -> BesideView | None:
    """Return what stands beside an endpoint's live version, as it stands; `refs` names the versions by run id."""
    beside = beside_of(row)
    if beside is None:
        return None
    figures = read_figures(folder, beside)
    return BesideView(
        kind=beside.kind,
        version=refs.get(beside.run_id, beside.run_id),
        run_id=beside.run_id,
        started_at=beside.started_at,
        share=beside.share,
        n_requests=figures.beside.n_requests if figures is not None else 0,
        verdict=judge(beside, figures).reason,
    )


class Besides:
    """Promotes canaries, and ends what stands beside a live version.

    Parameters
    ----------
    release : callable
        Records a row with its line of history, and has its endpoint follow it.
    """

    def __init__(
        self,
        home: Home,
        store: Store,
        watcher: Watcher,
        release: Callable[[EndpointRow, VersionView | None, ReleaseRow], None],
    ) -> None:
        self.home = home
        self.store = store
        self._watcher, self._release = watcher, release

    def rule(self, row: EndpointRow) -> None:
        """Promote a canary, or roll it back, where its figures say so; its watch's lock is held."""
        beside = beside_of(row)
        status = self._watcher.status(row) if beside is not None else None
        if beside is None or status is None or status.release != row.release:
            return
        if status.error_release == row.release:  # its process began anew, and could not have this beside
            self.end(row, beside.failed.removeprefix(f"{beside.kind} "), why=status.error)
            return
        decision = judge(beside, read_figures(self.home.endpoint(row.name), beside))
        if decision.what == "roll back":
            self.end(row, "rolled back", why=decision.reason)
        elif decision.what == "promote":
            self._promote(row, beside, why=decision.reason)

    def end(self, row: EndpointRow, word: str, *, why: str) -> EndpointRow:
        """Let the live version serve alone; return the row of that release."""
        with self._watcher.of(row.name).lock:
            row = self.store.endpoint(row.name) or row
            beside = beside_of(row)
            if beside is None:  # somebody was faster
                return row
            version = self.store.version(beside.run_id)
            ref = version.ref if version is not None else beside.run_id
            warning = f"{ref} was rolled back: {why}" if word == "rolled back" else row.warning
            new = msgspec.structs.replace(row, release=row.release + 1, beside=None, warning=warning)
            action = f"{beside.kind} {word}"
            line = ReleaseRow(endpoint=row.name, at=time.time(), action=action, run_id=beside.run_id, why=why)
            self._release(new, self.store.version(row.run_id), line)
        return new

    def _promote(self, row: EndpointRow, beside: Beside, *, why: str) -> None:
        version = self.store.version(beside.run_id)
        if version is None:
            return
        new = msgspec.structs.replace(
            row,
            model=version.model,
            run_id=version.run_id,
            release=row.release + 1,
            follows=beside.follows,
            is_held=False,
            warning=beside.warning,
            beside=None,
        )
        line = ReleaseRow(
            endpoint=row.name,
            at=time.time(),
            action="canary promoted",
            run_id=version.run_id,
            who=beside.who,
            why=why,
        )
        self._release(new, version, line)
