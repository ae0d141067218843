"""A bundle that was tampered with is refused before anything in it is taken for a model, and nothing is unpickled."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import (
    CARD,
    GRAPH,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PREDICTIONS,
    SCHEMA,
    WEIGHTS,
    Bundle,
    encode,
    open_bundle,
    write_bundle,
)

ROOM = Path(__file__).resolve().parents[2] / "lepton_jupyter"
FILES = {GRAPH: b"a graph", SCHEMA: b"{}", CARD: b"{}"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "version", FILES)


def refusal(bundle: Bundle, manifest_hash: str | None = None) -> str:
    """Return why the bundle, as it lies there now, is not read."""

    def read_all() -> None:
        opened = open_bundle(bundle.root, manifest_hash)
        for name in opened.manifest.files:
            opened.read(name)

    with pytest.raises(LeptonError) as caught:
        read_all()
    assert caught.value.hint, "it says what to do"
    return caught.value.message


def forge(bundle: Bundle, **changes: Any) -> None:
    """Rewrite the manifest."""
    path = bundle.root / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_a_whole_bundle_is_read_and_its_manifest_is_pinned(bundle: Bundle) -> None:
    opened = open_bundle(bundle.root, bundle.manifest_hash)
    assert {name: opened.read(name) for name in opened.manifest.files} == FILES
    assert opened.manifest.sizes == {name: len(content) for name, content in FILES.items()}


@pytest.mark.parametrize("content", [b"b graph", b"a grapi", b"a graph ", b"a grap", b"", b"\0" * 7])
def test_a_tampered_file_is_refused(bundle: Bundle, content: bytes) -> None:
    (bundle.root / GRAPH).write_bytes(content)
    assert "graph.onnx is not what its manifest says" in refusal(bundle, bundle.manifest_hash)


def test_a_file_rewritten_with_its_manifest_is_refused_by_the_pinned_hash(bundle: Bundle) -> None:
    (bundle.root / GRAPH).write_bytes(b"b graph")
    forge(bundle, files={**bundle.manifest.files, GRAPH: hashlib.sha256(b"b graph").hexdigest()})
    assert open_bundle(bundle.root).read(GRAPH) == b"b graph"  # by itself it is whole
    assert "not the one that was registered" in refusal(bundle, bundle.manifest_hash)


@pytest.mark.parametrize("name", ["evil.pkl", "graph.onnx.data", ".hidden", "model.sig", "graph.onnx~"])
def test_an_added_file_is_refused(bundle: Bundle, name: str) -> None:
    (bundle.root / name).write_bytes(b"?")
    assert f"it holds '{name}', which its manifest does not name" in refusal(bundle, bundle.manifest_hash)


def test_an_added_folder_is_refused(bundle: Bundle) -> None:
    (bundle.root / "more").mkdir()
    assert "it holds 'more'" in refusal(bundle)


def test_a_file_that_is_gone_is_named(bundle: Bundle) -> None:
    (bundle.root / GRAPH).unlink()
    assert "graph.onnx of bundle 'version' cannot be read" in refusal(bundle)


def test_a_link_is_refused_though_it_leads_to_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    for name in (GRAPH, MANIFEST):
        path, elsewhere = bundle.root / name, tmp_path / name
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        assert f"{name} is a symbolic link" in refusal(bundle, bundle.manifest_hash)
        path.unlink()
        path.hardlink_to(elsewhere)
        assert f"{name} is a hard link: 2 names lead to it" in refusal(bundle, bundle.manifest_hash)
        path.unlink()
        elsewhere.rename(path)
    assert open_bundle(bundle.root, bundle.manifest_hash).read(GRAPH) == FILES[GRAPH]


def test_a_folder_that_is_a_link_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bundle.root, target_is_directory=True)
    with pytest.raises(LeptonError, match="its folder is a symbolic link"):
        open_bundle(link, bundle.manifest_hash)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_plain_file_is_refused_and_nobody_waits_for_it(bundle: Bundle, make: Callable[[Path], None]) -> None:
    (bundle.root / GRAPH).unlink()
    make(bundle.root / GRAPH)
    assert "graph.onnx is no plain file" in refusal(bundle)


def test_a_file_that_has_grown_is_refused_unread(bundle: Bundle) -> None:
    os.truncate(bundle.root / GRAPH, 2**40)  # sparse: reading it would take all memory there is
    assert "graph.onnx is not what its manifest says" in refusal(bundle)
    os.truncate(bundle.root / MANIFEST, 2**40)
    assert f"its manifest has more than {MAX_MANIFEST_BYTES} bytes" in refusal(bundle)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.json", "/etc/hostname", "/etc/secret.json", "a/b.json", "a\\b.json", "..", ".", "", ".hidden.json",
        "manifest.json", "evil.pkl", "weights.pt", "rows.npy", "lib.so", "graph.onnx\0.json", "graph.onnx\n",
        "x" * 200 + ".json",
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_or_is_of_no_known_kind_is_refused(
    bundle: Bundle, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret.json").write_bytes(b"{}")
    forge(bundle, files={**bundle.manifest.files, name: hashlib.sha256(b"{}").hexdigest()})
    assert "which is no file of a bundle" in refusal(bundle)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"files": {"graph.onnx": 1}}', b'{"files": {}, "x": ' + b"[" * 100_000],
    ids=["empty", "half", "no-text", "list", "number", "deep"],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(bundle: Bundle, content: bytes) -> None:
    (bundle.root / MANIFEST).write_bytes(content)
    assert "manifest.json of bundle 'version' cannot be read" in refusal(bundle)


def test_a_format_of_later_is_refused(bundle: Bundle) -> None:
    forge(bundle, format=2)
    assert "its format is 2; 1 is known here" in refusal(bundle)


class Evil:
    """Whoever unpickles it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def as_pickle(evil: Evil) -> bytes:
    return pickle.dumps(evil)


