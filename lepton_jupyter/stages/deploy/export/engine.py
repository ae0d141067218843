"""A version for other machines: what was asked is checked, then one of the formats is written."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.stages.deploy.export.base import Base, check_there, open_base
from lepton_jupyter.stages.deploy.export.context import write_context
from lepton_jupyter.stages.deploy.export.graph import write_graph
from lepton_jupyter.stages.deploy.export.image import plan_image
from lepton_jupyter.stages.deploy.export.kserve import check_image, write_manifests
from lepton_jupyter.stages.deploy.export.oci import write_layout
from lepton_jupyter.stages.deploy.export.place import Exported, check_place, new_folder, write_record
from lepton_jupyter.stages.deploy.spec import Export

NONE = "none"
_REFERENCE = re.compile(r"[a-z0-9][a-z0-9._/-]*(:\d+/[a-z0-9._/-]+)?(:[A-Za-z0-9._-]+)?(@sha256:[0-9a-f]{64})?")


def check(spec: Export) -> None:
    """Refuse what cannot be done, before any work.

    Raises
    ------
    LeptonError
        If the place is taken, the base is not there, or a flag means nothing for the format.
    """
    check_place(place_of(spec.to))
    if spec.format == "kserve":
        check_image(spec.image)
        if spec.base != NONE:
            raise LeptonError("--base means nothing for --format kserve: the image has its base.", "Leave it out.")
        return
    if spec.format == "onnx" and spec.base != NONE:
        raise LeptonError("--base means nothing for --format onnx: a graph has none.", "Leave it out.")
    if spec.image is not None:
        raise LeptonError(
            f"--image means nothing for --format {spec.format}: the one who pushes an image names it.", "Leave it out."
        )
    if spec.base != NONE and not _is_name(spec):
        check_there(Path(spec.base).expanduser())


def export(spec: Export, version: VersionView, bundle: Bundle) -> Exported:
    """Write a version as `spec` says, and return what was written.

    Parameters
    ----------
    spec : Export
    version : VersionView
    bundle : Bundle
        Its own.

    Raises
    ------
    LeptonError
        As `check`; and where the bundle was changed or a file cannot be written: what lay there is then as it was.
    """
    to = place_of(spec.to)
    about = Exported(format=spec.format, version=version.ref, model=version.model, manifest_hash=bundle.manifest_hash)
    if spec.format == "kserve":
        name = check_image(spec.image)
        with new_folder(to) as folder:
            write_manifests(version, bundle.manifest_hash, name, folder)
            return write_record(folder, about)
    if spec.format == "onnx":
        with new_folder(to) as folder:
            return write_record(folder, msgspec.structs.replace(about, parts=write_graph(bundle, folder)))
    base = spec.base if _is_name(spec) else _base(spec)
    image = plan_image(version, bundle, base=base, forced=spec.force or "")
    about = msgspec.structs.replace(
        about,
        parts={part: tree.size_bytes for part, tree in image.parts.items()},
        base=image.base.name if image.base is not None else spec.base,
        packages=dict(image.packages),
    )
    with new_folder(to) as folder:
        if spec.format == "docker":
            write_context(image, folder, base_name=base if isinstance(base, str) else "")
        else:
            about = msgspec.structs.replace(about, digest=write_layout(image, folder))
        return write_record(folder, about)


def place_of(text: str) -> Path:
    """Return where an export goes."""
    return Path(text).expanduser().resolve()


def _is_name(spec: Export) -> bool:
    """Whether the base is no path, but the name of an image that whoever builds the context knows."""
    is_there = spec.base == NONE or Path(spec.base).expanduser().exists()
    return spec.format == "docker" and not is_there and _REFERENCE.fullmatch(spec.base) is not None


def _base(spec: Export) -> Base | None:
    return None if spec.base == NONE else open_base(Path(spec.base).expanduser())
