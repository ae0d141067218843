"""Which tokenizer files are taken: those whose work is bounded by the text's length."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.tokenizer import MAX_ADDED, MAX_BYTES, checked

VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "a": 3, "b": 4, "##b": 5, "ab": 6}
Change = Callable[[dict[str, Any]], object]


def file_of(model: Any = None, **parts: Any) -> bytes:
    """A tokenizer file as the library writes it."""
    tokenizer = Tokenizer(model or models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return str(tokenizer.to_str()).encode()


def changed(change: Change) -> bytes:
    """Such a file with something changed by hand."""
    made = json.loads(file_of(normalizer=normalizers.Lowercase(), pre_tokenizer=pre_tokenizers.Whitespace()))
    change(made)
    return json.dumps(made).encode()


@pytest.mark.parametrize(
    "content",
    [
        file_of(normalizer=normalizers.BertNormalizer(), pre_tokenizer=pre_tokenizers.BertPreTokenizer()),
        file_of(
            models.BPE(VOCABULARY, [("a", "b")]),
            pre_tokenizer=pre_tokenizers.ByteLevel(),
            post_processor=processors.ByteLevel(),
            decoder=decoders.ByteLevel(),
        ),
        file_of(
            models.Unigram([("<pad>", 0.0), ("<unk>", 0.0), ("▁a", -1.0)], unk_id=1),
            normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("``", '"'), normalizers.Strip()]),
            pre_tokenizer=pre_tokenizers.Metaspace(),
        ),
        file_of(
            models.WordLevel(VOCABULARY, unk_token="[UNK]"),
            pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Digits()]),
            post_processor=processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)]),
        ),
    ],
)
def test_what_widespread_tokenizers_are_made_of_is_taken_and_makes_the_same_tokens(content: bytes) -> None:
    before, after = (Tokenizer.from_str(text.decode()) for text in (content, checked(content)))
    for text in ("", "ab b a", "A ``b`` 12, ü 🎈"):
        assert before.encode(text).ids == after.encode(text).ids
    assert json.loads(checked(content)).keys().isdisjoint({"decoder", "truncation", "padding"})
    assert checked(checked(content)) == checked(content)


def replace(**part: Any) -> Change:
    return lambda made: made.update(copy.deepcopy(part))


def in_model(**part: Any) -> Change:
    return lambda made: made["model"].update(part)


REGEX = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replace(pre_tokenizer=REGEX), "regular expression of its own"),
        (replace(pre_tokenizer={"type": "Sequence", "pretokenizers": [REGEX]}), "regular expression of its own"),
        (replace(normalizer={**GROWING, "pattern": {"Regex": "(a|a)*b"}}), "regular expression of its own"),
        (replace(normalizer=GROWING), "makes a text longer"),
        (replace(normalizer={"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 17}), "more than 16 parts"),
        (replace(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "'Precompiled'"),
        (replace(normalizer={"type": "Prepend", "prepend": "a" * 17}), "more than 16 characters"),
        (
            replace(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}] * 2}),
            "ByteLevel twice",
        ),
        (replace(pre_tokenizer={"type": "Unheard"}), "'Unheard'"),
        (replace(pre_tokenizer=[]), "parts are not as they should be"),
        (
            replace(post_processor={"type": "TemplateProcessing", "single": [{}] * 17, "special_tokens": {}}),
            "more than 16 parts",
        ),
        (
            replace(post_processor={"type": "TemplateProcessing", "single": 3, "special_tokens": [1]}),
            "not as they should be",
        ),
        (in_model(type="Neural"), "'Neural'"),
        (in_model(dropout=0.1), "at random"),
        (in_model(continuing_subword_prefix="#" * 33), "continuing_subword_prefix has more than 32"),
        (in_model(end_of_word_suffix="/" * 33), "end_of_word_suffix has more than 32"),
        (in_model(max_input_chars_per_word=10**9), "more than 200 characters"),
        (in_model(vocab={**VOCABULARY, "x" * 257: 7}), "more than 256 characters"),
        (in_model(type="Unigram", vocab=[["<pad>", 0.0], ["<unk>", 0.0], ["x" * 33, -1.0]]), "more than 32 characters"),
        (in_model(vocab={**VOCABULARY, "far": 10**9}), "ids are not"),
        (in_model(vocab={**VOCABULARY, "odd": "one"}), "'one' is no id"),
        (in_model(vocab={"the": 0, "[UNK]": 1}), "0 is padding here, and its id 0 is 'the'"),
        (in_model(vocab={}), "no token for what it does not know"),
        (in_model(vocab=None), "no vocabulary"),
        (in_model(unk_token="[NONE]"), "no token for what it does not know"),
        (replace(added_tokens=[{"id": 9, "content": "x"}] * (MAX_ADDED + 1)), "adds more than"),
        (replace(added_tokens=[3]), "an added token is none"),
        (replace(model=None), "no tokenizer"),
    ],
)
def test_what_could_take_for_ever_grow_or_fail_is_refused_by_name(change: Change, said: str) -> None:
    with pytest.raises(LeptonError, match=r"tokenizer.json is refused") as caught:
        checked(changed(change))
    assert said in caught.value.message
    assert "SECURITY.md" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b'{"model": 3}', b" " * (MAX_BYTES + 1), b"null"])
def test_bytes_that_are_no_tokenizer_are_refused(content: bytes) -> None:
    with pytest.raises(LeptonError, match="is refused"):
        checked(content)