def as_array(evil: Evil) -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([evil], dtype=object), allow_pickle=True)
    return content.getvalue()


def as_checkpoint(evil: Evil) -> bytes:
    import torch

    content = io.BytesIO()
    torch.save({"state": evil}, content)
    return content.getvalue()


@pytest.mark.parametrize("make", [as_pickle, as_array, as_checkpoint])
@pytest.mark.parametrize("name", [GRAPH, SCHEMA, CARD, WEIGHTS, PREDICTIONS])
def test_a_pickle_under_any_name_is_not_unpickled(tmp_path: Path, name: str, make: Callable[[Evil], bytes]) -> None:
    from lepton_jupyter.serving.scorer import Scorer
    from lepton_jupyter.stages.deploy.scoring import LoadedModel
    from tests.serving.graphs import SCHEMA_BINARY, card

    mark = tmp_path / "unpickled"
    good = {SCHEMA: encode(SCHEMA_BINARY), CARD: encode(card())}
    bundle = write_bundle(tmp_path / "version", {**good, name: make(Evil(mark))})
    readers: dict[str, Callable[[], Any]] = {
        GRAPH: lambda: Scorer(open_bundle(bundle.root)),
        SCHEMA: lambda: open_bundle(bundle.root).schema,
        CARD: lambda: open_bundle(bundle.root).card,
        WEIGHTS: lambda: LoadedModel(open_bundle(bundle.root)).weights,
        PREDICTIONS: lambda: LoadedModel(open_bundle(bundle.root)).predictions,
    }
    with pytest.raises(Exception):  # noqa: B017  each reader has its own words
        readers[name]()
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists(), "it is a pickle that acts"


@pytest.mark.parametrize("room", ["core", "formats", "serving"])
def test_the_rooms_that_read_bundles_have_nothing_that_runs_code_from_data(room: str) -> None:
    never = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch", "imp"}
    for path in sorted((ROOM / room).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not never & {alias.name.partition(".")[0] for alias in node.names}, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in never, path
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), path
            elif isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", path
