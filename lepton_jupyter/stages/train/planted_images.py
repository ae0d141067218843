"""Images as an endpoint gets them: a dataset's files, and planted ones of every kind that is awkward."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from lepton_jupyter.formats import pixels
from lepton_jupyter.formats.schema import ImageInput, Schema
from lepton_jupyter.serving.pictures import read_rows

if TYPE_CHECKING:
    from PIL import Image

    from lepton_jupyter.stages.data.store import Dataset, Positions

# What a planted image is saved as, and how: each goes through another part of the decoders.
KINDS: dict[str, tuple[str, tuple[int, int], str, dict[str, Any]]] = {
    "of one pixel": ("RGB", (1, 1), "PNG", {}),
    "of one pixel by 500": ("RGB", (500, 1), "PNG", {}),
    "of 500 pixels by one": ("L", (1, 500), "JPEG", {}),
    "that is grey": ("L", (37, 23), "PNG", {}),
    "of two colours": ("1", (37, 23), "PNG", {}),
    "that is transparent": ("RGBA", (37, 23), "PNG", {}),
    "that is grey and transparent": ("LA", (37, 23), "PNG", {}),
    "of a palette": ("P", (37, 23), "PNG", {}),
    "of a palette with a transparent colour": ("P", (37, 23), "PNG", {"transparency": 3}),
    "of 16 bits": ("I;16", (37, 23), "PNG", {}),
    "of 2048 pixels by 16": ("RGB", (2048, 16), "PNG", {}),
    "in CMYK": ("CMYK", (37, 23), "JPEG", {}),
    "as a progressive JPEG": ("RGB", (300, 200), "JPEG", {"progressive": True}),
    "as a rough JPEG": ("RGB", (64, 48), "JPEG", {"quality": 10}),
    **{f"that lies as Exif's {turn}": ("RGB", (37, 23), "JPEG", {"turn": turn}) for turn in range(2, 9)},
}


def served_rows(schema: Schema, dataset: Dataset, split: str, some: Positions | None = None) -> npt.NDArray[np.uint8]:
    """Return a split's files as an endpoint sees them: sent in base64, decoded as the bundle's schema says."""
    image = _as_written(schema.image)
    return _sent(image, dataset.pictures.contents(dataset.rows(split, some).tolist()))


def planted_files() -> Iterator[tuple[str, bytes]]:
    """Yield what each planted file is, and its bytes."""
    for what, (mode, size, form, how) in KINDS.items():
        yield what, encoded(picture(mode, size), form, **how)


def planted_rows(image: ImageInput) -> tuple[list[str], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return what the planted files are, their pixels as training reads them, and as an endpoint does."""
    labels, contents = zip(*planted_files(), strict=True)
    size = {"height": image.height, "width": image.width, "channels": image.channels}
    read = np.stack([pixels.decode(content, **size) for content in contents])
    return list(labels), read, _sent(_as_written(image), contents)


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Return a picture in a mode of Pillow's, the same each time."""
    from PIL import Image

    width, height = size
    down, right = np.mgrid[0:height, 0:width]
    parts = [(right * 5) % 256, (down * 9) % 256, (right * 3 + down * 7) % 256, (right + down * 11) % 256]
    colours = np.stack(parts, axis=2).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray((parts[2] * 257).astype(np.uint16))
    if mode in ("RGBA", "CMYK"):
        return Image.frombytes(mode, size, colours.tobytes())
    return Image.fromarray(colours[:, :, :3]).convert(mode)


def encoded(image: Image.Image, form: str, *, turn: int = 1, **how: Any) -> bytes:
    """Return an image as a file's bytes; `turn` is what Exif says of the camera."""
    from PIL import Image

    if turn != 1:
        how["exif"] = Image.Exif()
        how["exif"][0x0112] = turn
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def _as_written(image: ImageInput | None) -> ImageInput:
    """Return what is read back from a bundle's schema."""
    return msgspec.json.decode(msgspec.json.encode(image), type=ImageInput)


def _sent(image: ImageInput, contents: Any) -> npt.NDArray[np.uint8]:
    values = [base64.b64encode(content).decode() for content in contents]
    return read_rows(image, values, into=np.empty((len(values), *image.shape), np.uint8)).pixels
