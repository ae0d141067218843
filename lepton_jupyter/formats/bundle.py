"""A bundle: the directory that is a model's version."""

from __future__ import annotations

import hashlib
import os
import re
import stat
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
TOKENIZER = "tokenizer.json"  # reads the columns of prose; the one thing of a model that is not in its graph
PREDICTIONS = "predictions.parquet"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"  # over the manifest's bytes; the only file beside it that it does not name

FORMAT = 1
SUFFIXES = (".json", ".onnx", ".parquet", ".safetensors")  # kinds whose readers run no code
MAX_MANIFEST_BYTES = 2**20
MAX_SIGNATURE_BYTES = 2**10
MAX_FILE_BYTES = 2**40  # where the manifest does not say

ANOTHER = "Deploy another version, or train again."

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")

T = TypeVar("T")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``: sha256 of every other file. Written last: its presence means that the bundle is whole.

    Attributes
    ----------
    files : dict
        sha256 by name, hexadecimal.
    sizes : dict
        Bytes by name: a file that has grown is refused before it is read. Empty in the first bundles.
    """

    files: dict[str, str]
    sizes: dict[str, int] = {}  # msgspec gives each its own
    format: int = FORMAT


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
            If the file is not in the manifest, not there, no plain file, or not what the manifest says.
        """
        expected = self.manifest.files.get(name)
        if expected is None:
            raise LeptonError(f"The bundle '{self.root.name}' has no {name}.", code="not_found")
        try:
            content = _read_plain(self.root / name, self.manifest.sizes.get(name, MAX_FILE_BYTES))
        except OSError as error:
            raise LeptonError(
                f"{name} of bundle '{self.root.name}' cannot be read: {error.strerror}.", ANOTHER, code="failed"
            ) from error
        if content is None or hashlib.sha256(content).hexdigest() != expected:
            raise _refused(self.root, f"{name} is not what its manifest says: it was changed")
        return content

    def read_manifest(self) -> bytes:
        """Return the bytes of the manifest that was opened: what a signature is over.

        Raises
        ------
        LeptonError
            If it was changed since.
        """
        try:
            content = _read_plain(self.root / MANIFEST, MAX_MANIFEST_BYTES)
        except OSError:
            content = None
        if content is None or hashlib.sha256(content).hexdigest() != self.manifest_hash:
            raise _refused(self.root, "its manifest was changed since it was opened")
        return content

    def signature(self) -> bytes | None:
        """Return what lies beside the manifest as its signature; None where it is not signed."""
        try:
            return _read_plain(self.root / SIGNATURE, MAX_SIGNATURE_BYTES)
        except OSError:
            return None

    def has(self, name: str) -> bool:
        """Whether the manifest names the file."""
        return name in self.manifest.files

    @property
    def schema(self) -> Schema:
        """Columns in, outputs out."""
        return _decode(self.root, SCHEMA, self.read(SCHEMA), Schema)

    @property
    def card(self) -> Card:
        """Where the version comes from."""
        return _decode(self.root, CARD, self.read(CARD), Card)


def _decode(root: Path, name: str, content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LeptonError(f"{name} of bundle '{root.name}' cannot be read: {error}.", ANOTHER, code="failed") from error


def _read_plain(path: Path, max_bytes: int) -> bytes | None:
    """Return the bytes of a plain file with one name; None where they are more than `max_bytes`.

    Raises
    ------
    OSError
        If it cannot be opened or read.
    LeptonError
        If it is a link, has a second name elsewhere, or is no file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if path.is_symlink():
            raise _refused(path.parent, f"{path.name} is a symbolic link") from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path.parent, f"{path.name} is no plain file")
        if found.st_nlink > 1:
            raise _refused(path.parent, f"{path.name} is a hard link: {found.st_nlink} names lead to it")
        if found.st_size > max_bytes:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(found.st_size + 1)  # one more: what grew meanwhile is noticed by its hash
    finally:
        os.close(descriptor)


def _refused(root: Path, what: str) -> LeptonError:
    return LeptonError(f"The bundle '{root.name}' is refused: {what}.", ANOTHER, code="refused")


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
    manifest = Manifest(
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        sizes={name: len(content) for name, content in files.items()},
    )
    content = encode(manifest)
    write_atomic(folder / MANIFEST, content)
    return Bundle(folder, manifest, hashlib.sha256(content).hexdigest())


def open_bundle(folder: Path, manifest_hash: str | None = None) -> Bundle:
    """Open a whole bundle: a folder that holds what its manifest names, and nothing else.

    Parameters
    ----------
    folder : Path
    manifest_hash : str, optional
        sha256 of the manifest itself, where it is pinned: who rewrites a file can rewrite the manifest.

    Raises
    ------
    LeptonError
        If there is no whole bundle, the manifest is not the pinned one or names what is no file of a bundle, or the
        folder is a link or holds a file that the manifest does not name.
    """
    if folder.is_symlink():
        raise _refused(folder, "its folder is a symbolic link")
    try:
        content = _read_plain(folder / MANIFEST, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise LeptonError(f"'{folder.name}' holds no whole bundle.", "Train again.", code="not_found") from error
    if content is None:
        raise _refused(folder, f"its manifest has more than {MAX_MANIFEST_BYTES} bytes")
    found = hashlib.sha256(content).hexdigest()
    if manifest_hash is not None and found != manifest_hash:
        raise _refused(folder, "its manifest is not the one that was registered")
    manifest = _decode(folder, MANIFEST, content, Manifest)
    if manifest.format != FORMAT:
        raise _refused(folder, f"its format is {manifest.format}; {FORMAT} is known here")
    for name in manifest.files:
        if not _NAME.match(name) or name == MANIFEST or not name.endswith(SUFFIXES):
            raise _refused(folder, f"its manifest names {name[:100]!r}, which is no file of a bundle")
    extra = sorted({path.name for path in folder.iterdir()} - {MANIFEST, SIGNATURE, *manifest.files})
    if extra:
        raise _refused(folder, f"it holds {extra[0][:100]!r}, which its manifest does not name")
    return Bundle(folder, manifest, found)


def encode(record: object) -> bytes:
    """Return a record as JSON, the same bytes each time: keys in order, two blanks of indent."""
    return msgspec.json.format(msgspec.json.encode(record, order="deterministic"), indent=2) + b"\n"
