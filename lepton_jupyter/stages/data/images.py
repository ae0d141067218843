"""Folders of images: one subfolder a class. Files stay where they are; a version of a dataset is their manifest."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.memory import memory_limit
from lepton_jupyter.formats import pixels
from lepton_jupyter.formats.pixels import ImageError, Look
from lepton_jupyter.formats.records import DatasetRecord, Finding
from lepton_jupyter.formats.schema import ImageInput
from lepton_jupyter.stages.data.spec import Data

SUFFIXES = (".jpg", ".jpeg", ".png")
TARGET, PATH, HASH = "class", "path", "sha256"
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")
USUAL_SIZE = 64  # where files differ in size, or are all larger than `LARGEST_AS_IS`
LARGEST_AS_IS, LARGEST_ASKED = 256, 2048  # pixels of a side
MAX_FILE_BYTES = 64 * 2**20  # as of a request's body
N_NAMED = 5
COPIES = 4  # of the pixels while a model trains: all, a split's, the tensor's, a batch's as float32
EXAMPLE = (  # one white pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
)
SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test"})


class Folder(NamedTuple):
    """What a folder holds.

    Attributes
    ----------
    frame : polars.DataFrame
        A row a file, in the order of their paths: ``path`` (below the folder, with ``/``), ``class``, ``sha256``,
        ``width``, ``height``, ``mode``, ``size_bytes``.
    image : ImageInput
        How a model sees them.
    findings : list of Finding
    """

    frame: pl.DataFrame
    image: ImageInput
    findings: list[Finding]


class _File(NamedTuple):
    path: str
    label: str
    digest: str
    look: Look
    size_bytes: int


def is_folder(source: str) -> bool:
    """Whether a source is a folder."""
    return Path(source).expanduser().is_dir()


def check_flags(spec: Data) -> None:
    """Refuse flags that mean nothing for a folder of images.

    Raises
    ------
    LeptonError
    """
    for name in ("id", "group", "time", "ignore", "text"):
        if getattr(spec, name):
            raise LeptonError(
                f"--{name} names a column, and '{spec.source}' is a folder of images.", f"Leave --{name} out."
            )
    if spec.target not in ((), (TARGET,)):
        raise LeptonError(
            f"--target {spec.target[0]} names a column, and '{spec.source}' is a folder of images, whose classes are "
            "its subfolders.",
            "Leave --target out.",
        )


def looks_of(manifest: pl.DataFrame) -> dict[str, Look]:
    """Return what the files of an earlier version are, by their sha256."""
    seen = manifest.select(HASH, "width", "height", "mode").iter_rows()
    return {digest: Look(width, height, mode) for digest, width, height, mode in seen}


def read_folder(spec: Data, known: Mapping[str, Look] | None = None) -> Folder:
    """Read a folder: every JPEG and PNG file below its subfolders, decoded once to see that it can be.

    What cannot be decoded is left out, with a finding. Files that are `known` by their sha256 are not decoded again.

    Raises
    ------
    LeptonError
        If there are no images in subfolders, or the flags do not fit.
    """
    check_flags(spec)
    asked = _asked_size(spec.image_size)
    root = Path(spec.source).expanduser()
    found, others = _listed(root)
    if not found:
        raise _nothing(spec.source, root)
    labels = sorted({path.split("/")[0] for path in found})
    if set(map(str.lower, labels)) <= SPLIT_NAMES:
        raise LeptonError(
            f"The subfolders of '{spec.source}' are {', '.join(labels)}: those are splits, not classes.",
            f"Name one of them ({spec.source.rstrip('/')}/{labels[-1]}), or put all files of a class into one "
            "subfolder: the splits are drawn here.",
        )
    files: list[_File] = []
    broken: list[str] = []
    for path, one in zip(found, _in_threads(root, found, known or {}), strict=True):
        if isinstance(one, _File):
            files.append(one)
        else:
            broken.append(f"{path} ({one})")
    if not files:
        raise LeptonError(f"No file in '{spec.source}' can be decoded. The first: {broken[0]}.", "Repair the files.")
    image, about_size = _settled(files, asked)
    return Folder(_manifest(files), image, [*_about_files(broken, others), about_size])


def _listed(root: Path) -> tuple[list[str], list[str]]:
    """Return the images below subfolders, and the other files, as paths below the folder, in order."""
    found: list[str] = []
    others: list[str] = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in names:
            path = (Path(folder) / name).relative_to(root).as_posix()
            if not name.startswith("."):
                is_image = name.lower().endswith(SUFFIXES) and "/" in path
                (found if is_image else others).append(path)
    return sorted(found), sorted(others)


def _nothing(source: str, root: Path) -> LeptonError:
    if any(path.suffix.lower() in SUFFIXES for path in root.iterdir()):
        return LeptonError(
            f"The images lie in '{source}' itself, not in its subfolders.",
            "Give each class a subfolder; its name is the label.",
        )
    return LeptonError(
        f"'{source}' is a folder without images. A folder holds a subfolder a class with {', '.join(SUFFIXES)} files.",
        f"Of tables, name the files by a pattern, such as '{source.rstrip('/')}/*.parquet'.",
    )


def _in_threads(root: Path, paths: Sequence[str], known: Mapping[str, Look]) -> Iterator[_File | str]:
    """Yield what each file is, or why it is none, in their order. Pillow decodes without holding Python's lock."""

    def look(path: str) -> _File | str:
        try:
            content = _content(root / path)
            digest = hashlib.sha256(content).hexdigest()
            seen = known.get(digest) or pixels.inspect(content)
        except ImageError as error:
            return str(error)
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return _File(path, path.split("/")[0], digest, seen, len(content))

    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        yield from pool.map(look, paths)


