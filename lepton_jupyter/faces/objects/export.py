"""A version as it was written for other machines."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.formats.bundle import TOKENIZER
from lepton_jupyter.stages.deploy.export.place import Exported


class Export(Shown):
    """An image, a build context or manifests in a folder.

    Attributes
    ----------
    record : Exported
        What was written.
    path : Path
        The folder.
    """

    def __init__(self, record: Exported, path: Path, *, image: str | None = None) -> None:
        self.record = record
        self.path = path
        self._image = image

    @property
    def version(self) -> str:
        """What was exported: ``NAME@3``."""
        return self.record.version

    @property
    def digest(self) -> str:
        """Digest of an image's manifest; empty for what is no image yet."""
        return self.record.digest

    @property
    def size_bytes(self) -> int:
        """Of an image's layers above its base, unpacked; of a graph's files."""
        return sum(self.record.parts.values())

    @property
    def next_lines(self) -> list[str]:
        """What to type next, in a shell."""
        place = shlex.quote(str(self.path))
        tag = f"{self.record.model.lower()}:{self.record.version.rpartition('@')[2]}"
        run = "run --rm --publish 8080:8080 --env LEPTON_TOKEN"
        match self.record.format:
            case "oci":
                return [f"podman {run} oci:{place}", f"skopeo copy oci:{place} docker://REGISTRY/{tag}"]
            case "docker":
                return [f"docker build --tag {tag} {place}", f"docker {run} {tag}"]
            case "onnx":
                reads_prose = " tokenizers" if TOKENIZER in self.record.parts else ""
                return [f"pip install onnxruntime{reads_prose}", f"python {place}/ask.py"]
            case _:
                return [
                    "kubectl create secret generic …    # as secret.template.yaml says",
                    f"kubectl apply -f {place}/inference_service.yaml",
                ]

    def _pairs(self) -> list[tuple[str, Any]]:
        is_graph = self.record.format == "onnx"
        size, unit = (1e3, "kB") if is_graph else (1e6, "MB")
        parts = ", ".join(f"{part} {n_bytes / size:.1f} {unit}" for part, n_bytes in self.record.parts.items())
        return [
            ("folder", str(self.path)),
            ("digest", self.record.digest),
            ("base", self.record.base),
            ("files", parts if is_graph else ""),
            ("unpacked", f"{self.size_bytes / 1e6:.0f} MB ({parts})" if parts and not is_graph else ""),
            ("image", self._image),
            ("manifest", self.record.manifest_hash),
        ]

    def _line(self) -> str:
        return f"export {self.version} · {self.record.format} · {self.path}"

    def _text(self) -> str:
        pairs = [f"  {key}: {value}" for key, value in self._pairs() if value]
        return "\n".join([self._line(), *pairs, *(f"  {line}" for line in self.next_lines)])

    def _html(self) -> str:
        return html.card(
            f"export {self.version}",
            html.facts(self._pairs()),
            html.lines(self.next_lines, is_code=True),
            subtitle=self.record.format,
        )
