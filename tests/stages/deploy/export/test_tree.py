"""A tree gives the same bytes each time, as a tar and as folders."""

from __future__ import annotations

import io
import marshal
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from lepton_jupyter.stages.deploy.export.bytecode import add_bytecode
from lepton_jupyter.stages.deploy.export.tree import Tree, write_folder, write_tar


def _tree(tmp_path: Path) -> Tree:
    source = tmp_path / "source.py"
    source.write_text("X = {'a', 'b', 'c'}\n\ndef f(x):\n    return x in {'p', 'q', 'r', 's'}\n")
    source.chmod(0o600)
    tree = Tree()
    tree.add("b/c/module.py", source)
    tree.add("b/run", b"#!", is_executable=True)
    tree.add_link("a", "b/run")
    tree.add_folder("tmp", mode=0o1777)
    tree.add_folder("state", mode=0o700, owner=7)
    return tree


def _tar(tree: Tree) -> bytes:
    out = io.BytesIO()
    write_tar(tree, out)
    return out.getvalue()


def test_a_tar_is_sorted_and_holds_nothing_of_this_machine(tmp_path: Path) -> None:
    tree = _tree(tmp_path)
    content = _tar(tree)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        found = archive.getmembers()
    assert [(m.name, oct(m.mode), m.uid, m.gid) for m in found] == [
        ("a", "0o777", 0, 0),
        ("b", "0o755", 0, 0),
        ("b/c", "0o755", 0, 0),
        ("b/c/module.py", "0o644", 0, 0),
        ("b/run", "0o755", 0, 0),
        ("state", "0o700", 7, 7),
        ("tmp", "0o1777", 0, 0),
    ]
    assert {(m.mtime, m.uname, m.gname) for m in found} == {(0, "", "")}
    os.utime(tmp_path / "source.py", (1, 1))
    assert _tar(_tree(tmp_path)) == content == _tar(tree)
    out = io.BytesIO()
    write_tar(tree, out, mtime=86400)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert {member.mtime for member in archive} == {86400}


def test_folders_hold_the_same_as_the_tar(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    tree = _tree(tmp_path)
    write_folder(tree, tmp_path / "out", mtime=0)
    with tarfile.open(fileobj=io.BytesIO(_tar(tree))) as archive:
        for member in archive:
            place = tmp_path / "out" / member.name
            if member.issym():
                assert str(place.readlink()) == member.linkname
                continue
            assert place.stat().st_mode & 0o7777 == member.mode
            assert place.stat().st_mtime == 0
            file = archive.extractfile(member)
            assert place.is_dir() if file is None else place.read_bytes() == file.read()


PROGRAM = """
import sys
from pathlib import Path
from lepton_jupyter.stages.deploy.export.bytecode import add_bytecode
from lepton_jupyter.stages.deploy.export.tree import Tree
tree = Tree()
tree.add("b/c/module.py", Path(sys.argv[1]))
add_bytecode(tree)
(path,) = [path for path, entry in tree.entries() if path.endswith(".pyc")]
sys.stdout.buffer.write(tree[path].read())
"""


def test_bytecode_is_the_same_in_every_process_and_is_what_python_loads(tmp_path: Path) -> None:
    tree = _tree(tmp_path)
    add_bytecode(tree)
    name = f"b/c/__pycache__/module.{sys.implementation.cache_tag}.pyc"
    here = tree[name].read()
    assert str(tmp_path).encode() not in here
    for seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "source.py")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        assert there.stdout == here
    code = marshal.loads(here[16:])
    assert code.co_filename == "/b/c/module.py"
    (tmp_path / "out").mkdir()
    write_folder(tree, tmp_path / "out")
    (tmp_path / "out" / "b" / "c" / "module.py").write_text("raise SystemExit(3)")  # is not looked at
    line = "import module; assert module.f('p') and not module.f('x')"
    subprocess.run([sys.executable, "-c", line], cwd=tmp_path / "out" / "b" / "c", check=True)


def test_what_cannot_be_compiled_stays_as_it_is() -> None:
    tree = Tree()
    tree.add("template.py", b"class {{name}}: pass")
    add_bytecode(tree)
    assert [path for path, _ in tree.entries()] == ["template.py"]
