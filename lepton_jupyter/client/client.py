"""How every face speaks to the backend: plain blocking calls over its Unix socket."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from lepton_jupyter.client.start import ensure_backend
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import is_held
from lepton_jupyter.formats.alerts import AlertView
from lepton_jupyter.formats.schedule import ScheduleView, TickResult
from lepton_jupyter.formats.views import (
    PROTOCOL,
    DeployRequest,
    DeviceView,
    EndpointView,
    Health,
    JournalEntry,
    RunView,
    TokenRequest,
    TokenView,
    VersionView,
)

TIMEOUT_S = 120.0
STREAM_TIMEOUT_S = 10.0  # a stream pings each second
AWAY_S = 30.0  # how long a backend that is being had back is waited for
STOP_S = 15.0

T = TypeVar("T")


class _Connection(http.client.HTTPConnection):
    def __init__(self, home: Home, timeout_s: float) -> None:
        super().__init__("backend", timeout=timeout_s)
        self._path = str(home.runtime().socket)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """The backend of one home. Started when it is not there, and again when it went away.

    Attributes
    ----------
    notice : str
        What a face should tell the user, such as that an older backend was replaced; else empty.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.notice = ""

    @classmethod
    def connect(cls, home: Home | None = None) -> Client:
        """Return a client of a backend that answers and speaks our protocol.

        Raises
        ------
        LeptonError
            If it does not start, another host has the home, or it speaks another protocol.
        """
        client = cls(home or Home.current())
        client._check_protocol()
        return client

    def _check_protocol(self) -> None:
        health = self.health()
        if health.protocol == PROTOCOL:
            return
        if health.protocol < PROTOCOL and health.n_active == 0:
            self.stop_backend()
            fresh = self.health()
            self.notice = f"The backend {health.version} was replaced by {fresh.version}: no run was active."
            if fresh.protocol == PROTOCOL:
                return
            health = fresh
        hint = (
            f"{health.n_active} runs are active: wait for them, then try again, and it is replaced."
            if health.protocol < PROTOCOL
            else "Bring this environment to the same version: pip install -U lepton_jupyter"
        )
        raise LeptonError(
            f"The backend of '{self.home.root}' is version {health.version} (protocol {health.protocol}, run by "
            f"{health.python}); this environment speaks protocol {PROTOCOL}.",
            hint,
            code="unavailable",
        )

    # -- runs

    def health(self) -> Health:
        """Ask how the backend is."""
        return self._ask("GET", "/v1/health", Health)

    def submit(self, run_id: str) -> RunView:
        """Hand over a run whose folder is written."""
        return self._ask("POST", "/v1/runs", RunView, {"run_id": run_id}, is_repeatable=True)

    def runs(self, kind: str | None = None, limit: int = 50) -> list[RunView]:
        """List runs, newest first."""
        query = urlencode({"limit": limit, **({"kind": kind} if kind else {})})
        return self._ask("GET", f"/v1/runs?{query}", list[RunView])

    def run(self, ref: str) -> RunView:
        """Return a run: by id, unique prefix, version, or a model's name (its newest)."""
        return self._ask("GET", f"/v1/runs/{quote(ref)}", RunView)

    def events(self, run_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield a run's events behind a sequence number, live, until it has ended.

        The last one is ``{"kind": "end", "run": …}`` with the run's view as plain values. A backend that goes away
        meanwhile is waited for: no event comes twice, none is left out.
        """
        lost_at: float | None = None
        while True:
            try:
                for name, event in self._stream(run_id, after):
                    lost_at = None
                    if name == "end":
                        yield {"kind": "end", "seq": max(after, int(event.get("seq", 0))), "run": event}
                        return
                    after = int(event.get("seq", after))
                    yield event
            except (OSError, http.client.HTTPException):
                pass  # killed, stopped, or silent for too long
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > AWAY_S:
                raise LeptonError(
                    f"The backend of '{self.home.root}' went away while run {run_id} was followed.",
                    f"The run goes on by itself; follow it again: %lepton show {run_id}",
                    code="unavailable",
                )
            time.sleep(0.1)

    def stop_run(self, run_id: str, why: str = "") -> RunView:
        """Ask a run, and those inside it, to stop."""
        return self._ask("POST", f"/v1/runs/{quote(run_id)}/stop", RunView, {"why": why}, is_repeatable=True)

    # -- versions

    def models(self) -> list[VersionView]:
        """List versions of every model, newest first."""
        return self._ask("GET", "/v1/models", list[VersionView])

    def version(self, ref: str) -> VersionView:
        """Return a version: ``NAME``, ``NAME@3``, ``NAME@champion``, or the id of the run that made it."""
        return self._ask("GET", f"/v1/versions?{urlencode({'ref': ref})}", VersionView)

    def promote(self, ref: str, alias: str, why: str = "") -> VersionView:
        """Give a version an alias; the journal keeps why."""
        body = {"ref": ref, "alias": alias, "why": why}
        return self._ask("POST", "/v1/versions/alias", VersionView, body, is_repeatable=True)

    def journal(self, model: str) -> list[JournalEntry]:
        """Tell what happened to a model, oldest first."""
        return self._ask("GET", f"/v1/models/{quote(model, safe='')}/journal", list[JournalEntry])

    # -- endpoints

    def deploy(self, request: DeployRequest) -> EndpointView:
        """Serve a version; returns when it is ready."""
        return self._ask("POST", "/v1/endpoints", EndpointView, request)

    def endpoints(self) -> list[EndpointView]:
        """List endpoints."""
        return self._ask("GET", "/v1/endpoints", list[EndpointView])

    def endpoint(self, name: str) -> EndpointView:
        """Return one endpoint."""
        return self._ask("GET", f"/v1/endpoints/{quote(name, safe='')}", EndpointView)

    def stop_endpoint(self, name: str) -> EndpointView:
        """Stop an endpoint."""
        return self._ask("POST", f"/v1/endpoints/{quote(name, safe='')}/stop", EndpointView, {}, is_repeatable=True)

    def rollback(self, name: str) -> EndpointView:
        """Put an endpoint back to its last version and hold it there."""
        return self._ask("POST", f"/v1/endpoints/{quote(name, safe='')}/rollback", EndpointView, {})

    def tokens(self, endpoint: str) -> list[TokenView]:
        """List an endpoint's tokens: the owner's, then the newest first."""
        return self._ask("GET", f"/v1/endpoints/{quote(endpoint, safe='')}/tokens", list[TokenView])

    def make_token(self, endpoint: str, request: TokenRequest) -> TokenView:
        """Make a token or replace one; returns when the endpoint lets it in."""
        return self._ask("POST", f"/v1/endpoints/{quote(endpoint, safe='')}/tokens", TokenView, request)

    def revoke_token(self, endpoint: str, name: str, *, who: str) -> list[TokenView]:
        """End a token; returns those that are left when the endpoint lets it in no more."""
        path = f"/v1/endpoints/{quote(endpoint, safe='')}/tokens/revoke"
        return self._ask("POST", path, list[TokenView], {"name": name, "who": who})

    # -- schedules

    def define_schedule(self, name: str, generation: str) -> ScheduleView:
        """Hand over a schedule whose folder is written."""
        body = {"name": name, "generation": generation}
        return self._ask("POST", "/v1/schedules", ScheduleView, body, is_repeatable=True)

    def schedules(self) -> list[ScheduleView]:
        """List schedules, newest first."""
        return self._ask("GET", "/v1/schedules", list[ScheduleView])

    def schedule(self, name: str) -> ScheduleView:
        """Return one schedule."""
        return self._ask("GET", f"/v1/schedules/{quote(name, safe='')}", ScheduleView)

    def pause_schedule(self, name: str) -> ScheduleView:
        """Let a schedule be due no more, until it is defined again."""
        return self._ask("POST", f"/v1/schedules/{quote(name, safe='')}/pause", ScheduleView, {}, is_repeatable=True)

    def fire_schedule(self, name: str, why: str = "") -> str:
        """Fire a schedule now, due or not; return the run's id."""
        return self._ask("POST", f"/v1/schedules/{quote(name, safe='')}/fire", dict[str, str], {"why": why})["run_id"]

    def tick(self) -> TickResult:
        """Fire what is due; return the runs of schedules that have not ended."""
        return self._ask("POST", "/v1/tick", TickResult, {}, is_repeatable=True)

    def window_start(self, endpoint: str, schedule: str | None = None) -> float:
        """Return where the next report on an endpoint begins; without a schedule: one for which a person asks."""
        query = f"?{urlencode({'schedule': schedule})}" if schedule else ""
        path = f"/v1/endpoints/{quote(endpoint, safe='')}/window{query}"
        return self._ask("GET", path, dict[str, float])["window_start"]

    # -- alerts

    def alerts(self, schedule: str | None = None) -> list[AlertView]:
        """List alerts, of all schedules or of one: those that fire, those that are pending, the newest resolved."""
        query = f"?{urlencode({'schedule': schedule})}" if schedule else ""
        return self._ask("GET", f"/v1/alerts{query}", list[AlertView])

    def acknowledge_alert(self, number: int, *, who: str, why: str) -> AlertView:
        """Record that an alert was seen; it is not sent again."""
        return self._ask("POST", f"/v1/alerts/{number}/ack", AlertView, {"who": who, "why": why})

    def silence_alert(self, number: int, *, until: float, who: str, why: str) -> AlertView:
        """Send nothing about an alert until a time."""
        body = {"until": until, "who": who, "why": why}
        return self._ask("POST", f"/v1/alerts/{number}/silence", AlertView, body)

    # -- the rest

    def delete(self, ref: str) -> str:
        """Remove what a reference with its kind means; return what that was."""
        return self._ask("POST", "/v1/delete", dict[str, str], {"ref": ref})["deleted"]

    def devices(self) -> list[DeviceView]:
        """List devices and who holds them."""
        return self._ask("GET", "/v1/devices", list[DeviceView])

    def stop_backend(self) -> None:
        """End backend and keeper, and wait until they have; runs and endpoints go on. No harm where there is none."""
        try:
            self._once("POST", "/v1/stop", msgspec.json.encode({"what": "backend"}), TIMEOUT_S)
        except (OSError, http.client.HTTPException):
            pass  # it is not there, or went before it had answered
        runtime, deadline = self.home.runtime(), time.monotonic() + STOP_S
        while is_held(runtime.backend_lock) or is_held(runtime.keeper_lock):
            if time.monotonic() > deadline:
                raise LeptonError(
                    f"The backend of '{self.home.root}' has not ended within {STOP_S:.0f} s.",
                    f"Its log is {self.home.backend_log}.",
                    code="failed",
                )
            time.sleep(0.02)

    # -- the wire

    def _ask(self, method: str, path: str, kind: type[T], body: Any = None, *, is_repeatable: bool | None = None) -> T:
        """Ask once; start the backend where nobody listens, and ask again what may be asked twice."""
        content = msgspec.json.encode(body) if body is not None else None
        may_repeat = method == "GET" if is_repeatable is None else is_repeatable
        deadline = time.monotonic() + AWAY_S
        while True:
            ensure_backend(self.home)
            try:
                status, answer = self._once(method, path, content, TIMEOUT_S)
            except (ConnectionRefusedError, FileNotFoundError):
                pass  # gone since the line above: nothing was asked
            except (OSError, http.client.HTTPException) as error:
                if not may_repeat:
                    raise LeptonError(
                        f"The backend went away before it had answered: {error!r}.",
                        "Look at what is there before you try again.",
                        code="unavailable",
                    ) from error
            else:
                return _decoded(status, answer, kind)
            if time.monotonic() > deadline:
                raise LeptonError(f"The backend of '{self.home.root}' goes away again and again.", code="unavailable")
            time.sleep(0.05)

    def _once(self, method: str, path: str, content: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        connection = _Connection(self.home, timeout_s)
        try:
            connection.request(method, path, body=content, headers={"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _stream(self, run_id: str, after: int) -> Iterator[tuple[str, dict[str, Any]]]:
        ensure_backend(self.home)
        connection = _Connection(self.home, STREAM_TIMEOUT_S)
        try:
            connection.request("GET", f"/v1/runs/{quote(run_id)}/events?after={after}")
            answer = connection.getresponse()
            if answer.status != 200:
                _decoded(answer.status, answer.read(), dict[str, Any])
            name = ""
            while line := answer.readline():
                key, _, value = line.rstrip(b"\n").partition(b": ")
                if key == b"event":
                    name = value.decode()
                elif key == b"data":
                    yield name, msgspec.json.decode(value)
                    name = ""
        finally:
            connection.close()


def _decoded(status: int, content: bytes, kind: type[T]) -> T:
    """Return the answer, or raise the error in it."""
    if status < 400:
        return msgspec.json.decode(content, type=kind)
    try:
        said = msgspec.json.decode(content, type=dict[str, dict[str, str]])["error"]
    except (msgspec.DecodeError, KeyError) as error:
        text = content[:200].decode("utf-8", "replace")
        raise LeptonError(f"The backend answered {status}: {text}", code="failed") from error
    raise LeptonError.from_dict(said)
