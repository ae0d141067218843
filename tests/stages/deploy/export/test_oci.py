"""The image: a whole layout, small, the same each time, with nothing of this machine and no framework in it."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import GRAPH, Bundle
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.stages.deploy.export.base import architecture
from lepton_jupyter.stages.deploy.export.image import BUNDLE, RELEASE, plan_image
from lepton_jupyter.stages.deploy.export.packages import (
    DISTRIBUTIONS,
    OF_IMAGES,
    OF_PROSE,
    ROOMS,
    SITE,
    STATE,
    USER_ID,
)
from lepton_jupyter.stages.deploy.export.place import RECORD
from tests.serving.graphs import make_bundle
from tests.stages.deploy.export.images import blob, export_to, members, read_image, version_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[4]
PACKAGE = ROOT / "lepton_jupyter"
MB = 1e6
ELSEWHERE = frozenset({"flatbuffers", "pandas", "platformdirs", "pyarrow"})  # what an image never asks for, or lacks

AGAIN = """
import sys
from pathlib import Path
from lepton_jupyter.formats.bundle import open_bundle
from tests.stages.deploy.export.images import export_to
print(export_to(Path(sys.argv[1]), open_bundle(Path(sys.argv[2]))).digest)
"""


def test_every_blob_is_what_its_descriptor_says(image: Path) -> None:
    assert json.loads((image / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((image / "index.json").read_bytes())["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert entry["platform"] == {"architecture": architecture(), "os": "linux"}
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "latest"}
    manifest, config = read_image(image)
    assert manifest["mediaType"] == entry["mediaType"] and manifest["schemaVersion"] == 2
    named = {entry["digest"], manifest["config"]["digest"]}
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        content = blob(image, layer)
        assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
        assert content[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, no system
        assert f"sha256:{hashlib.sha256(gzip.decompress(content)).hexdigest()}" == diff_id
        named.add(layer["digest"])
    assert len(config["history"]) == len(manifest["layers"])
    assert {f"sha256:{path.name}" for path in (image / "blobs" / "sha256").iterdir()} == named


def test_the_configuration_says_who_runs_what_and_names_the_version(image: Path, bundle: Bundle) -> None:
    manifest, about = read_image(image)
    config = about["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"][1:] == ["-m", "lepton_jupyter.serving.container"]
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    assert not [line for line in config["Env"] if "TOKEN" in line]
    assert about["created"] == "2023-11-14T22:13:20Z"
    for said in (config["Labels"], manifest["annotations"]):
        assert said["lepton-jupyter.version"] == "Net@3"
        assert said["lepton-jupyter.model"] == "Net"
        assert said["lepton-jupyter.manifest"] == f"sha256:{bundle.manifest_hash}"
        assert said["lepton-jupyter.ready"] == "http:8080/readyz"
        assert said["org.opencontainers.image.version"] == "3"


def test_two_builds_in_two_processes_have_one_digest(image: Path, bundle: Bundle, tmp_path: Path) -> None:
    record = json.loads((image / RECORD).read_bytes())
    again = subprocess.run(
        [sys.executable, "-c", AGAIN, str(tmp_path / "other name"), str(bundle.root)],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "TZ": "Asia/Tokyo"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout.strip() == record["digest"]
    assert _files(tmp_path / "other name") == _files(image)


def _files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_it_is_small_and_its_layers_are_counted(image: Path) -> None:
    parts = json.loads((image / RECORD).read_bytes())["parts"]
    assert set(parts) == {"interpreter", "packages", "server", "model"}
    assert sum(len(content) for _, content in members(image)) == sum(parts.values())
    assert sum(parts.values()) < 300 * MB
    assert sum(parts.values()) - parts["interpreter"] < 200 * MB


def test_nothing_of_this_machine_and_no_framework_is_in_it(image: Path, bundle: Bundle) -> None:
    places = {str(ROOT), str(bundle.root.parent), *({sys.prefix} - {sys.base_prefix})}
    needles = re.compile(b"|".join(re.escape(place.encode()) for place in places))
    forbidden = re.compile(r"torch|pyarrow|polars|sklearn|mlflow|jupyter_client|/tests?/|RECORD$|direct_url")
    for member, content in members(image):
        assert not needles.search(content), member.name
        if f"{SITE}/lepton_jupyter/" not in member.name:
            assert not forbidden.search(member.name), member.name


def test_files_belong_to_root_but_for_one_folder(image: Path) -> None:
    owners = {(member.name, member.uid, member.mode) for member, _ in members(image) if member.uid}
    assert owners == {(STATE, USER_ID, 0o700)}
    for member, _ in members(image):
        assert (member.mtime, member.uname, member.gname) == (0, "", "")
        assert member.isdir() or member.issym() or member.mode in (0o755, 0o644), member.name
        assert not member.name.startswith(("/", "..")) and "/../" not in member.name


def test_the_bundle_is_whole_and_pinned(image: Path, bundle: Bundle) -> None:
    found = {member.name: content for member, content in members(image)}
    for path in bundle.root.iterdir():
        assert found[f"{BUNDLE}/{path.name}"] == path.read_bytes()
    release = msgspec.json.decode(found[RELEASE], type=EndpointConfig)
    assert (release.version, release.manifest_hash) == ("Net@3", bundle.manifest_hash)
    assert (release.host, release.port, release.token_hashes) == ("0.0.0.0", 8080, ())


def test_what_the_endpoint_imports_is_taken_along() -> None:
    holders = packages_distributions()
    for room in ROOMS:
        for path in (PACKAGE / room).rglob("*.py"):
            for name in _imported(path) - sys.stdlib_module_names - ELSEWHERE - {"lepton_jupyter"}:
                assert set(holders[name]) & {*DISTRIBUTIONS, *OF_IMAGES, *OF_PROSE}, (
                    f"{name} in {path.name}: name it in packages.py"
                )


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_the_time_is_the_one_that_builds_agree_on(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    planned = plan_image(version_of(bundle), bundle, base="any")
    assert (planned.created, planned.mtime) == ("1970-01-02T00:00:00Z", 86400)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(LeptonError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        export_to(tmp_path / "image", bundle)


def test_a_bundle_that_was_changed_is_refused_and_the_former_export_stays(bundle: Bundle, tmp_path: Path) -> None:
    changed = make_bundle(tmp_path / "changed")
    to = tmp_path / "image"
    export_to(to, bundle, format="kserve", image="net:3")
    before = _files(to)
    (changed.root / GRAPH).write_bytes(b"other")
    with pytest.raises(LeptonError, match="is not what its manifest says"):
        export_to(to, changed)
    assert _files(to) == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"base": "nowhere"}, "There is no base image at 'nowhere'"),
        ({"image": "net:3"}, "--image means nothing for --format oci"),
        ({"format": "docker", "image": "net:3"}, "--image means nothing for --format docker"),
        ({"format": "kserve"}, "needs --image"),
        ({"format": "kserve", "image": "net 3"}, "'net 3' cannot be the name of an image"),
        ({"format": "kserve", "image": "net:3", "base": "x"}, "--base means nothing for --format kserve"),
    ],
)
def test_flags_that_mean_nothing_are_refused_before_any_work(
    bundle: Bundle, tmp_path: Path, flags: dict[str, Any], said: str
) -> None:
    with pytest.raises(LeptonError, match=re.escape(said)):
        export_to(tmp_path / "image", bundle, **flags)
    assert not (tmp_path / "image").exists()
