"""A build context holds the same trees as the image, and a Dockerfile that needs no network."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.stages.deploy.export.interpreter import PYTHON
from lepton_jupyter.stages.deploy.export.place import RECORD
from tests.stages.deploy.export.images import export_to, members, read_image
from tests.stages.deploy.export.test_base import system as system  # a fixture

pytestmark = pytest.mark.slow


def test_a_context_is_the_image_as_folders(image: Path, bundle: Bundle, tmp_path: Path) -> None:
    context = tmp_path / "context"
    export_to(context, bundle, format="docker")
    parts = ["interpreter", "packages", "server", "model"]
    assert {path.name for path in context.iterdir()} == {*parts, "Dockerfile", "state", RECORD}
    ours = {}
    for part in parts:
        for path in (context / part).rglob("*"):
            name = path.relative_to(context / part).as_posix()
            if path.is_symlink():
                ours[name] = str(path.readlink())
            elif path.is_file():
                assert path.stat().st_mtime == 0
                ours[name] = f"{path.stat().st_mode & 0o777:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    theirs = {
        member.name: member.linkname if member.issym() else f"{member.mode:o} {hashlib.sha256(content).hexdigest()}"
        for member, content in members(image)
        if not member.isdir()
    }
    assert ours == theirs
    again = export_to(tmp_path / "again", bundle, format="docker")
    assert again.parts == json.loads((context / RECORD).read_bytes())["parts"]
    assert (tmp_path / "again" / "Dockerfile").read_bytes() == (context / "Dockerfile").read_bytes()


def test_the_dockerfile_says_what_the_configuration_says(image: Path, bundle: Bundle, tmp_path: Path) -> None:
    export_to(tmp_path / "context", bundle, format="docker")
    text = (tmp_path / "context" / "Dockerfile").read_text()
    config = read_image(image)[1]["config"]
    assert text.startswith("FROM scratch\nCOPY interpreter/ /\n")
    assert not re.search(r"^(RUN|ADD)|https?://(?!127)", text, flags=re.MULTILINE)
    assert f"USER {config['User']}\n" in text
    assert f"ENTRYPOINT {json.dumps(config['Entrypoint'])}\n" in text
    for line in config["Env"]:
        name, _, value = line.partition("=")
        assert f'ENV {name}="{value}"\n' in text
    for name, value in config["Labels"].items():
        assert f'LABEL "{name}"="{value}"\n' in text
    assert "COPY --chown=65532:65532 state/ /var/lib/lepton/\n" in text


def test_a_base_is_a_name_that_the_builder_knows_or_lies_in_the_context(
    bundle: Bundle, tmp_path: Path, system: Path
) -> None:
    made = export_to(tmp_path / "named", bundle, format="docker", base="registry.local:5000/base/python:3.11")
    text = (tmp_path / "named" / "Dockerfile").read_text()
    assert text.startswith("FROM registry.local:5000/base/python:3.11\nCOPY packages/ /\n")
    assert f'ENTRYPOINT ["{PYTHON}", ' in text
    assert "/tmp/" not in text and made.base == "registry.local:5000/base/python:3.11"
    export_to(tmp_path / "local", bundle, format="docker", base=str(system))
    text = (tmp_path / "local" / "Dockerfile").read_text()
    assert text.startswith("FROM scratch\nADD base-0.tar.gz /\nCOPY packages/ /\n")
    assert (tmp_path / "local" / "base-0.tar.gz").stat().st_size > 0
    with pytest.raises(LeptonError, match="There is no base image"):
        export_to(tmp_path / "other", bundle, format="docker", base="./No Such Place")
