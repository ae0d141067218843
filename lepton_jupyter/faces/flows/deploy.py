"""``deploy``: the gate, then the endpoint: an upsert by name."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import check_name, parse
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.evaluate import judge
from lepton_jupyter.faces.flows.meaning import find_version
from lepton_jupyter.faces.flows.personal import warn_of_personal
from lepton_jupyter.faces.objects.asking import lines_for
from lepton_jupyter.faces.objects.version import Endpoint
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.formats.views import DeployRequest, EndpointView, VersionView
from lepton_jupyter.stages.deploy.spec import Deploy
from lepton_jupyter.stages.evaluate.spec import Evaluate


def deploy(asker: Asker, spec: Deploy, objects: Mapping[str, Any]) -> Endpoint:
    """Serve a version as an endpoint, or beside its live version, and return it when it is ready."""
    from lepton_jupyter.stages.deploy.doors import options_of

    name = check_name(spec.as_, "endpoint")
    _check_beside(asker, spec)
    options = options_of(spec)
    version = allowed_version(asker, spec.model, force=spec.force)
    ref = parse(spec.model)
    model = f"{version.model}@{ref.alias}" if ref.alias else version.ref
    request = DeployRequest(
        name=name, model=model, port=spec.port, force=spec.force, who=who(), canary=spec.canary,
        canary_requests=spec.canary_requests, canary_seconds=spec.canary_seconds, is_shadow=spec.shadow,
        options=options,
    )  # fmt: skip
    warn_of_personal(asker, version, spec.personal)
    return endpoint_of(asker, asker.client.deploy(request))


def allowed_version(asker: Asker, model: str, *, force: str | None, verb: str = "deploy") -> VersionView:
    """Return the version that MODEL means if its evaluation lets it out; one that was never evaluated is judged first.

    Raises
    ------
    LeptonError
        If it is not deployable, or failed its evaluation and there is no reason to `force` it.
    """
    from lepton_jupyter.stages.deploy.gate import decide

    version = find_version(asker, model)
    decision = decide(version, force=force, verb=verb)
    if decision.needs_evaluation:
        _evaluate_first(asker, version)
        version = asker.client.version(version.ref)
        decision = decide(version, force=force, verb=verb)
    if decision.refused is not None:
        raise decision.refused
    if decision.warning:
        asker.warn(decision.warning)
    return version


def _check_beside(asker: Asker, spec: Deploy) -> None:
    """Refuse flags that cannot be, or go together, and a canary of nothing, before the version is judged for it."""
    from lepton_jupyter.stages.deploy.canary import check_flags, nothing_live
    from lepton_jupyter.stages.deploy.replicas import check_replicas

    check_replicas(spec.replicas)
    check_flags(canary=spec.canary, requests=spec.canary_requests, seconds=spec.canary_seconds, is_shadow=spec.shadow)
    if spec.canary is None and not spec.shadow:
        return
    live = [view for view in asker.client.endpoints() if view.name == spec.as_ and view.state != "stopped"]
    if not live:
        raise nothing_live(spec.as_, find_version(asker, spec.model).ref, "shadow" if spec.shadow else "canary")


def _evaluate_first(asker: Asker, version: VersionView) -> None:
    """Judge a version that never was. Where that cannot be, it says why and deploying goes on."""
    asker.warn(f"{version.ref} was never evaluated: evaluating it first.")
    try:
        judge(asker, Evaluate(model=version.ref), version)
    except LeptonError as error:
        if error.code not in ("bad_input", "not_found"):
            raise
        asker.warn(f"It cannot be evaluated: {error.message}")


def who() -> str:
    """Return the name of whoever asks (on a Hub all may be one system user); empty for a user without one."""
    try:
        return os.environ.get("JUPYTERHUB_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return ""


def endpoint_of(asker: Asker, view: EndpointView) -> Endpoint:
    """Return the endpoint with a real-looking row for its curl line."""
    try:
        bundle = open_bundle(asker.home.bundles / view.run_id)
        schema = bundle.schema
        picture = _a_picture(asker, bundle.card.trained_on) if schema.image is not None else None
    except LeptonError:
        return Endpoint(view, asker)
    names = {column.name for column in schema.columns}
    example = {key: value for key, value in schema.example.items() if key in names}
    return Endpoint(view, asker, example=example, asking=lines_for(view, schema, picture))


def _a_picture(asker: Asker, dataset: str | None) -> Path | None:
    """Return a file of a dataset of images that is there, of its last split; None where there is none."""
    from lepton_jupyter.stages.data.images import PATH, root_of
    from lepton_jupyter.stages.data.store import Store

    if dataset is None:
        return None
    try:
        found = Store(asker.home).open(dataset)
        path = root_of(found.record) / found.head(found.splits()[-1])[PATH][0]
    except (LeptonError, OSError):  # deleted meanwhile
        return None
    return path if path.is_file() else None
