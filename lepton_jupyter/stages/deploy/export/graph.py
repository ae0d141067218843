"""``--format onnx``: a version's graph with its schema and card, and a script that asks it."""

from __future__ import annotations

from pathlib import Path

from lepton_jupyter.formats.bundle import CARD, GRAPH, SCHEMA, TOKENIZER, Bundle
from lepton_jupyter.stages.deploy.export import ask

SCRIPT = "ask.py"


def write_graph(bundle: Bundle, folder: Path) -> dict[str, int]:
    """Write a bundle's graph, and what is needed to ask it, into an empty folder; return their bytes by name.

    Raises
    ------
    LeptonError
        If a file was changed.
    OSError
        As the file system says.
    """
    files = {name: bundle.read(name) for name in (GRAPH, SCHEMA, CARD, TOKENIZER) if bundle.has(name)}
    files[SCRIPT] = Path(ask.__file__).read_bytes()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {name: len(content) for name, content in files.items()}
