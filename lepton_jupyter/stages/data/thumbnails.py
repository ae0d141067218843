"""A strip of small pictures of each class, for a dataset's card."""

from __future__ import annotations

import io

import polars as pl

from lepton_jupyter.formats.pixels import FORMATS
from lepton_jupyter.stages.data.images import PATH, TARGET, root_of
from lepton_jupyter.stages.data.store import Dataset

N_CLASSES, N_PICTURES = 6, 8
SIDE = 40  # pixels
LARGEST_BYTES = 2**20  # of a file: a card is not waited for


def strips(dataset: Dataset) -> dict[str, bytes]:
    """Return a PNG file for each of the first classes, with some of its files side by side.

    Files that are gone, or cannot be read any more, are left out.
    """
    from PIL import Image

    found: dict[str, bytes] = {}
    small = dataset.table().filter(pl.col("size_bytes") <= LARGEST_BYTES)
    for label in dataset.schema.classes[:N_CLASSES]:
        strip = Image.new("RGB", (N_PICTURES * SIDE, SIDE), "white")
        n = 0
        for path in small.filter(pl.col(TARGET) == label)[PATH].head(N_PICTURES).to_list():
            try:
                with Image.open(root_of(dataset.record) / path, formats=FORMATS) as image:
                    image.draft("RGB", (SIDE, SIDE))
                    image.thumbnail((SIDE - 2, SIDE - 2))
                    strip.paste(image.convert("RGB"), (n * SIDE, 0))
            except Exception:  # noqa: S112  a file that was changed: training says which
                continue
            n += 1
        if n:
            buffer = io.BytesIO()
            strip.crop((0, 0, n * SIDE, SIDE)).save(buffer, "PNG", optimize=True)
            found[label] = buffer.getvalue()
    return found
