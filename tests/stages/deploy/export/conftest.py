"""One version to export, and its image made once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_jupyter.formats.bundle import Bundle
from tests.serving.graphs import make_bundle
from tests.stages.deploy.export.images import export_to, running, unpack


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of Net@3."""
    return make_bundle(tmp_path_factory.mktemp("version") / "bundle")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    """The layout of Net@3, with the interpreter in it."""
    folder = tmp_path_factory.mktemp("export") / "image"
    export_to(folder, bundle)
    return folder


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Path:
    """The image, unpacked."""
    return unpack(image, tmp_path_factory.mktemp("root"))


@pytest.fixture
def process(image: Path, root: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The image's command with the image's environment, its paths moved to where it was unpacked."""
    with running(image, root, tmp_path / "state") as started:
        yield started
