"""What the backend answers: runs, versions, endpoints, devices as clients see them."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

from lepton_jupyter.core.states import EndpointState, RunState
from lepton_jupyter.formats.endpoint import BesideKind, Options, Scope, Tls

PROTOCOL = 4  # raised when a route or a view changes its meaning


class Failure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A `LeptonError` on the wire, under the key ``error``."""

    message: str
    hint: str = ""
    code: str = "bad_input"
    detail: str = ""


class Health(Struct, frozen=True, kw_only=True):
    """``GET /v1/health``."""

    protocol: int
    version: str
    python: str
    pid: int
    host: str
    home: str
    n_active: int
    tracking: str
    is_tracking_up: bool


class RunView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run, as it stands.

    Attributes
    ----------
    seq : int
        Sequence number of its newest event; ``events?after=SEQ`` goes on from there.
    metrics : dict
        Newest value of every metric.
    notes : dict
        Facts that the run told: ``threads``, ``exportable``, ``rows_per_s`` …
    progress : dict
        ``done``, ``total``, ``unit``.
    model : str or None
        Name under which the run makes a version.
    version : int or None
        Number of that version, once it is registered.
    error : Failure or None
        Why it failed, stopped or was lost.
    result : dict
        Summary of what the run found (of an evaluation: verdict, metrics, intervals).
    needs : str
        What a queued run waits for.
    checks : dict
        Newest value of every check; None where it could not be measured.
    telemetry : dict
        Newest value of how the work and the machine do: ``epoch``, ``loss``, ``rows_per_s``, ``cpu_cores``,
        ``rss_bytes``, ``gpu_share`` …
    endpoint, schedule : str or None
        What a monitor run watches; the schedule that fired.
    """

    run_id: str
    kind: str
    title: str
    state: RunState
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    seq: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    version: int | None = None
    dataset: str | None = None
    model_version: str | None = None
    parent: str | None = None
    command: str = ""
    folder: str = ""
    error: Failure | None = None
    result: dict[str, Any] = field(default_factory=dict)
    needs: str = ""
    checks: dict[str, float | None] = field(default_factory=dict)
    endpoint: str | None = None
    schedule: str | None = None
    telemetry: dict[str, float] = field(default_factory=dict)


class VersionView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a model.

    Attributes
    ----------
    number : int or None
        The registry's number; None while the registry does not answer: it then goes by its run's id.
    bundle : str
        Folder of the bundle.
    manifest_hash : str
        Pins the bundle.
    verdict : str
        Of its latest evaluation; empty where there is none.
    """

    model: str
    run_id: str
    number: int | None
    bundle: str
    manifest_hash: str
    is_deployable: bool
    created_at: float
    why_not: str = ""
    task: str | None = None
    framework: str = ""
    dataset: str | None = None
    aliases: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    verdict: str = ""
    evaluation: dict[str, Any] = field(default_factory=dict)
    remark: str = ""

    @property
    def ref(self) -> str:
        """``NAME@3``, or the run's id while there is no number."""
        return f"{self.model}@{self.number}" if self.number is not None else self.run_id


class Release(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of an endpoint's history."""

    at: float
    action: str
    version: str
    who: str = ""
    why: str = ""


class BesideView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A canary or a shadow beside an endpoint's live version.

    Attributes
    ----------
    kind : str
        ``canary`` or ``shadow``.
    version : str
        ``NAME@4``.
    share : float
        Of the requests that a canary answers, 0–1.
    n_requests : int
        That it was asked so far.
    verdict : str
        How it does, in words.
    """

    kind: BesideKind
    version: str
    run_id: str
    started_at: float
    share: float = 0.0
    n_requests: int = 0
    verdict: str = ""


class EndpointView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One endpoint, as it stands.

    Attributes
    ----------
    version : str
        What it serves (or shall serve): ``NAME@3``.
    follows : str or None
        ``NAME@champion`` where it follows an alias.
    is_held : bool
        Rolled back, and held there until the next promote or deploy.
    url : str
        ``http://127.0.0.1:PORT``, or https.
    token_path : str
        File of mode 0600 that holds the token.
    beside : BesideView or None
    replicas, n_ready : int
        How many processes should answer on the port, and how many do.
    remarks : tuple of str
        What should be known of its doors, such as an address without TLS.
    certificate : Tls or None
        What new connections are shown; None: plain HTTP.
    certificate_path : str
        Where that lies: what a client trusts, and nothing else.
    """

    name: str
    state: EndpointState
    version: str
    model: str
    run_id: str
    url: str
    port: int
    token_path: str
    folder: str
    created_at: float
    follows: str | None = None
    is_held: bool = False
    n_restarts: int = 0
    error: Failure | None = None
    history: tuple[Release, ...] = ()
    warning: str = ""
    beside: BesideView | None = None
    replicas: int = 1
    n_ready: int = 0
    remarks: tuple[str, ...] = ()
    certificate: Tls | None = None
    certificate_path: str = ""


class TokenView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One token of an endpoint, without the token.

    Attributes
    ----------
    path : str
        File of mode 0600 that holds it; empty where it was replaced, and is let in for a while only.
    ends_at : float or None
        None: it is let in until it is revoked.
    who : str
        Who made it.
    """

    name: str
    scopes: tuple[Scope, ...]
    path: str
    made_at: float
    ends_at: float | None = None
    who: str = ""


class TokenRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``POST /v1/endpoints/NAME/tokens``.

    Attributes
    ----------
    scopes : tuple of str
        Empty: those of the token that is replaced, else ``infer``.
    grace_s : float
        How long the one that is replaced is let in beside it.
    """

    name: str
    scopes: tuple[Scope, ...] = ()
    is_replacing: bool = False
    grace_s: Annotated[float, Meta(ge=0)] = 0.0
    who: str = ""


class JournalEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of what happened to a model.

    Attributes
    ----------
    what : str
        ``trained``, ``evaluated``, ``alias``, ``retrain`` …
    text : str
        One sentence with the reason.
    ref : str
        The version that it is about, where there is one.
    """

    at: float
    what: str
    text: str
    ref: str = ""
    run_id: str | None = None
    who: str = ""


class DeviceView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One device and who holds it.

    Attributes
    ----------
    kind : str
        ``gpu`` (or a slice of one) or ``cpu`` (a slot).
    run_id, title : str
        The run that holds it, where it is one of this user's; of this home's, its title too.
    holder : str
        User and process that hold it, of any home on this host; empty where it is free.
    label : str
        What a GPU is called.
    """

    name: str
    kind: str
    run_id: str | None = None
    title: str = ""
    holder: str = ""
    label: str = ""


class DeployRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``POST /v1/endpoints``.

    Attributes
    ----------
    canary : float or None
        Share of the requests that the version answers beside the live one, more than 0 and less than 1.
    canary_requests, canary_seconds : int, float
        It takes the live one's place after so many requests and so long, where it is not shown to be worse; None: 500,
        and a minute.
    is_shadow : bool
        Whether it is asked what the live one is asked, and answers nobody.
    options : Options
        What is said of how the endpoint serves.
    """

    name: str
    model: str
    port: int | None = None
    force: str | None = None
    who: str = ""
    canary: Annotated[float, Meta(gt=0, lt=1)] | None = None
    canary_requests: Annotated[int, Meta(ge=1)] | None = None
    canary_seconds: Annotated[float, Meta(ge=0)] | None = None
    is_shadow: bool = False
    options: Options = Options()
