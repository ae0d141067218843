"""What a person should know about a folder of images: files that are there twice, and those of odd sizes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.formats.records import Finding
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.data.images import HASH, PATH, TARGET

FAR = 8.0  # times the usual number of pixels, or a fraction of it
LONG = 4.0  # times as long as wide, where files usually are not


def images(frame: pl.DataFrame, schema: Schema, places: NDArray[np.int8]) -> Iterator[Finding]:
    """Yield the findings of a manifest; none for other data. `places` are int8 [N], as in `findings.Table`."""
    if schema.image is None:
        return
    yield from _repeated(frame.with_columns(place=pl.Series(places)))
    yield from _odd_sizes(frame)


def _repeated(frame: pl.DataFrame) -> Iterator[Finding]:
    groups = frame.group_by(HASH, maintain_order=True).agg(
        pl.len().alias("n"),
        pl.col(TARGET).n_unique().alias("n_classes"),
        pl.col("place").filter(pl.col("place") >= 0).n_unique().alias("n_places"),
        pl.col(PATH),
    )
    torn = groups.filter(pl.col("n_classes") > 1)
    if torn.height:
        text = (
            f"{torn.height} image{'s' * (torn.height != 1)} lie{'s' * (torn.height == 1)} in several classes, so one "
            f"label is wrong: {' and '.join(torn[PATH][0][:2])}."
        )
        yield Finding(check="contradiction", level="problem", text=text)
    twice = groups.filter(pl.col("n") > 1)
    if twice.height:
        n = int((twice["n"] - 1).sum())
        n_parted = int((twice["n_places"] > 1).sum())
        parted = (
            f" {n_parted} of these images lie{'s' * (n_parted == 1)} in more than one split, which flatters the test."
            if n_parted
            else ""
        )
        text = f"{n:,} file{'s' * (n != 1)} repeat{'s' * (n == 1)} another: {' and '.join(twice[PATH][0][:2])}.{parted}"
        yield Finding(check="duplicates", level="warning" if n_parted or n > 0.01 * frame.height else "info", text=text)


def _odd_sizes(frame: pl.DataFrame) -> Iterator[Finding]:
    n_pixels = frame["width"].cast(pl.Float64) * frame["height"]
    ratio = pl.DataFrame(
        {"a": frame["width"] / frame["height"], "b": frame["height"] / frame["width"]}
    ).max_horizontal()
    usual, usual_ratio = float(np.median(n_pixels)), float(np.median(ratio))
    is_odd = (n_pixels > FAR * usual) | (n_pixels < usual / FAR) | (ratio > LONG * usual_ratio)
    if is_odd.any():
        odd = frame.filter(is_odd)
        n = odd.height
        text = (
            f"{n:,} file{'s' * (n != 1)} {'is' if n == 1 else 'are'} of a size or shape far from the rest, such as "
            f"{odd[PATH][0]} ({odd['width'][0]}x{odd['height'][0]})."
        )
        yield Finding(check="odd_sizes", level="info", text=text)
