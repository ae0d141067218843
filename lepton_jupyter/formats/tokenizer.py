"""``tokenizer.json``: which of what `tokenizers` could run may be in a bundle.

A tokenizer file is a small program: patterns that backtrack for hours, replacements that grow a text a thousandfold,
random answers. What is taken is listed here; its work grows with the text's length alone. Everything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError

MAX_BYTES = 2**25
MAX_VOCABULARY = 1_000_000
MAX_ADDED = 1_000
MAX_PARTS = 16  # of a chain
MAX_INSERTED = 16  # characters that a part may put in once
MAX_TOKEN = 256  # characters of a token
MAX_PIECE = 32  # of one of Unigram's, whose time grows with the longest
MAX_WORD = 200  # characters of a word that WordPiece looks into: its time grows with their square
PADDING = 0

_PLAIN_NORMALIZERS = (
    "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents",
)  # fmt: skip
_PLAIN_SPLITTERS = (
    "BertPreTokenizer", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "UnicodeScripts", "Whitespace",
    "WhitespaceSplit",
)  # fmt: skip
_GROWING = ("ByteLevel", "Prepend")
_PROCESSORS = ("BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing")
_MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
_KEPT = ("version", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")

Part = dict[str, Any]


class _RefusedError(ValueError):
    pass


def checked(content: bytes, *, name: str = "tokenizer.json") -> bytes:
    """Return the part of a tokenizer file that makes tokens, where all of it is on the list.

    Left out are its truncation and padding, which are ours, and its decoder, which makes text again.

    Parameters
    ----------
    content : bytes
    name : str
        What messages call it.

    Raises
    ------
    LeptonError
        With code ``refused``: what is not taken, and what is.
    """
    try:
        if len(content) > MAX_BYTES:
            raise _RefusedError(f"it has {len(content):,} bytes; {MAX_BYTES:,} are the most")
        found = _read(content)
        _check_model(found["model"], found.get("added_tokens") or [])
        _check_chain(found.get("normalizer"), "normalizer", "normalizers", _check_normalizer)
        _check_chain(found.get("pre_tokenizer"), "pre_tokenizer", "pretokenizers", _check_splitter)
        _check_chain(found.get("post_processor"), "post_processor", "processors", _check_processor)
    except (_RefusedError, TypeError, AttributeError) as error:
        said = error if isinstance(error, _RefusedError) else "its parts are not as they should be"
        raise LeptonError(
            f"{name} is refused: {said}.",
            "Taken are WordPiece, BPE, Unigram and WordLevel with parts whose time is bounded; SECURITY.md lists them.",
            code="refused",
        ) from error
    return msgspec.json.encode({part: found.get(part) for part in _KEPT})


def _read(content: bytes) -> Part:
    try:
        found = msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise _RefusedError(f"it is no JSON ({str(error)[:100]})") from error
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise _RefusedError("it is no tokenizer")
    return found


def _check_model(model: Part, added: Any) -> None:
    kind = model.get("type")
    if kind not in _MODELS:
        raise _RefusedError(f"its model is {_said(kind)}; known: {', '.join(_MODELS)}")
    if model.get("dropout") or model.get("alpha") or model.get("nbest_size"):
        raise _RefusedError("it answers at random (dropout)")
    if kind == "WordPiece" and _number(model.get("max_input_chars_per_word", 100)) > MAX_WORD:
        raise _RefusedError(f"it looks into words of more than {MAX_WORD} characters")
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):  # put to every piece that is tried
        if len(model.get(affix) or "") > MAX_PIECE:
            raise _RefusedError(f"its {affix} has more than {MAX_PIECE} characters")
    places = _places(model.get("vocab"), kind)
    longest = MAX_PIECE if kind == "Unigram" else MAX_TOKEN
    if max(map(len, places), default=0) > longest:
        raise _RefusedError(f"it has a token of more than {longest} characters")
    _check_unknown(model, kind, places)
    if not isinstance(added, list) or len(added) > MAX_ADDED:
        raise _RefusedError(f"it adds more than {MAX_ADDED} tokens of its own")
    for token in added:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise _RefusedError("an added token is none")
        places[token["content"]] = _number(token.get("id"))
    if max(places.values(), default=MAX_VOCABULARY) >= MAX_VOCABULARY or min(places.values()) < 0:
        raise _RefusedError(f"its ids are not 0 … {MAX_VOCABULARY:,}")
    first = [token for token, place in places.items() if place == PADDING]
    if not any("pad" in token.lower() for token in first):
        raise _RefusedError(f"{PADDING} is padding here, and its id {PADDING} is {_said(first[0] if first else None)}")


def _check_unknown(model: Part, kind: str, places: dict[str, int]) -> None:
    """Refuse a model that fails at a character which it does not know."""
    if kind == "Unigram":
        place = model.get("unk_id")
        is_known = place is not None and 0 <= _number(place) < len(places)
    else:
        token = model.get("unk_token")
        is_known = token in places if isinstance(token, str) else kind == "BPE" and token is None
    if not is_known:
        raise _RefusedError("it has no token for what it does not know, and would fail there")


def _places(vocabulary: Any, kind: str) -> dict[str, int]:
    """Return the id of each token."""
    if kind == "Unigram" and isinstance(vocabulary, list):
        pairs = ((entry[0], place) for place, entry in enumerate(vocabulary) if isinstance(entry, list) and entry)
    elif kind != "Unigram" and isinstance(vocabulary, dict):
        pairs = ((token, _number(place)) for token, place in vocabulary.items())
    else:
        raise _RefusedError("it has no vocabulary")
    return {str(token): place for token, place in pairs}


def _check_chain(part: Any, what: str, key: str, check: Callable[[Part], None]) -> None:
    """Hold a part, or each part of a sequence of them, to the list."""
    if part is None:
        return
    parts = list(_flat(part, key))
    if len(parts) > MAX_PARTS:
        raise _RefusedError(f"its {what} has more than {MAX_PARTS} parts")
    growing = [one["type"] for one in parts if one.get("type") in _GROWING]
    if len(growing) > len(set(growing)):
        raise _RefusedError(f"its {what} has {growing[-1]} twice, which grows a text each time")
    for one in parts:
        check(one)


def _flat(part: Any, key: str, depth: int = 0) -> Iterator[Part]:
    if not isinstance(part, dict) or depth > 3:
        raise _RefusedError("its parts are not as they should be")
    if part.get("type") != "Sequence":
        yield part
        return
    inner = part.get(key)
    if not isinstance(inner, list):
        raise _RefusedError("its parts are not as they should be")
    for one in inner:
        yield from _flat(one, key, depth + 1)


def _check_normalizer(part: Part) -> None:
    kind = part.get("type")
    if kind == "Prepend":
        _check_short(part.get("prepend"))
    elif kind == "Replace":
        old = _literal(part, "normalizer")
        new = part.get("content")
        if not isinstance(new, str) or not old or len(new) > len(old):
            raise _RefusedError("a replacement of its normalizer makes a text longer")
    elif kind not in _PLAIN_NORMALIZERS:
        raise _unlisted("normalizer", kind, (*_PLAIN_NORMALIZERS, "Prepend", "Replace of a text", "Sequence"))


def _check_splitter(part: Part) -> None:
    kind = part.get("type")
    if kind == "Split":
        if not _literal(part, "pre_tokenizer"):
            raise _RefusedError("it splits at nothing")
    elif kind == "Metaspace":
        _check_short(part.get("replacement"))
        _check_short(part.get("str_rep") or "▁")
    elif kind not in (*_PLAIN_SPLITTERS, "ByteLevel"):
        raise _unlisted("pre_tokenizer", kind, (*_PLAIN_SPLITTERS, "ByteLevel", "Split at a text", "Sequence"))


def _check_processor(part: Part) -> None:
    kind = part.get("type")
    if kind not in _PROCESSORS:
        raise _unlisted("post_processor", kind, (*_PROCESSORS, "Sequence"))
    if kind == "TemplateProcessing":
        specials = part.get("special_tokens") or {}
        sizes = [len(part.get("single") or ()), len(part.get("pair") or ()), len(specials)]
        sizes += [len(one.get("ids") or ()) for one in specials.values()]
        if max(sizes) > MAX_PARTS:
            raise _RefusedError(f"its template has more than {MAX_PARTS} parts")


def _literal(part: Part, what: str) -> str:
    """Return the text that a part looks for; a regular expression of its own is not taken."""
    pattern = part.get("pattern")
    if not isinstance(pattern, dict) or not isinstance(pattern.get("String"), str):
        raise _RefusedError(f"its {what} has a regular expression of its own, whose time nothing bounds")
    return str(pattern["String"])


def _check_short(text: Any) -> None:
    if not isinstance(text, str) or len(text) > MAX_INSERTED:
        raise _RefusedError(f"it puts more than {MAX_INSERTED} characters in")


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _RefusedError(f"{_said(value)} is no id")
    return value


def _unlisted(what: str, kind: Any, known: tuple[str, ...]) -> _RefusedError:
    return _RefusedError(f"its {what} is {_said(kind)}; known: {', '.join(known)}")


def _said(value: Any) -> str:
    return repr(value)[:60]
