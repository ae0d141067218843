"""An OCI image layout on disk: blobs by their sha256, a manifest, an index. Written by hand, without a daemon."""

from __future__ import annotations

import gzip
import hashlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.stages.deploy.export.base import LAYER_GZIP, Source, architecture

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LEVEL = 6  # of gzip; it belongs to the digests
PART_BYTES = 2**20
TAG = "latest"  # what tools take where none is said

Write = Callable[[IO[bytes]], None]


class Layer(NamedTuple):
    """A layer that lies in the layout.

    Attributes
    ----------
    diff_id : str
        Digest of the tar, unpacked; `digest` and `size_bytes` are those of the blob.
    """

    media_type: str
    digest: str
    size_bytes: int
    diff_id: str

    @property
    def descriptor(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}


class _Hashed:
    """A file that knows the digest and the size of what was written to it."""

    def __init__(self, out: Any) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, content: Any) -> int:
        self._hash.update(content)
        self.size_bytes += len(content)
        self._out.write(content)
        return len(content)

    def flush(self) -> None:
        self._out.flush()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class Layout:
    """A layout that is being written.

    Parameters
    ----------
    root : Path
        An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)

    def add_layer(self, write: Write) -> Layer:
        """Add what `write` writes, a tar, as a layer: the same tar gives the same digest.

        Raises
        ------
        OSError
            As the file system says.
        """
        temporary = self._blobs / secrets.token_hex(8)
        with temporary.open("wb") as file:
            packed: Any = _Hashed(file)
            with gzip.GzipFile("", "wb", LEVEL, packed, mtime=0) as zipped:  # no name and no time in its head
                unpacked: Any = _Hashed(zipped)
                write(unpacked)
        temporary.rename(self._blobs / packed.digest.partition(":")[2])
        return Layer(LAYER_GZIP, packed.digest, packed.size_bytes, unpacked.digest)

    def take_layer(self, source: Source) -> Layer:
        """Add a blob of another layout as it is.

        Raises
        ------
        LeptonError
            If it is not what its digest says.
        """
        temporary = self._blobs / secrets.token_hex(8)
        with source.path.open("rb") as file, temporary.open("wb") as copy:
            taken = _Hashed(copy)
            while part := file.read(PART_BYTES):
                taken.write(part)
        if taken.digest != source.digest:
            raise LeptonError(
                f"A layer of the base is not what its digest says: {source.digest}.",
                "Copy the base again, or name another.",
                code="refused",
            )
        temporary.rename(self._blobs / taken.digest.partition(":")[2])
        return Layer(source.media_type, taken.digest, taken.size_bytes, source.diff_id)

    def finish(self, config: Mapping[str, Any], layers: list[Layer], annotations: Mapping[str, str]) -> str:
        """Write configuration, manifest and index; return the manifest's digest.

        Parameters
        ----------
        config : mapping
            The image's configuration without what the layers say.
        layers : list of Layer
            The lowest first.
        annotations : mapping
            Of the manifest.
        """
        diff_ids = [layer.diff_id for layer in layers]
        whole = {**config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._add_json(whole, CONFIG),
            "layers": [layer.descriptor for layer in layers],
            "annotations": dict(annotations),
        }
        described = self._add_json(manifest, MANIFEST)
        entry = {
            **described,
            "platform": {"architecture": architecture(), "os": "linux"},
            "annotations": {"org.opencontainers.image.ref.name": TAG},
        }
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        (self.root / "index.json").write_bytes(encode(index))
        (self.root / "oci-layout").write_bytes(encode({"imageLayoutVersion": "1.0.0"}))
        return str(described["digest"])

    def _add_json(self, record: Mapping[str, Any], media_type: str) -> dict[str, Any]:
        content = encode(record)
        digest = hashlib.sha256(content).hexdigest()
        (self._blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
