"""What makes tokens of a training's columns of prose: one learned from the training rows, or the user's own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.memory import memory_limit
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import SENTINEL, Schema
from lepton_jupyter.serving.text import CHARS_A_TOKEN, TextReader, load_library
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.examples import Example
from lepton_jupyter.stages.train.feed import names_for, names_tokens
from lepton_jupyter.stages.train.job import Job

VOCABULARY = 8_000  # at most
N_TOKENS = 128  # of a text, where nobody says
ALPHABET = 1_000  # characters that are tokens of their own; rarer ones are unknown
SEEN_TWICE = 2
LEARNED_CHARS = 10_000  # of each text
SPECIALS = ("[PAD]", "[UNK]", "[CLS]")  # ids 0, 1 and 2; a text begins with the last, so that no row is empty


def reader_for(job: Job) -> TextReader | None:
    """Return what reads a job's columns of prose; None where it has none.

    It is kept in the run's folder: a training that goes on, and other processes of it, read the same.

    Raises
    ------
    LeptonError
        If the package `tokenizers` is missing, or the file that ``--tokenizer`` names cannot be used.
    """
    if not job.schema.prose:
        _refuse_flags(job)
        return None
    said = job.spec.tokenizer
    kept = job.session.folder / f"tokenizer-{hashlib.sha256((said or '').encode()).hexdigest()[:12]}.json"
    schema = msgspec.structs.replace(job.schema, max_tokens=job.spec.max_tokens or N_TOKENS)
    _check_room(job, schema.max_tokens or 0)
    if kept.exists():
        return TextReader(kept.read_bytes(), schema)
    if said is not None:
        reader = TextReader(read_file(said), schema, name=said)
    else:
        reader = TextReader(learn(job.schema, job.dataset.packed("train", job.some("train"))), schema)
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(kept, reader.content, is_durable=False)
    return reader


def _check_room(job: Job, max_tokens: int) -> None:
    """Refuse tokens that memory has no room for, where rows are held there: each text has all of its places."""
    if not isinstance(job.dataset, Dataset) or job.is_large:
        return
    n_bytes = 8 * len(job.schema.prose) * max_tokens * job.dataset.record.n_rows
    room = memory_limit() / 2
    if n_bytes > room:
        raise LeptonError(
            f"The tokens of '{job.dataset.ref}' would take {n_bytes / 1e9:.1f} GB, {max_tokens} a text; there is room "
            f"for {room / 1e9:.1f} GB.",
            f"Read less of a text: --max-tokens {max(1, int(max_tokens * room / n_bytes))}.",
        )


def read_file(said: str) -> bytes:
    """Return the content of the file that ``--tokenizer`` names.

    Raises
    ------
    LeptonError
        If it cannot be read.
    """
    try:
        return Path(said).expanduser().read_bytes()
    except OSError as error:
        raise LeptonError(
            f"--tokenizer {said} cannot be read: {error.strerror}.",
            "Name a tokenizer.json, or leave it out: one is learned from the training rows.",
        ) from error


def learn(schema: Schema, packed: Packed) -> bytes:
    """Return a tokenizer learned from training rows: byte pairs (Sennrich and others 2016) of lower-cased words.

    The same rows give the same bytes, whatever ``--seed`` says.
    """
    library: Any = load_library()
    places = [place for place, column in enumerate(schema.txt) if column.kind == "text"]
    texts = (text[:LEARNED_CHARS] for place in places for text in packed.txt[:, place] if text != SENTINEL)
    tokenizer = library.Tokenizer(library.models.BPE(unk_token=SPECIALS[1]))
    tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    trainer = library.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=SEEN_TWICE,
        special_tokens=list(SPECIALS),
        limit_alphabet=ALPHABET,
        max_token_length=CHARS_A_TOKEN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single=f"{SPECIALS[2]} $A", special_tokens=[(SPECIALS[2], 2)]
    )
    return str(tokenizer.to_str()).encode()


def check_reads_text(module: Any, job: Job) -> None:
    """Refuse a module that does not take the tokens that there are, or asks for some where there are none.

    Raises
    ------
    LeptonError
        With the lines to paste.
    """
    is_reader, prose = names_tokens(module), job.schema.prose
    if is_reader and prose:
        _refuse_unread(module, job)
    elif is_reader and job.schema.tensor_shape is None and not isinstance(job.dataset, Example):
        raise LeptonError(
            f"forward of '{job.name}' names tokens, and '{job.dataset.ref}' has no column of prose.",
            f"Name it: %lepton data {job.data_name} SOURCE --text COLUMN",
        )
    elif prose:
        raise _not_reading(job)


def _not_reading(job: Job) -> LeptonError:
    prose, n = job.schema.prose, job.spec.max_tokens or N_TOKENS
    shape = f"[rows, {n}]" if len(prose) == 1 else f"[rows, {len(prose)}, {n}]"
    return LeptonError(
        f"'{job.dataset.ref}' has the column of prose '{prose[0].name}', and forward of '{job.name}' names no tokens.",
        f"Let it: def forward(self, tokens): …  # int64 {shape}, 0 is padding; numeric and categorical beside it give "
        f"the other columns. Or make the dataset without it: --ignore {prose[0].name}",
    )


def _refuse_unread(module: Any, job: Job) -> None:
    """Raise `LeptonError` where columns beside the prose would go nowhere."""
    names = names_for(module, has_prose=True)
    lost = [] if "numeric" in names else [column.name for column in job.schema.num]
    lost += [] if {"numeric", "categorical"} & set(names) else [column.name for column in job.schema.categorical]
    if lost:
        ignored = " ".join(f"--ignore {name}" for name in lost)
        raise LeptonError(
            f"forward of '{job.name}' takes {' and '.join(names)}; '{job.dataset.ref}' has more: {', '.join(lost)}.",
            f"Let it take them: def forward(self, numeric, tokens): …, or make the dataset with {ignored}.",
        )


def refuse_prose(job: Job) -> None:
    """Raise `LeptonError` for a dataset with a column of prose: an estimator reads none."""
    if job.schema.prose:
        name = job.schema.prose[0].name
        raise LeptonError(
            f"'{job.name}' is an estimator, which reads no prose, and '{job.dataset.ref}' has a column of it: {name}.",
            f"Train a torch module whose forward names tokens, or make the dataset with --ignore {name}.",
        )


def _refuse_flags(job: Job) -> None:
    said = {"--tokenizer": job.spec.tokenizer, "--max-tokens": job.spec.max_tokens}
    for flag, value in said.items():
        if value is not None:
            raise LeptonError(
                f"{flag} {value} means nothing: '{job.dataset.ref}' has no column of prose.",
                f"Name one: %lepton data {job.data_name} SOURCE --text COLUMN",
            )
