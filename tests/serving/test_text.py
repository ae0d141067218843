"""Columns of prose at an endpoint: tokens, limits, and bundles whose tokenizer is not what it should be."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import CARD, GRAPH, SCHEMA, TOKENIZER, Bundle, encode, write_bundle
from lepton_jupyter.formats.packing import Packed, PackingError, pack_rows
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema
from lepton_jupyter.formats.values import MAX_TEXT
from lepton_jupyter.serving.pyfunc_loader import _load_pyfunc
from lepton_jupyter.serving.reading import RowReader
from lepton_jupyter.serving.scorer import Scorer
from lepton_jupyter.serving.text import TextReader
from lepton_jupyter.stages.train.tokenizer import learn
from tests.serving.graphs import Server, _model, card

T = 8
SCHEMA_TEXT = Schema(
    columns=(
        Column(name="title", kind="text"),
        Column(name="island", kind="string", categories=("Biscoe",)),
        Column(name="body", kind="text"),
        Column(name="age", kind="number"),
    ),
    targets=("score",),
    task="regression",
    example={"title": "a fine day", "island": "Biscoe", "body": "b", "age": 4.0},
    max_tokens=T,
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "a", "fine", "day", "b"]
ROW = {"title": "a fine day", "island": "Biscoe", "body": "b b", "age": 2.0}


def tokenizer() -> bytes:
    """One token a word."""
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    return str(made.to_str()).encode()


def graph() -> bytes:
    """The sum of all tokens, those of the second column ten times, and the age."""
    nodes = [
        helper.make_node("Cast", ["tokens"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats", "last"], ["sums"], keepdims=0),
        helper.make_node("MatMul", ["sums", "weights"], ["of_text"]),
        helper.make_node("Cast", ["num"], ["age"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["of_text", "age"], ["prediction"]),
    ]
    constants = {"last": np.array([2], np.int64), "weights": np.array([[1.0], [10.0]], np.float32)}
    inputs: dict[str, tuple[int, list[Any]]] = {
        "num": (TensorProto.DOUBLE, [None, 1]),
        "tokens": (TensorProto.INT64, [None, 2, T]),
    }
    return _model(nodes, inputs=inputs, output="prediction", constants=constants)


def text_bundle(folder: Path, *, content: bytes | None = None, schema: Schema = SCHEMA_TEXT) -> Bundle:
    """A bundle with two columns of prose."""
    files = {GRAPH: graph(), SCHEMA: encode(schema), CARD: encode(card()), TOKENIZER: content or tokenizer()}
    return write_bundle(folder, files)


def reader(max_tokens: int = T) -> TextReader:
    return TextReader(tokenizer(), msgspec.structs.replace(SCHEMA_TEXT, max_tokens=max_tokens))


def rows(*texts: str) -> Packed:
    """Rows whose first column of prose holds these texts."""
    txt = np.array([[text, "Biscoe", "b"] for text in texts], object).reshape(len(texts), 3)
    return Packed(np.zeros((len(texts), 1)), txt)


def test_a_text_is_its_tokens_and_zeros_to_the_end() -> None:
    found = reader().tokens(rows("a fine day", "", SENTINEL, "fine [CLS]s 🎈", "day " * 100))
    assert found.shape == (5, 2, T) and found.dtype == np.int64
    assert found[:, 0].tolist() == [
        [2, 3, 4, 5, 0, 0, 0, 0],
        [2, 0, 0, 0, 0, 0, 0, 0],
        [2, 0, 0, 0, 0, 0, 0, 0],  # missing reads as empty
        [2, 4, 1, 1, 0, 0, 0, 0],
        [2, 5, 5, 5, 5, 5, 5, 5],
    ]
    assert (found[:, 1] == [2, 6, 0, 0, 0, 0, 0, 0]).all()


def test_tokens_of_a_row_do_not_depend_on_those_beside_it() -> None:
    texts = [f"a {'fine ' * (place % 11)}day" for place in range(600)]
    together = reader().tokens(rows(*texts))
    alone = np.concatenate([reader().tokens(rows(text)) for text in texts[::50]])
    assert (together[::50] == alone).all()


def test_only_the_beginning_of_a_text_is_read() -> None:
    end = reader().tokens(rows("x" * (32 * T) + " fine", "x" * (32 * T)))
    assert (end[0] == end[1]).all()
    started = time.process_time()
    reader().tokens(rows(*["x" * MAX_TEXT] * 200))
    assert time.process_time() - started < 2.0  # of the processor: 20 million characters that are not looked at


def test_no_text_that_can_be_sent_makes_it_fail() -> None:
    random = np.random.default_rng(3)
    ranges = [(0, 0x80), (0x80, 0x800), (0x300, 0x370), (0xE000, 0x10000), (0x1F300, 0x1FA00), (0x10000, 0x110000)]
    texts = []
    for _ in range(1500):
        low, high = ranges[random.integers(len(ranges))]
        texts.append("".join(map(chr, random.integers(low, high, random.integers(0, 90)))).replace(SENTINEL, ""))
    for content in (tokenizer(), learned(texts[:500])):
        one = TextReader(content, SCHEMA_TEXT)
        together = one.tokens(rows(*texts))
        assert together.min() >= 0 and together.max() < one.vocab_size
        alone = np.concatenate([one.tokens(rows(text)) for text in texts[::25]])
        assert (together[::25] == alone).all()


def learned(texts: list[str]) -> bytes:
    """A tokenizer as a training learns it."""
    return learn(SCHEMA_TEXT, rows(*texts))


def test_the_scorer_and_the_loader_without_us_begin_at_the_text(tmp_path: Path) -> None:
    import pandas as pd

    bundle = text_bundle(tmp_path / "b")
    given = [ROW, {**ROW, "title": None, "body": "odd a"}, {**ROW, "title": "a " * 50}]
    found = Scorer(bundle).score(pack_rows(SCHEMA_TEXT, given)).prediction[:, 0]
    assert found.tolist() == [14 + 10 * 14 + 2, 2 + 10 * 6 + 2, 2 + 7 * 3 + 10 * 14 + 2]
    assert _load_pyfunc(str(bundle.root)).predict(pd.DataFrame(given))["prediction"].tolist() == found.tolist()


@pytest.mark.parametrize("n_rows", [1, 20])
def test_a_text_that_is_too_long_is_named_by_row_and_column(n_rows: int) -> None:
    given = [ROW] * (n_rows - 1) + [{**ROW, "body": "x" * (MAX_TEXT + 1)}]
    assert RowReader(SCHEMA_TEXT).read(json.dumps(given).encode()) is None  # left to the careful way
    with pytest.raises(PackingError, match=rf"Row {n_rows - 1}, column 'body': a text of 100,001 characters is given"):
        pack_rows(SCHEMA_TEXT, given)
    assert pack_rows(SCHEMA_TEXT, [{**ROW, "body": "x" * MAX_TEXT}] * n_rows).n_rows == n_rows


@pytest.mark.slow
def test_an_endpoint_answers_and_refuses_prose_on_every_road(tmp_path: Path, new_server: Callable[[], Server]) -> None:
    server = new_server()
    server.configure(text_bundle(tmp_path / "bundle"))
    server.start()
    server.wait()
    assert server.predict(ROW)["predictions"] == [{"prediction": 156.0}]
    csv = b'title,island,body,age\n"a fine\nday",Biscoe,"b b",2\n,,,\n'
    status, found = server.ask("POST", "/predict", csv, headers={"Content-Type": "text/csv"})
    assert (status, found["predictions"][0]) == (200, {"prediction": 156.0})
    infer = "/v2/models/diagnosis/infer"
    packed = [
        {"name": "num", "datatype": "FP64", "shape": [1, 1], "data": [2.0]},
        {"name": "txt", "datatype": "BYTES", "shape": [1, 3], "data": ["a fine day", "Biscoe", "b b"]},
    ]
    single = [
        {"name": name, "datatype": "FP64" if name == "age" else "BYTES", "shape": [1], "data": [value]}
        for name, value in ROW.items()
    ]
    for inputs in (packed, single):
        status, found = server.ask("POST", infer, {"inputs": inputs})
        assert (status, found["outputs"][0]["data"]) == (200, [156.0])
    raw = b"".join(len(text).to_bytes(4, "little") + text for text in (b"a fine day", b"Biscoe", b"b b"))
    head = {"inputs": [packed[0], {**packed[1], "parameters": {"binary_data_size": len(raw)}}]}
    del head["inputs"][1]["data"]
    told = json.dumps(head).encode()
    binary = {"Inference-Header-Content-Length": str(len(told)), "Content-Type": "application/octet-stream"}
    status, found = server.ask("POST", infer, told + raw, headers=binary)
    assert (status, found["outputs"][0]["data"]) == (200, [156.0])
    _, metadata = server.ask("GET", "/v2/models/diagnosis")
    assert metadata["columns"][0] == {"name": "title", "kind": "text"}
    assert [(one["name"], one["shape"]) for one in metadata["inputs"]] == [("num", [-1, 1]), ("txt", [-1, 3])]
    _, about = server.ask("GET", "/openapi.json")
    assert about["components"]["schemas"]["Row"]["properties"]["body"]["maxLength"] == MAX_TEXT
    long = "x" * (MAX_TEXT + 1)
    packed[1]["data"][2] = long
    single[0]["data"] = [long]
    for path, body in (("/predict", {**ROW, "body": long}), (infer, {"inputs": packed}), (infer, {"inputs": single})):
        status, answer = server.ask("POST", path, body)
        assert status == 422 and "100,000 are the most" in json.dumps(answer)
        assert answer["faults"][0]["row"] == 0
    status, answer = server.ask("POST", "/predict", {**ROW, "title": 3})
    assert status == 422 and "text is wanted" in answer["error"]["message"]


REGEX = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}


@pytest.mark.slow
def test_an_endpoint_refuses_a_tokenizer_that_could_take_for_ever(
    tmp_path: Path, new_server: Callable[[], Server]
) -> None:
    made = json.loads(tokenizer())
    made["pre_tokenizer"] = REGEX
    server = new_server()
    server.configure(text_bundle(tmp_path / "bundle", content=json.dumps(made).encode()))
    server.start()
    status = server.wait(state="error", release=1)
    assert "regular expression of its own" in (status.error or "")


def test_as_many_rows_are_scored_at_once_as_their_tokens_allow(tmp_path: Path) -> None:
    assert Scorer(text_bundle(tmp_path / "few")).chunk_rows == 2**16 // (2 * T)
    assert msgspec.structs.replace(SCHEMA_TEXT, max_tokens=4096).rows_at_once == 8
    assert Schema(columns=SCHEMA_TEXT.columns).rows_at_once == 8192


def test_fewer_tokens_than_a_tokenizer_adds_are_refused() -> None:
    with pytest.raises(LeptonError, match="adds 1 tokens to each text, and the model reads 1"):
        reader(max_tokens=1)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (msgspec.structs.replace(SCHEMA_TEXT, max_tokens=None), "0 tokens"),
        (msgspec.structs.replace(SCHEMA_TEXT, max_tokens=10**9), "1,000,000,000 tokens"),
    ],
)
def test_a_bundle_that_asks_for_too_many_tokens_is_refused(tmp_path: Path, schema: Schema, said: str) -> None:
    with pytest.raises(LeptonError, match=said):
        Scorer(text_bundle(tmp_path / "b", schema=schema))


@pytest.mark.slow
def test_an_endpoint_without_the_package_says_which(
    tmp_path: Path, new_server: Callable[[], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "less" / "tokenizers").mkdir(parents=True)
    (tmp_path / "less" / "tokenizers" / "__init__.py").write_text("raise ImportError('as if it were not there')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "less"), *filter(None, sys.path)]))
    server = new_server()
    server.configure(text_bundle(tmp_path / "bundle"))
    server.start()
    status = server.wait(state="error", release=1)
    assert "tokenizers, which is not installed here" in (status.error or "")
    assert "pip install 'lepton_jupyter[text]'" in (status.error or "")
