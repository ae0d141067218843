"""What an image holds of Python packages: the few that the endpoint imports, and our rooms that it is made of."""

from __future__ import annotations

from collections.abc import Container, Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.deploy.export.bytecode import add_bytecode
from lepton_jupyter.stages.deploy.export.elf import needs_of
from lepton_jupyter.stages.deploy.export.tree import Tree

SITE = "opt/lepton/site-packages"
STATE = "var/lib/lepton"  # the one folder beside /tmp that the endpoint writes to
USER_ID = 65532  # "nonroot", as images without a shell have it
OURS = "lepton_jupyter"
ROOMS = ("core", "formats", "serving")

# What `serving` imports, and what those import while it serves; a test compares this with the imports.
DISTRIBUTIONS = (
    "click", "h11", "httptools", "msgspec", "numpy", "onnxruntime", "prometheus_client", "uvicorn", "uvloop",
)  # fmt: skip

OF_IMAGES = ("pillow",)  # where the model takes image files
OF_PROSE = ("tokenizers",)  # what it imports for a bundle with a tokenizer, and only then

_FOLDERS_LEFT_OUT = frozenset({"__pycache__", "test", "tests"})
_PARTS_LEFT_OUT = (  # converters and trainers
    "onnxruntime/backend/", "onnxruntime/datasets/", "onnxruntime/quantization/", "onnxruntime/tools/",
    "onnxruntime/transformers/",
    "PIL/_avif", "PIL/_imagingcms", "PIL/_imagingft", "PIL/_imagingtk", "PIL/_webp",  # an endpoint reads JPEG and PNG
)  # fmt: skip
_KINDS_LEFT_OUT = frozenset({".a", ".c", ".h", ".pxd", ".pyc", ".pyi", ".pyx"})
_RECORDS_LEFT_OUT = frozenset({"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"})  # how it came here


def dependencies_tree(*more: str) -> tuple[Tree, dict[str, str]]:
    """Return the packages that the endpoint imports, and `more` that it needs for a bundle; their versions by name.

    Raises
    ------
    LeptonError
        If one is not installed with a list of its files.
    """
    tree = Tree()
    versions = {}
    for name in (*DISTRIBUTIONS, *more):
        found = _installed(name)
        versions[name] = found.version
        files = {path: Path(str(found.locate_file(path))) for path in found.files or () if not _is_left_out(path)}
        needed = _needed(files.values())
        for path, here in files.items():
            if not _is_spare(path, needed):
                tree.add(f"{SITE}/{path.as_posix()}", here, is_executable=".so" in path.name)
    add_bytecode(tree)
    return tree, versions


def _needed(files: Iterable[Path]) -> frozenset[str]:
    """Return the names of the libraries that extension modules, and their own libraries, ask for."""
    binaries = [needs_of(path) for path in files if ".so" in path.name]
    return frozenset(name for needs in binaries if needs is not None for name in needs.libraries)


def _is_spare(path: PurePosixPath, needed: Container[str]) -> bool:
    """Whether it is a library that nothing here asks for, as onnxruntime's second copy of itself for C: 35 MB."""
    return path.name.startswith("lib") and ".so" in path.name and path.name not in needed


def _installed(name: str) -> Distribution:
    try:
        found = distribution(name)
    except PackageNotFoundError as error:
        raise LeptonError(
            f"An image needs the package {name}, which is not installed here.", f"pip install {name}", code="refused"
        ) from error
    if not any(path.suffix == ".py" for path in found.files or ()):
        raise LeptonError(
            f"The package {name} {found.version} is installed without a list of its files.",
            f"pip install --force-reinstall {name}=={found.version}",
            code="refused",
        )
    return found


def _is_left_out(path: PurePosixPath) -> bool:
    return (
        ".." in path.parts
        or path.suffix in _KINDS_LEFT_OUT
        or not _FOLDERS_LEFT_OUT.isdisjoint(path.parts[:-1])
        or path.as_posix().startswith(_PARTS_LEFT_OUT)
        or (path.parts[0].endswith(".dist-info") and path.name in _RECORDS_LEFT_OUT)
    )


def server_tree() -> Tree:
    """Return our rooms that the endpoint is made of, and the folder that it writes to."""
    root = Path(__file__).resolve().parents[3]
    version = distribution(OURS).version
    tree = Tree()
    tree.add(f"{SITE}/{OURS}/__init__.py", root / "__init__.py")
    for room in ROOMS:
        for path in sorted((root / room).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                tree.add(f"{SITE}/{OURS}/{path.relative_to(root).as_posix()}", path)
    about = f"Metadata-Version: 2.1\nName: {OURS}\nVersion: {version}\nLicense: Apache-2.0\n"
    tree.add(f"{SITE}/{OURS}-{version}.dist-info/METADATA", about.encode())
    add_bytecode(tree)
    tree.add_folder(STATE, mode=0o700, owner=USER_ID)
    return tree
