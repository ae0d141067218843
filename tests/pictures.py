"""Folders of image files for tests: scikit-learn's digits as PNG and JPEG, and shapes in colours."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw


def write_digits(root: Path, *, classes: int = 3, most: int = 120) -> Path:
    """Write handwritten digits, 8x8 grey, every second one as a JPEG; return the folder."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(classes):
        folder = root / f"n{label}"
        folder.mkdir(parents=True)
        for place in np.flatnonzero(digits.target == label)[:most]:
            image = Image.fromarray(np.clip(digits.images[place] * 16, 0, 255).astype(np.uint8))
            image.save(folder / (f"{place}.png" if place % 2 else f"{place}.jpg"), quality=95)
    return root


def write_shapes(root: Path, *, n: int = 12, sizes: tuple[tuple[int, int], ...] = ((40, 30), (60, 60))) -> Path:
    """Write red circles and blue squares of several sizes; return the folder."""
    random = np.random.default_rng(0)
    for label, colour in (("circle", (220, 30, 30)), ("square", (30, 30, 220))):
        folder = root / label
        folder.mkdir(parents=True)
        for place in range(n):
            width, height = sizes[place % len(sizes)]
            image = Image.new("RGB", (width, height), tuple(random.integers(180, 255, 3).tolist()))
            draw = ImageDraw.Draw(image)
            box = [width // 4, height // 4, width // 2 + int(random.integers(0, 8)), height // 2]
            (draw.ellipse if label == "circle" else draw.rectangle)(box, fill=colour)
            image.save(folder / f"{place}.png")
    return root


def encoded(image: Image.Image, form: str = "PNG", **how: Any) -> bytes:
    """Return an image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG file of a few bytes that says to have this size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
