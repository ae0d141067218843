"""Columns of prose to tokens: the one step of a model that is not in its graph."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import TOKENIZER, Bundle
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import SENTINEL, Schema
from lepton_jupyter.formats.tokenizer import MAX_BYTES, PADDING, checked

CHARS_A_TOKEN = 32  # so much of a text is read for each token that a model takes: English has four or five
CHUNK_ROWS = 256  # bounds the memory of what a tokenizer says of its tokens
MAX_TOKENS = 8192
INSTALL = "pip install 'lepton_jupyter[text]'"


class TextReader:
    """A tokenizer in memory. Safe to use from several threads at once; it lets go of the GIL while it works.

    A row's tokens never depend on the rows beside it: they are always `max_tokens` a column, 0 where a text has ended.
    A missing text reads as an empty one. Of a text, the first ``32 * max_tokens`` characters are read.

    Parameters
    ----------
    content : bytes
        A ``tokenizer.json``.
    schema : Schema
        Says which columns are prose, and its `max_tokens`.

    Attributes
    ----------
    content : bytes
        What was taken of the file: see `formats.tokenizer.checked`.
    vocab_size : int
        One more than the highest id.

    Raises
    ------
    LeptonError
        If the package is missing, or the file is not one that is taken.
    """

    def __init__(self, content: bytes, schema: Schema, *, name: str = TOKENIZER) -> None:
        library = load_library()
        self.content = checked(content, name=name)
        self.max_tokens = schema.max_tokens or 0
        if not 1 <= self.max_tokens <= MAX_TOKENS:
            raise LeptonError(
                f"A model cannot read {self.max_tokens:,} tokens of a text; 1 to {MAX_TOKENS:,} can be.", code="refused"
            )
        self._places = [place for place, column in enumerate(schema.txt) if column.kind == "text"]
        self._categories = [place for place, column in enumerate(schema.txt) if column.kind == "string"]
        try:
            self._tokenizer = library.Tokenizer.from_str(self.content.decode())
            self._tokenizer.encode_special_tokens = True  # '[PAD]' in a text is five characters, and no padding
            n_special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
            if n_special < self.max_tokens:  # else the library counts below zero
                self._tokenizer.enable_truncation(self.max_tokens)
        except BaseException as error:
            raise _of_library(error, f"{name} cannot be used") from error
        if n_special >= self.max_tokens:
            raise LeptonError(
                f"{name} adds {n_special} tokens to each text, and the model reads {self.max_tokens}.",
                "Read more of a text: train --max-tokens 128",
                code="refused",
            )
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def tokens(self, rows: Packed) -> NDArray[np.int64]:
        """Return the tokens of N rows: int64 [N, columns of prose, max_tokens], `PADDING` behind a text's end."""
        found = np.full((rows.n_rows, len(self._places), self.max_tokens), PADDING, np.int64)
        most = self.max_tokens * CHARS_A_TOKEN
        for at, place in enumerate(self._places):
            for start in range(0, rows.n_rows, CHUNK_ROWS):
                texts = rows.txt[start : start + CHUNK_ROWS, place].tolist()
                read = ["" if text == SENTINEL else text[:most] for text in texts]
                for row, ids in enumerate(self._ids(read), start):
                    found[row, at, : len(ids)] = ids
        return found

    def graph_inputs(self, rows: Packed) -> dict[str, NDArray[Any]]:
        """Return N rows as a graph takes them: ``num``, ``txt`` (the categories) and ``tokens``."""
        return {"num": rows.num, "txt": rows.txt[:, self._categories], "tokens": self.tokens(rows)}

    def _ids(self, texts: list[str]) -> list[list[int]]:
        try:
            return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        except BaseException as error:
            raise _of_library(error, "The tokenizer failed") from error


def reader_of(bundle: Bundle) -> TextReader | None:
    """Return what reads a bundle's columns of prose; None where it has none.

    Raises
    ------
    LeptonError
        As `TextReader`.
    """
    schema = bundle.schema
    if not schema.prose:
        return None
    if bundle.manifest.sizes.get(TOKENIZER, 0) > MAX_BYTES:
        raise LeptonError(f"{TOKENIZER} of bundle '{bundle.root.name}' is too large.", code="refused")
    return TextReader(bundle.read(TOKENIZER), schema, name=f"{TOKENIZER} of bundle '{bundle.root.name}'")


def load_library() -> Any:
    """Return the package `tokenizers`.

    Raises
    ------
    LeptonError
        If it is not installed.
    """
    # one thread a call: an endpoint has its own, and a kernel that forks warns of others
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError as error:
        raise LeptonError(
            f"Columns of prose are read by the package tokenizers, which is not installed here: {INSTALL}",
            code="refused",
        ) from error
    return tokenizers


def _of_library(error: BaseException, what: str) -> BaseException:
    """Return what the package raised as an error of ours; its panics are no `Exception`."""
    is_ours = isinstance(error, Exception) or type(error).__name__ == "PanicException"
    return LeptonError(f"{what}: {str(error)[:300]}", code="failed") if is_ours else error
