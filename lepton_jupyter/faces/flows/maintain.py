"""``promote``, ``rollback``, ``delete``: what changes something never guesses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.deploy import endpoint_of, who
from lepton_jupyter.faces.objects.text import Text
from lepton_jupyter.faces.objects.version import Endpoint, Version
from lepton_jupyter.stages.maintain.spec import Delete, Promote, Rollback


def promote(asker: Asker, spec: Promote, objects: Mapping[str, Any]) -> Version:
    """Give a version an alias; endpoints that follow it swap."""
    ref = parse(spec.model, "model")
    if ref.is_latest:
        versions = [view for view in asker.client.models() if view.model == ref.name]
        asker.client.version(ref.name)  # says what is known where there is no such model
        known = ", ".join(view.ref for view in versions)
        raise LeptonError(
            f"promote needs a version of '{ref.name}'. Known: {known}.",
            f"For instance: {asker.type_next(f'promote {versions[0].ref} {spec.alias}')}" if versions else "",
        )
    by = f"promoted by {who()}" if who() else ""
    asker.client.promote(_plain(spec.model), spec.alias, why=by)
    return Version(asker.client.version(_plain(spec.model)), asker)


def _plain(text: str) -> str:
    return text.removeprefix("model/")


def rollback(asker: Asker, spec: Rollback, objects: Mapping[str, Any]) -> Endpoint:
    """Put an endpoint back to its last version and hold it there; where a canary or a shadow is, end that."""
    name = parse(spec.endpoint, "endpoint").name
    beside = asker.client.endpoint(name).beside
    view = asker.client.rollback(name)
    if beside is not None:
        asker.say(f"{beside.version}, the {beside.kind} of {name}, was ended: {view.version} serves alone.")
    return endpoint_of(asker, view)


def delete(asker: Asker, spec: Delete, objects: Mapping[str, Any]) -> Text:
    """Remove what was named exactly: KIND/NAME, with its version where it has versions."""
    ref = parse(spec.ref)
    if ref.kind is None:
        if not ref.may_be_run:
            raise LeptonError(
                f"delete does not guess what '{spec.ref}' is.",
                f"Write dataset/{spec.ref}, model/{spec.ref}, endpoint/{spec.ref}, schedule/{spec.ref} or run/ID.",
            )
        raise LeptonError(f"delete does not guess what '{spec.ref}' is.", f"Write run/{spec.ref}.")
    if ref.kind in ("dataset", "model") and ref.is_latest:
        raise LeptonError(
            f"'{spec.ref}' has versions; delete takes one at a time.",
            f"For instance: {asker.type_next(f'delete {spec.ref}@1')}",
        )
    if ref.split:
        raise LeptonError(f"'{spec.ref}' names a split; a version is removed as a whole.")
    asker.client.delete(str(ref))
    return Text(f"{ref} was deleted.")
