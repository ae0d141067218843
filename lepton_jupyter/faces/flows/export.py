"""``export``: the gate, then a version's image, build context or manifests on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.deploy import allowed_version
from lepton_jupyter.faces.flows.load import version_bundle
from lepton_jupyter.faces.objects.export import Export as Card
from lepton_jupyter.stages.deploy.spec import Export


def export(asker: Asker, spec: Export, objects: Mapping[str, Any]) -> Card:
    """Write a version for other machines, and return what was written."""
    from lepton_jupyter.stages.deploy.export import engine

    engine.check(spec)
    version = allowed_version(asker, spec.model, force=spec.force, verb="export")
    made = engine.export(spec, version, version_bundle(version))
    return Card(made, engine.place_of(spec.to), image=spec.image)