def _content(path: Path) -> bytes:
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ImageError(f"it has {size / 2**20:.0f} MiB; at most {MAX_FILE_BYTES // 2**20} are taken")
    return path.read_bytes()


def _manifest(files: Sequence[_File]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            PATH: [file.path for file in files],
            TARGET: [file.label for file in files],
            HASH: [file.digest for file in files],
            "width": [file.look.width for file in files],
            "height": [file.look.height for file in files],
            "mode": [file.look.mode for file in files],
            "size_bytes": [file.size_bytes for file in files],
        }
    )


def _asked_size(text: str | None) -> tuple[int, int] | None:
    """Return height and width of ``HxW``, or of one number for both.

    Raises
    ------
    LeptonError
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text.strip())
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(1 <= side <= LARGEST_ASKED for side in size):
        raise LeptonError(
            f"--image-size '{text}' is no size: a height and width of 1 to {LARGEST_ASKED} pixels are wanted.",
            "Such as --image-size 64, or --image-size 48x64 (height x width).",
        )
    return size


def _settled(files: Sequence[_File], asked: tuple[int, int] | None) -> tuple[ImageInput, Finding]:
    """Return how a model sees the files, and say so."""
    sizes = Counter((file.look.height, file.look.width) for file in files)
    (height, width), _ = sizes.most_common(1)[0]
    is_as_is = len(sizes) == 1 and max(height, width) <= LARGEST_AS_IS
    size = asked or ((height, width) if is_as_is else (USUAL_SIZE, USUAL_SIZE))
    image = ImageInput(
        height=size[0], width=size[1], channels=1 if all(file.look.mode in GREY_MODES for file in files) else 3
    )
    if len(sizes) == 1:
        text = f"All files have {width}x{height} pixels"
    else:
        smallest, largest = (pick(sizes, key=lambda size: size[0] * size[1]) for pick in (min, max))
        text = f"Files have {len(sizes)} sizes, {smallest[1]}x{smallest[0]} to {largest[1]}x{largest[0]} pixels"
    stretched = ", stretched where that is another shape" if len(sizes) > 1 or size != (height, width) else ""
    hint = "" if asked or is_as_is else " --image-size says otherwise."
    text = f"{text} (width x height); the model sees {image}{stretched}.{hint}"
    return image, Finding(check="image_size", text=text, level="info")


def _about_files(broken: Sequence[str], others: Sequence[str]) -> Iterator[Finding]:
    if broken:
        text = f"{_files(len(broken))} cannot be decoded and {_are(len(broken))} left out: {_named(broken)}."
        yield Finding(check="broken_files", level="problem", text=text)
    if others:
        text = (
            f"{_files(len(others))} {_are(len(others))} passed over, no JPEG or PNG in a subfolder: {_named(others)}."
        )
        yield Finding(check="other_files", level="info", text=text)


def _files(n: int) -> str:
    return f"{n:,} file{'s' * (n != 1)}"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _named(paths: Sequence[str]) -> str:
    return ", ".join(paths[:N_NAMED]) + (f" … and {len(paths) - N_NAMED} more" if len(paths) > N_NAMED else "")


class Pictures:
    """The pixels of a dataset's files: each is read, compared with the manifest and decoded once, when asked for.

    Parameters
    ----------
    record : DatasetRecord
    manifest : polars.DataFrame
        As `Folder.frame`.
    image : ImageInput, optional
        How they are seen; else as the record says.
    """

    def __init__(self, record: DatasetRecord, manifest: pl.DataFrame, image: ImageInput | None = None) -> None:
        self._ref = f"{record.name}@{record.version}"
        self._root = root_of(record)
        found = image or record.schema.image
        assert found is not None
        self._image = found
        self._paths, self._hashes = manifest[PATH].to_list(), manifest[HASH].to_list()
        shape = self._image.shape
        self._check_room(len(self._paths) * int(np.prod(shape)))
        self._pixels = np.zeros((len(self._paths), *shape), np.uint8)
        self._is_there = np.zeros(len(self._paths), dtype=bool)

    def take(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Return pixels uint8 [n, C, H, W] of rows by their numbers.

        Raises
        ------
        LeptonError
            If a file is gone or is not what it was.
        """
        lacking = np.unique(rows[~self._is_there[rows]])
        with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
            for row, pixels_of_row in zip(lacking, pool.map(self._decoded, lacking.tolist()), strict=True):
                self._pixels[row] = pixels_of_row
                self._is_there[row] = True
        return self._pixels[rows]

    def contents(self, rows: Sequence[int]) -> list[bytes]:
        """Return files as they lie there.

        Raises
        ------
        LeptonError
            As `take`.
        """
        return [self._content(row) for row in rows]

    def _decoded(self, row: int) -> NDArray[np.uint8]:
        image = self._image
        return pixels.decode(self._content(row), height=image.height, width=image.width, channels=image.channels)

    def _content(self, row: int) -> bytes:
        path = self._root / self._paths[row]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise LeptonError(
                f"'{path}' of dataset {self._ref} cannot be read: {error.strerror}.",
                "Put it back, or make a new version of what is there now: %lepton data again.",
                code="not_found",
            ) from error
        if hashlib.sha256(content).hexdigest() != self._hashes[row]:
            raise LeptonError(
                f"'{path}' is not what it was when dataset {self._ref} was made.",
                "Put it back, or make a new version of what is there now: %lepton data again.",
                code="refused",
            )
        return content

    def _check_room(self, n_bytes: int) -> None:
        room = memory_limit() / 2 / COPIES
        if n_bytes > room:
            raise LeptonError(
                f"{len(self._paths):,} images of {self._image} take {n_bytes / 2**30:.1f} GiB of pixels; there is room "
                f"for {room / 2**30:.1f} GiB, and images are not streamed.",
                "Make the dataset with a smaller --image-size, or of fewer files.",
                code="refused",
            )


def root_of(record: DatasetRecord) -> Path:
    """Return the folder in which a dataset's files lie."""
    return Path(record.folder) / Path(record.source).expanduser()
