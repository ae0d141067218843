"""A base is read where it lies: what it has decides, and its bytes go into the image as they are."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.stages.deploy.export.base import architecture, open_base
from lepton_jupyter.stages.deploy.export.interpreter import PYTHON
from lepton_jupyter.stages.deploy.export.layout import Layout
from lepton_jupyter.stages.deploy.export.oci import write_base
from tests.stages.deploy.export.images import export_to, members, read_image

LIBRARIES = (
    "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6",
    "libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libutil.so.1", "libz.so.1",
)  # fmt: skip


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A root file system as Debian lays it out, with empty files in place of programs."""
    root = tmp_path / "bookworm"
    for folder in ("usr/bin", f"usr/lib/{PYTHON}/asyncio", "usr/lib/many", "etc", "dev", "proc/1", "tmp"):
        (root / folder).mkdir(parents=True)
    for name in ("bin", "lib"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "usr/bin" / PYTHON).write_text("a program")
    (root / "usr/bin/python3").symlink_to(PYTHON)
    (root / f"usr/lib/{PYTHON}/asyncio/events.py").write_text("")
    for name in LIBRARIES:
        (root / "usr/lib/many" / name).write_text("")
    (root / "usr/bin/same").hardlink_to(root / "usr/bin" / PYTHON)
    (root / "proc/1/environ").write_text("not a file of the image")
    return root


def _tar(system: Path, path: Path, kind: str) -> Path:
    with tarfile.open(path, f"w{kind}") as archive:
        archive.add(system, ".")
    return path


def _layout(system: Path, root: Path, **changes: Any) -> Path:
    layout = Layout(root)
    layer = layout.add_layer(lambda out: write_base(system, out))
    config = {
        "architecture": architecture(),
        "os": "linux",
        "config": {"Env": ["PATH=/opt/bin:/bin", "LANG=C.UTF-8"], "Labels": {"made-by": "them"}},
        "history": [{"created_by": "them"}],
    }
    layout.finish({**config, **changes}, [layer], {})
    return root


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_a_tar_goes_into_a_layer_as_it_is_in_whatever_it_was_packed(system: Path, tmp_path: Path, kind: str) -> None:
    plain = _tar(system, tmp_path / "plain.tar", ":").read_bytes()
    base = open_base(_tar(system, tmp_path / "system.tar", f":{kind}"))
    out = io.BytesIO()
    write_base(base.sources[0].path, out)
    assert _members(out.getvalue()) == _members(plain)
    assert base.python(PYTHON) == f"/usr/bin/{PYTHON}"
    base.check_libraries(LIBRARIES)


def _members(content: bytes) -> list[tuple[str, int, str]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        return [(member.name, member.size, member.linkname) for member in archive]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "layout"])
def test_a_base_lies_under_our_layers(system: Path, tmp_path: Path, bundle: Bundle, kind: str) -> None:
    base = system if kind == "folder" else _layout(system, tmp_path / "layout")
    made = export_to(tmp_path / "image", bundle, base=str(base))
    manifest, about = read_image(tmp_path / "image")
    assert len(manifest["layers"]) == len(about["rootfs"]["diff_ids"]) == len(about["history"]) == 4
    assert list(made.parts) == ["packages", "server", "model"]
    program = "/bin" if kind == "layout" else "/usr/bin"
    assert about["config"]["Entrypoint"][0] == f"{program}/{PYTHON}"
    found = {member.name: content for member, content in members(tmp_path / "image")}
    assert found[f"usr/bin/{PYTHON}"] == b"a program"
    assert not [name for name in found if name.startswith(("usr/local", "proc/1"))]
    assert manifest["annotations"]["org.opencontainers.image.base.name"] == base.name
    if kind == "layout":
        assert {"LANG=C.UTF-8", "PATH=/opt/bin:/bin"} <= set(about["config"]["Env"])
        assert about["config"]["Labels"]["made-by"] == "them"
        assert about["history"][0] == {"created_by": "them"}
        assert manifest["layers"][0] == read_image(base)[0]["layers"][0]


