"""The image of a model that takes image files holds Pillow, and answers."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.stages.deploy.export.packages import SITE
from tests.serving.graphs import make_bundle
from tests.serving.test_pictures import PHOTO, RED, SCHEMA_IMAGE, graph_of_images
from tests.stages.deploy.export.images import ask, export_to, members, unpack, until_ready

pytestmark = pytest.mark.slow

MOST_BYTES = 200 * 2**20  # of all layers but the interpreter's


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("version") / "bundle", SCHEMA_IMAGE, content=graph_of_images())


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    folder = tmp_path_factory.mktemp("export") / "image"
    export_to(folder, bundle)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Path:
    return unpack(image, tmp_path_factory.mktemp("root"))


def test_pillow_is_in_it_without_what_reads_other_kinds(image: Path) -> None:
    sizes = {member.name: member.size for member, _ in members(image)}
    ours = [name for name in sizes if name.startswith(f"{SITE}/PIL/")]
    assert any("/_imaging." in name for name in ours)
    assert not [name for name in ours if "/_avif" in name or "/_webp" in name]
    libraries = [name for name in sizes if name.startswith(f"{SITE}/pillow.libs/")]
    assert any("libjpeg" in name for name in libraries) and not any("libavif" in name for name in libraries)
    pillow = sum(size for name, size in sizes.items() if name in {*ours, *libraries})
    assert pillow < 25 * 2**20
    assert sum(size for name, size in sizes.items() if name.startswith("opt/lepton/")) < MOST_BYTES


def test_it_answers_files_by_its_own_decoders(
    process: tuple[subprocess.Popen[bytes], int],
    root: Path,
    eventually: Callable[..., Any],
) -> None:
    started, port = process
    until_ready(started, port, eventually)
    for kind, content, label in (("image/png", RED, "red"), ("image/jpeg", PHOTO, "green")):
        status, answer = ask(port, "/predict", content, kind=kind)
        assert status == 200, answer
        assert json.loads(answer)["predictions"][0]["prediction"] == label
    mapped = set(re.findall(r" (/\S+)$", Path(f"/proc/{started.pid}/maps").read_text(), flags=re.MULTILINE))
    assert [path for path in mapped if "_imaging" in path]
    assert [path for path in mapped if ".so" in path and not path.startswith(str(root))] == []
