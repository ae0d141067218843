"""Encoded images to pixels: the one way, for training, the parity check, endpoints and ``mlflow.pyfunc``.

It imports nothing of ours, because it travels with a model that MLflow loads; and Pillow only once an image is there.
"""

from __future__ import annotations

import base64
import io
import threading
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 50_000_000  # by the header, before anything is decoded
MAX_SCANS = 200  # of a JPEG; a progressive one has about ten, and each costs a pass over all its pixels
LARGE_PIXELS = 4_000_000  # of these one is decoded at a time: four bytes a pixel, and some copies
BLOCK_BYTES = 64 * 2**20  # glibc maps what is larger than 32 MiB by itself
FORMATS = ("JPEG", "PNG")
WHITE = (255, 255, 255, 255)

# A small JPEG file: what it decodes to tells one build of the decoders from another.
_PROBE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6j"
    "q62rZ4C8ybqmx5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSk"
    "pKSkpKT/wAARCAAYACADASIAAhEBAxEB/8QAGAAAAwEBAAAAAAAAAAAAAAAAAAMEAgX/xAAeEAADAAICAwEAAAAAAAAAAAAAAQMCERJh"
    "ISJBcf/EABcBAAMBAAAAAAAAAAAAAAAAAAIDBQb/xAAZEQADAQEBAAAAAAAAAAAAAAAAAQMCIjL/2gAMAwEAAhEDEQA/AONOOlya8jVM"
    "pxl6r8NKQy13hJICNROEx6jyW9eUNwkUykJnd75ZTnUxOW1r6hih0AAa6wmzOS0xuEOijGXFd/AAT4y2ilLTP//Z"
)
_SCAN = b"\xff\xda"
_ORIENTATION = 0x0112  # of Exif: how the camera was held
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # what Pillow calls the way back
_LYING = (5, 6, 7, 8)

_one_large = threading.Lock()


class ImageError(ValueError):
    """Bytes that are no image that is taken; the text says why."""


class Look(NamedTuple):
    """What an image is: width and height as it is seen upright, and Pillow's mode (``L``, ``RGB``, ``P`` …)."""

    width: int
    height: int
    mode: str


def decode(content: bytes, *, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Return an image's pixels, uint8 [channels, height, width].

    It is stretched to the size where it has another (bilinear, with antialiasing), turned as its Exif says, laid on
    white where it is transparent, and made grey for one channel. 16 bits are cut to the upper 8.

    Parameters
    ----------
    content : bytes
        Of a JPEG or PNG file.
    channels : int
        1 or 3.

    Raises
    ------
    ImageError
        If it is none, is cut off or damaged, or has more than `MAX_PIXELS`.
    """
    return _read(content, height, width, channels)[0]


def inspect(content: bytes) -> Look:
    """Return what an image is, after decoding all of it.

    Raises
    ------
    ImageError
        As `decode`.
    """
    return _read(content, 1, 1, 1)[1]


def fingerprint() -> list[int]:
    """Return what Pillow makes of a file that is always the same: 36 numbers from 0 to 255."""
    return [int(value) for value in decode(_PROBE, height=3, width=4, channels=3).ravel()]


def pillow_version() -> str:
    """Return which Pillow that is."""
    import PIL

    return PIL.__version__


def _read(content: bytes, height: int, width: int, channels: int) -> tuple[NDArray[np.uint8], Look]:
    try:
        image = _opened(content)
        if image.width * image.height <= LARGE_PIXELS:
            return _shaped(image, height, width, channels)
        with _one_large:
            return _shaped(image, height, width, channels)
    except ImageError:
        raise
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageError(f"it cannot be decoded: {said}") from error


def _opened(content: bytes) -> Image.Image:
    """Return an image of which only the header was read."""
    from PIL import Image, UnidentifiedImageError

    _give_memory_back()
    if not content:
        raise ImageError("it is empty")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"it has more than {MAX_PIXELS // 1_000_000} million pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError("it is no JPEG or PNG") from error
    if image.width * image.height > MAX_PIXELS:
        n_million = image.width * image.height / 1e6
        raise ImageError(
            f"it has {image.width}x{image.height} pixels ({n_million:.0f} million); "
            f"at most {MAX_PIXELS // 1_000_000} million are taken"
        )
    if image.format == "JPEG" and content.count(_SCAN) > MAX_SCANS:
        raise ImageError(f"it has more than {MAX_SCANS} scans")
    return image


@cache
def _give_memory_back() -> None:
    """Have Pillow ask for memory in pieces that the allocator returns: of 16 MiB, each thread kept an image's worth."""
    from PIL import Image

    Image.core.set_block_size(BLOCK_BYTES)  # type: ignore[attr-defined]  # of Pillow's documents


def _shaped(image: Image.Image, height: int, width: int, channels: int) -> tuple[NDArray[np.uint8], Look]:
    from PIL import Image

    image.load()
    mode = image.mode
    turn = _turn(image)
    is_lying = turn in _LYING
    seen = Look(image.height, image.width, mode) if is_lying else Look(image.width, image.height, mode)
    image = _plain(image)
    size = (height, width) if is_lying else (width, height)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    if turn in _TURNS:
        image = image.transpose(Image.Transpose(_TURNS[turn]))
    if image.mode in ("RGBA", "LA"):
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image.convert("RGBA"))
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.uint8)
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1)), seen


def _turn(image: Image.Image) -> int:
    """Return how the camera was held, 1 to 8; 1 where Exif does not say, or cannot be read."""
    try:
        found: Any = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # an Exif block is a file format of its own; a damaged one harms no pixel
        return 1
    return found if found in _TURNS else 1


def _plain(image: Image.Image) -> Image.Image:
    """Return an image in a mode that can be resized: ``L``, ``LA``, ``RGB`` or ``RGBA``."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits; Pillow would cut off all above 255
        values = np.asarray(image)
        return Image.fromarray((np.clip(values, 0, 65535).astype(np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")