def test_a_folder_is_packed_the_same_each_time_and_keeps_the_times_of_its_files(system: Path) -> None:
    os.utime(system / "usr/bin" / PYTHON, (1000, 1000))
    first, again = io.BytesIO(), io.BytesIO()
    write_base(system, first)
    (system / "etc/passing").write_text("")
    (system / "etc/passing").unlink()  # the folder's own time has changed
    write_base(system, again)
    assert first.getvalue() == again.getvalue()
    with tarfile.open(fileobj=io.BytesIO(first.getvalue())) as archive:
        assert archive.getmember(f"usr/bin/{PYTHON}").mtime == 1000
        same = archive.getmember("usr/bin/same")
        assert same.islnk() and same.linkname == f"usr/bin/{PYTHON}"


def test_links_are_followed_as_the_base_has_them(system: Path) -> None:
    contents = open_base(system).contents
    assert contents.find("/bin/python3") == f"usr/bin/{PYTHON}"
    assert contents.find("/bin/../lib/many/libc.so.6") == "usr/lib/many/libc.so.6"
    (system / "round").symlink_to("round")
    (system / "absolute").symlink_to("/usr/bin")
    contents = open_base(system).contents
    assert contents.find("/round") is None
    assert contents.find("/absolute/python3") == f"usr/bin/{PYTHON}"


def test_a_layer_that_removes_files_removes_them(system: Path, tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "usr/bin").mkdir(parents=True)
    (upper / f"usr/bin/.wh.{PYTHON}").write_text("")
    layout = Layout(tmp_path / "layout")
    layers = [layout.add_layer(lambda out, part=part: write_base(part, out)) for part in (system, upper)]
    layout.finish({"architecture": architecture(), "os": "linux", "config": {}}, layers, {})
    base = open_base(tmp_path / "layout")
    assert base.contents.find(f"/usr/bin/{PYTHON}") is None
    assert base.contents.find("/usr/bin/same")
    with pytest.raises(LeptonError, match=f"has no {PYTHON}"):
        base.python(PYTHON)


def test_a_base_that_cannot_serve_is_refused_with_what_it_lacks(system: Path, tmp_path: Path) -> None:
    base = open_base(system)
    assert base.python(PYTHON) == f"/usr/bin/{PYTHON}"
    with pytest.raises(LeptonError, match=r"has no python9.9, .* Known there: .*python3") as other:
        base.python("python9.9")
    assert "--base none" in other.value.hint
    base.check_libraries(LIBRARIES)
    with pytest.raises(LeptonError, match=r"lacks libquantum.so.1"):
        base.check_libraries(["libc.so.6", "libquantum.so.1"])
    shutil.rmtree(system / f"usr/lib/{PYTHON}/asyncio")
    with pytest.raises(LeptonError, match="lacks a part of its standard library"):
        open_base(system).python(PYTHON)
    with pytest.raises(LeptonError, match="There is no base image at"):
        open_base(tmp_path / "nowhere")
    (tmp_path / "text").write_text("no tar")
    with pytest.raises(LeptonError, match="cannot be read"):
        open_base(tmp_path / "text")


def test_a_base_for_another_processor_or_with_unknown_layers_is_refused(system: Path, tmp_path: Path) -> None:
    other = _layout(system, tmp_path / "other", architecture="s390x")
    with pytest.raises(LeptonError, match=r"is for s390x; the packages here are for"):
        open_base(other)
    index = other / "index.json"
    said = json.loads(index.read_bytes())
    said["manifests"][0]["platform"]["architecture"] = "s390x"
    index.write_text(json.dumps(said))
    with pytest.raises(LeptonError, match=r"holds 0 images for .* Known: s390x"):
        open_base(other)
    said["manifests"][0]["digest"] = "sha256:../../etc/passwd"
    said["manifests"][0]["platform"]["architecture"] = architecture()
    index.write_text(json.dumps(said))
    with pytest.raises(LeptonError, match="is no digest"):
        open_base(other)


def test_a_layer_that_was_changed_is_refused(system: Path, tmp_path: Path) -> None:
    base = open_base(_layout(system, tmp_path / "layout"))
    blob = base.sources[0].path
    blob.write_bytes(blob.read_bytes() + b"more")
    with pytest.raises(LeptonError, match="is not what its digest says"):
        Layout(tmp_path / "other").take_layer(base.sources[0])
