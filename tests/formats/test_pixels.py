"""Files to pixels: every kind of file, and those that nobody should send."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from lepton_jupyter.formats.pixels import MAX_PIXELS, MAX_SCANS, ImageError, decode, inspect
from tests.pictures import encoded, png_of_size

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def read(content: bytes, *, height: int = 8, width: int = 8, channels: int = 1) -> Any:
    return decode(content, height=height, width=width, channels=channels)


def test_a_file_of_the_models_size_comes_as_it_is() -> None:
    assert read(encoded(Image.fromarray(RAMP))).tolist() == [RAMP.tolist()]
    colours = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)
    found = read(encoded(Image.fromarray(colours)), channels=3)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.array_equal(found, colours.transpose(2, 0, 1))


def test_a_grey_file_has_three_equal_channels_where_three_are_wanted() -> None:
    assert np.array_equal(read(encoded(Image.fromarray(RAMP)), channels=3), np.stack([RAMP] * 3))


def test_other_sizes_are_stretched_without_losing_what_is_thin() -> None:
    stripes = np.zeros((400, 400), np.uint8)
    stripes[:, ::2] = 200
    found = read(encoded(Image.fromarray(stripes)))
    assert np.abs(found.astype(int) - 100).max() <= 1  # antialiased: neither 0 nor 200
    assert read(encoded(Image.fromarray(RAMP)), height=3, width=500).shape == (1, 3, 500)


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    deep = (RAMP.astype(np.uint16) << 8) + 77
    assert read(encoded(Image.fromarray(deep))).tolist() == [RAMP.tolist()]


def test_what_is_transparent_lies_on_white() -> None:
    image = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert (read(encoded(image), channels=3) == 255).all()
    half = Image.new("LA", (8, 8), (0, 128))
    assert np.abs(read(encoded(half)).astype(int) - 127).max() <= 1
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([1, 2, 3, 9, 9, 9])
    assert (read(encoded(palette, transparency=0), channels=3) == 255).all()
    assert read(encoded(palette), channels=3)[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(turn: int) -> None:
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[turn]  # what undoes the way upright
    upright = Image.fromarray(np.repeat(np.repeat(RAMP[:4], 8, 0), 8, 1))
    exif = Image.Exif()
    exif[0x0112] = turn
    held = upright if back is None else upright.transpose(Image.Transpose(back))
    content = encoded(held, "JPEG", quality=100, exif=exif)
    found = read(content, height=32, width=64)[0].astype(int)
    assert np.abs(found - np.asarray(upright).astype(int)).max() <= 6
    assert inspect(content)[:2] == (64, 32)


def test_colours_of_print_become_colours_of_light() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = read(encoded(cyan, "JPEG"), channels=3)[:, 0, 0].tolist()
    assert red < 20 and green > 100 and blue > 100


@pytest.mark.parametrize("size", [(8000, 7000), (14000, 14000), (60000, 60000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    with pytest.raises(ImageError, match=r"million|cannot be decoded"):
        read(png_of_size(*size))


def test_a_jpeg_of_many_scans_is_refused() -> None:
    content = encoded(Image.fromarray(RAMP), "JPEG", progressive=True)
    assert read(content).shape == (1, 8, 8)
    start = content.index(b"\xff\xda")
    scan = content[start : content.index(b"\xff", start + 2)]
    with pytest.raises(ImageError, match="scans"):
        read(content[:start] + scan * (MAX_SCANS + 1) + content[start:])


GIF = encoded(Image.fromarray(RAMP), "GIF")
WHOLE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)))
JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)), "JPEG")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello", "no JPEG or PNG"),
        (GIF, "no JPEG or PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no JPEG or PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "no JPEG or PNG"),
        (WHOLE[:500], "cannot be decoded"),
        (JPEG[:500], "cannot be decoded"),
        (WHOLE[:16], "no JPEG or PNG|cannot be decoded"),
    ],
)
def test_what_is_no_whole_image_is_refused_with_the_reason(content: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        read(content)


def test_damaged_files_never_raise_anything_else() -> None:
    random = np.random.default_rng(1)
    said: list[str] = []
    for content in (WHOLE, JPEG, encoded(Image.fromarray(RAMP), "JPEG", progressive=True)):
        for _ in range(200):
            damaged = bytearray(content)
            for at in random.integers(0, min(len(damaged), 700), 6):
                damaged[at] = random.integers(0, 256)
            try:
                found = read(bytes(damaged), channels=3)
            except ImageError as error:
                said.append(str(error))
            else:
                assert found.shape == (3, 8, 8)
    assert all(5 < len(text) < 200 for text in said) and len(said) > 100
