"""The verbs of serving: ``deploy``, ``token``, ``predict``, ``export``, ``endpoints``, ``models``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from lepton_jupyter.stages.verbs import Help, Verb


class Deploy(Verb, kw_only=True, frozen=True):
    """Serve a version over HTTP."""

    verb: ClassVar[str] = "deploy"
    does: ClassVar[str] = "Serve a version as an HTTP endpoint; again with another version swaps it without a pause."
    positional: ClassVar[tuple[str, ...]] = ("model",)
    examples: ClassVar[tuple[str, ...]] = (
        "deploy TumorNet --as diagnosis",
        "deploy TumorNet@champion --as diagnosis --port 8500",
        "deploy TumorNet@4 --as diagnosis --canary 0.1",
        "deploy TumorNet@4 --as diagnosis --shadow",
        "deploy TumorNet --as diagnosis --replicas 4",
        "deploy TumorNet --as diagnosis --host 0.0.0.0 --tls-cert fullchain.pem --tls-key privkey.pem",
    )

    model: Annotated[str, Help("NAME, NAME@3 or NAME@champion (then it follows the alias)")]
    as_: Annotated[str, Help("name of the endpoint")]
    port: Annotated[Annotated[int, Meta(ge=1, le=65535)] | None, Help("port; else a free one, kept over restarts")] = (
        None
    )
    host: Annotated[
        str | None, Help("address to listen on, kept once said; else 127.0.0.1, which this machine alone can reach")
    ] = None
    tls_cert: Annotated[
        str | None, Help("certificate with those that vouch for it (PEM), taken anew when it is renewed; none: HTTP")
    ] = None
    tls_key: Annotated[str | None, Help("its key (PEM); one that everybody may read is refused")] = None
    canary: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Help("share of the requests that it answers beside the live version, until its figures promote it or end it"),
    ] = None
    canary_requests: Annotated[
        Annotated[int, Meta(ge=1)] | None, Help("requests of a canary before it is promoted; else 500")
    ] = None
    canary_seconds: Annotated[
        Annotated[float, Meta(ge=0)] | None, Help("seconds of a canary before it is promoted; else 60")
    ] = None
    shadow: Annotated[
        bool, Help("ask it what the live version is asked, and compare; nobody waits for what it says")
    ] = False
    replicas: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Help("processes that answer on the port, each with a core or more of its own; else as before, at first 1"),
    ] = None
    log_share: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None, Help("share of the requests whose rows are logged; else all")
    ] = None
    log_days: Annotated[
        Annotated[float, Meta(gt=0)] | None, Help("days for which the request log is kept; else 90")
    ] = None
    log_gb: Annotated[Annotated[float, Meta(gt=0)] | None, Help("GB of it that are kept at most; else 1")] = None
    personal: Annotated[
        Literal["drop", "hash", "keep"] | None,
        Help("what the log has of columns marked by data --personal: nothing (else), pseudonyms, or their values"),
    ] = None
    force: Annotated[str | None, Help("deploy a version that failed its evaluation; the reason is recorded")] = None


class Token(Verb, kw_only=True, frozen=True):
    """Say who may ask an endpoint, and for what."""

    verb: ClassVar[str] = "token"
    does: ClassVar[str] = "List who is let in by an endpoint; make, replace or revoke a token."
    positional: ClassVar[tuple[str, ...]] = ("endpoint",)
    examples: ClassVar[tuple[str, ...]] = (
        "token diagnosis",
        "token diagnosis --name shop --scope infer",
        "token diagnosis --name shop --replace --grace 60",
        "token diagnosis --name shop --revoke",
    )

    endpoint: Annotated[str, Help("the endpoint")]
    name: Annotated[str | None, Help("the token's name; owner is the one that every endpoint has")] = None
    scope: Annotated[
        tuple[Literal["infer", "read", "admin"], ...],
        Help("infer asks for predictions, read for figures, admin for all; else infer"),
    ] = ()
    replace: Annotated[bool, Help("make a new token of that name and these scopes, in the place of the old one")] = (
        False
    )
    grace: Annotated[
        Annotated[float, Meta(ge=0)] | None, Help("seconds for which the old one is let in too; else 0")
    ] = None
    revoke: Annotated[bool, Help("let it in no more, from now on")] = False


class Predict(Verb, kw_only=True, frozen=True):
    """Score rows with a version or an endpoint."""

    verb: ClassVar[str] = "predict"
    does: ClassVar[str] = "Score rows: by a model without a server, or by an endpoint."
    positional: ClassVar[tuple[str, ...]] = ("model", "rows")
    examples: ClassVar[tuple[str, ...]] = (
        "predict TumorNet new_patients.csv --to scored.parquet",
        "predict diagnosis new_patients.csv",
        "predict LeafNet new_photos/",
    )

    model: Annotated[str, Help("a model (NAME, NAME@3) or an endpoint")]
    rows: Annotated[
        str, Help("path (CSV, Parquet, Arrow, JSONL; of images a file or folder), or a variable of the notebook")
    ]
    to: Annotated[str | None, Help("file to write: .parquet, .csv or .jsonl")] = None


class Export(Verb, kw_only=True, frozen=True):
    """Write a version for other machines."""

    verb: ClassVar[str] = "export"
    does: ClassVar[str] = (
        "Write a version for other machines: an image, a context to build one, its graph, KServe's YAML."
    )
    positional: ClassVar[tuple[str, ...]] = ("model",)
    examples: ClassVar[tuple[str, ...]] = (
        "export TumorNet@3 --to image",
        "export TumorNet@champion --to image --base /srv/bookworm",
        "export TumorNet@3 --format docker --to context",
        "export TumorNet@3 --format onnx --to graph",
        "export TumorNet@3 --format kserve --to cluster --image REGISTRY/tumornet:3",
    )

    model: Annotated[str, Help("NAME, NAME@3 or NAME@champion")]
    to: Annotated[str, Help("folder to write; a former export there is replaced, anything else is not")]
    format: Annotated[
        Literal["oci", "docker", "kserve", "onnx"],
        Help(
            "image as an OCI layout, without a daemon; context for docker, podman or buildah; InferenceService; graph"
        ),
    ] = "oci"
    base: Annotated[
        str, Help("local base image (OCI layout, root file system as folder or tar); none takes the interpreter along")
    ] = "none"
    image: Annotated[str | None, Help("of kserve: the name under which the cluster finds the image")] = None
    force: Annotated[str | None, Help("export a version that failed its evaluation; the reason becomes a label")] = None


class ExportLog(Verb, kw_only=True, frozen=True):
    """Write an endpoint's request log as Parquet."""

    verb: ClassVar[str] = "export-log"
    does: ClassVar[str] = (
        "Write an endpoint's request log as one Parquet file: a line a row, with its id and prediction."
    )
    positional: ClassVar[tuple[str, ...]] = ("endpoint",)
    examples: ClassVar[tuple[str, ...]] = (
        "export-log diagnosis --to requests.parquet",
        "export-log diagnosis --to week.parquet --since 7d",
        "export-log /srv/state/requests --bundle TumorNet@3 --to requests.parquet",
    )

    endpoint: Annotated[str, Help("the endpoint; or a container's folder: LEPTON_STATE, or requests in it")]
    to: Annotated[str, Help("file to write: .parquet")]
    since: Annotated[str | None, Help("how far back, such as 7d, or a date or moment in UTC: 2026-01-31T12:00")] = None
    until: Annotated[str | None, Help("where it ends, said in the same way; else now")] = None
    shadow: Annotated[bool, Help("what shadows said, too")] = False
    bundle: Annotated[str | None, Help("of a container's folder: the version that it served, or its bundle")] = None


class Endpoints(Verb, kw_only=True, frozen=True):
    """List endpoints."""

    verb: ClassVar[str] = "endpoints"
    does: ClassVar[str] = "List endpoints with their versions, states and addresses."
    examples: ClassVar[tuple[str, ...]] = ("endpoints",)


class Models(Verb, kw_only=True, frozen=True):
    """List models."""

    verb: ClassVar[str] = "models"
    does: ClassVar[str] = "List models with their versions, aliases, metrics and verdicts."
    examples: ClassVar[tuple[str, ...]] = ("models",)
