"""``--format oci``: an image as a layout on disk, ready for skopeo, podman or a registry."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lepton_jupyter.stages.deploy.export.base import Base, Source, pack_folder
from lepton_jupyter.stages.deploy.export.image import LABELS, Image
from lepton_jupyter.stages.deploy.export.layout import PART_BYTES, Layer, Layout
from lepton_jupyter.stages.deploy.export.tree import write_tar

MAKER = "lepton export"
UNPACKERS: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)


def write_layout(image: Image, folder: Path) -> str:
    """Write an image into an empty folder, and return its digest.

    Raises
    ------
    LeptonError
        If a layer of the base is not what its digest says.
    OSError
        As the file system says.
    """
    layout = Layout(folder)
    below = [_base_layer(layout, source) for source in image.base.sources] if image.base is not None else []
    ours = [layout.add_layer(partial(write_tar, tree, mtime=image.mtime)) for tree in image.parts.values()]
    made = [{"created": image.created, "created_by": f"{MAKER}: {part}"} for part in image.parts]
    config = {**image.config, "history": [*_history(image.base, image.created), *made]}
    return layout.finish(config, [*below, *ours], _annotations(image))


def _base_layer(layout: Layout, source: Source) -> Layer:
    if source.digest:
        return layout.take_layer(source)
    return layout.add_layer(partial(write_base, source.path))


def write_base(path: Path, out: Any) -> None:
    """Write a root file system, a folder or a tar in whatever compression, as a plain tar."""
    if path.is_dir():
        pack_folder(path, out)
        return
    with _unpacked(path) as file:
        while part := file.read(PART_BYTES):
            out.write(part)


def _unpacked(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(6)
    for start, unpack in UNPACKERS:
        if head.startswith(start):
            return unpack(path)
    return path.open("rb")


def _history(base: Base | None, created: str) -> list[dict[str, Any]]:
    if base is None:
        return []
    return base.history or [{"created": created, "created_by": f"{MAKER}: base {base.name}"} for _ in base.sources]


def _annotations(image: Image) -> dict[str, str]:
    found = {**image.labels, f"{LABELS}created": image.created}
    if image.base is not None:
        found[f"{LABELS}base.name"] = image.base.name
        if image.base.digest:
            found[f"{LABELS}base.digest"] = image.base.digest
    return found
