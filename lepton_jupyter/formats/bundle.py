"""A bundle: the directory that is a model's version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.formats.records import Card
from lepton_jupyter.formats.schema import Schema

GRAPH = "graph.onnx"
SCHEMA = "schema.json"
CARD = "card.json"
PROFILE = "profile.json"
PREDICTED = "predicted.json"  # the profile of what the graph says of known rows
WEIGHTS = "weights.safetensors"
PREDICTIONS = "predictions.parquet"
MANIFEST = "manifest.json"

T = TypeVar("T")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``: sha256 of every other file. Written last: its presence means that the bundle is whole."""

    files: dict[str, str]
    format: int = 1


@dataclass(frozen=True)
class Bundle:
    """A whole bundle on disk. `read` gives bytes that were verified; nothing is ever unpickled."""

    root: Path
    manifest: Manifest
    manifest_hash: str

    def read(self, name: str) -> bytes:
        """Return a file's bytes, read once and compared with the manifest.

        Raises
        ------
        LeptonError
            If the file is not in the manifest, not there, or not what the manifest says.
        """
        expected = self.manifest.files.get(name)
        if expected is None:
            raise LeptonError(f"The bundle '{self.root.name}' has no {name}.", code="not_found")
        try:
            content = (self.root / name).read_bytes()
        except OSError as error:
            raise LeptonError(
                f"{name} of bundle '{self.root.name}' cannot be read: {error.strerror}.",
                "Deploy another version, or train again.",
                code="failed",
            ) from error
        if hashlib.sha256(content).hexdigest() != expected:
            raise LeptonError(
                f"{name} of bundle '{self.root.name}' is not what its manifest says: it was changed.",
                "Deploy another version, or train again.",
                code="refused",
            )
        return content

    def has(self, name: str) -> bool:
        """Whether the manifest names the file."""
        return name in self.manifest.files

    @property
    def schema(self) -> Schema:
        """Columns in, outputs out."""
        return _decode(self.read(SCHEMA), Schema)

    @property
    def card(self) -> Card:
        """Where the version comes from."""
        return _decode(self.read(CARD), Card)


def _decode(content: bytes, kind: type[T]) -> T:
    return msgspec.json.decode(content, type=kind)


def write_bundle(folder: Path, files: dict[str, bytes]) -> Bundle:
    """Write a bundle: the files, then the manifest. The folder must not hold a bundle yet.

    Raises
    ------
    OSError
        As the file system says, for instance when no space is left.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in sorted(files.items()):
        write_atomic(folder / name, content)
    manifest = Manifest(files={name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())})
    content = encode(manifest)
    write_atomic(folder / MANIFEST, content)
    return Bundle(folder, manifest, hashlib.sha256(content).hexdigest())


def open_bundle(folder: Path, manifest_hash: str | None = None) -> Bundle:
    """Open a whole bundle.

    Parameters
    ----------
    folder : Path
    manifest_hash : str, optional
        sha256 of the manifest itself, where it is pinned: who rewrites a file can rewrite the manifest.

    Raises
    ------
    LeptonError
        If there is no whole bundle, or the manifest is not the pinned one.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise LeptonError(f"'{folder.name}' holds no whole bundle.", "Train again.", code="not_found") from error
    found = hashlib.sha256(content).hexdigest()
    if manifest_hash is not None and found != manifest_hash:
        raise LeptonError(
            f"The manifest of bundle '{folder.name}' is not the one that was registered.",
            "Deploy another version, or train again.",
            code="refused",
        )
    try:
        manifest = _decode(content, Manifest)
    except msgspec.DecodeError as error:
        raise LeptonError(f"The manifest of bundle '{folder.name}' cannot be read.", code="failed") from error
    return Bundle(folder, manifest, found)


def encode(record: object) -> bytes:
    """Return a record as JSON, the same bytes each time: keys in order, two blanks of indent."""
    return msgspec.json.format(msgspec.json.encode(record, order="deterministic"), indent=2) + b"\n"
