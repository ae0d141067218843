"""What a training does with columns of prose: its tokenizer, what the module is given, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.utils.data import TensorDataset

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import TOKENIZER
from lepton_jupyter.serving.text import TextReader
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.construct import VOCAB_SIZE
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.feed import Feed, names_for
from lepton_jupyter.stages.train.frameworks.torch import TorchFitted, prepare
from lepton_jupyter.stages.train.job import Job, settle_task
from lepton_jupyter.stages.train.loaders import loaders_of
from lepton_jupyter.stages.train.preflight import preflight
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.train.tokenizer import VOCABULARY, learn
from tests.stages.train.zoo_text import Attentive, Averaged, Coded, Windows

REVIEWS = Path(__file__).parents[2] / "reviews.csv"
BESIDE = ("bought_by", "days")


@pytest.fixture
def reviews(make_dataset: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """Make the reviews a dataset: ``reviews(ignore=…)``."""
    frame = pl.read_csv(REVIEWS)

    def make(frame: pl.DataFrame = frame, **flags: Any) -> Dataset:
        return make_dataset(frame, name="reviews", **{"target": ("liked",), "id": "order", "text": ("review",)} | flags)

    return make


@pytest.fixture
def made(session: Any) -> Callable[..., TorchFitted]:
    """Prepare a module on a dataset: ``made(Net, dataset, max_tokens=8)``."""

    def make(model: Any, dataset: Dataset, **flags: Any) -> TorchFitted:
        spec = Train(model="Net", data=dataset.ref, **flags)
        return prepare(model, Job(session, spec, settle_task(dataset, spec.task), "Net"))

    return make


def own_tokenizer(path: Path, *, first: str = "[PAD]") -> Path:
    tokens = Tokenizer(models.WordLevel({first: 0, "[UNK]": 1, "coffee": 2}, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.save(str(path))
    return path


def test_a_module_gets_what_its_forward_names(reviews: Any, made: Any) -> None:
    both = made(Averaged, reviews(), max_tokens=16)
    assert both.feed.names == ("numeric", "tokens")
    numeric, tokens = both.example
    assert (tokens.shape[1], tokens.dtype) == (16, torch.int64)
    assert numeric.shape[1] == 1 + 1 + 4 and numeric.dtype == torch.float32  # days, a hole in it, a word one-hot
    coded = made(Coded, reviews())
    assert coded.feed.names == ("numeric", "categorical", "tokens") and coded.example[1].dtype == torch.int64
    alone = made(Windows, reviews(ignore=BESIDE))
    assert alone.feed.names == ("tokens",) and alone.example[0].shape[1] == 128
    assert both.module.embed.num_embeddings == alone.module.embed.num_embeddings == both.reader.vocab_size


def test_several_columns_of_prose_are_a_dimension_of_their_own(reviews: Any, made: Any) -> None:
    frame = pl.read_csv(REVIEWS).with_columns(title=pl.col("review").str.slice(0, 9)).drop(BESIDE)
    found = made(Attentive, reviews(frame, text=("title", "review")), max_tokens=24)
    assert found.example[0].shape[1:] == (2, 24)


def test_every_usual_name_of_the_vocabularys_size_is_filled(reviews: Any, made: Any) -> None:
    for name in VOCAB_SIZE:

        def factory(n_outputs: int, **given: Any) -> nn.Module:
            return Windows(*given.values(), n_outputs)

        space: dict[str, Any] = {"factory": factory}
        exec(f"def make({name}, n_outputs): return factory(n_outputs, x={name})", space)
        assert isinstance(made(space["make"], reviews(ignore=BESIDE)).module, Windows)


def test_the_same_rows_give_the_same_tokenizer_in_another_process_and_with_another_seed(reviews: Any) -> None:
    dataset = reviews()
    content = learn(dataset.schema, dataset.packed("train"))
    again = f"""
import hashlib, sys
from pathlib import Path
from lepton_jupyter.core.paths import Home
from lepton_jupyter.stages.data.store import Store
from lepton_jupyter.stages.train.tokenizer import learn
dataset = Store(Home(Path({str(dataset.folder.parents[2])!r}))).open("reviews")
print(hashlib.sha256(learn(dataset.schema, dataset.packed("train"))).hexdigest())
"""
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": "true"}
        done = subprocess.run(
            [sys.executable, "-c", again], env=environment, check=True, capture_output=True, text=True
        )
        assert done.stdout.strip() == hashlib.sha256(content).hexdigest()
    vocabulary = json.loads(content)["model"]["vocab"]
    assert list(vocabulary)[:3] == ["[PAD]", "[UNK]", "[CLS]"] and len(vocabulary) <= VOCABULARY


def test_the_tokenizer_is_learned_from_the_training_rows_alone(reviews: Any) -> None:
    dataset = reviews()
    test = dataset.row_keys("test")
    frame = pl.read_csv(REVIEWS).with_columns(
        review=pl.when(pl.Series(dataset.row_keys()).is_in(test.tolist()))
        .then(pl.lit("zebra " * 50))
        .otherwise(pl.col("review"))
    )
    changed = reviews(frame)  # rows keep their splits by their id
    assert (changed.places() == dataset.places()).all()
    assert learn(changed.schema, changed.packed("train")) == learn(dataset.schema, dataset.packed("train"))


def test_a_word_without_an_end_is_learned_from_in_pieces(reviews: Any) -> None:
    dataset = reviews(pl.read_csv(REVIEWS).with_columns(review=pl.col("review") + " " + "acgt" * 300))
    made = json.loads(learn(dataset.schema, dataset.packed("train")))
    assert max(map(len, made["model"]["vocab"])) <= 32
    TextReader(json.dumps(made).encode(), msgspec.structs.replace(dataset.schema, max_tokens=8))


def test_tokens_that_memory_has_no_room_for_are_refused_with_what_fits(
    reviews: Any, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = reviews(ignore=BESIDE)
    monkeypatch.setenv("LEPTON_MEMORY_LIMIT", "2M")
    assert not dataset.is_large
    with pytest.raises(LeptonError, match="tokens of 'reviews@1' would take") as caught:
        made(Windows, dataset, max_tokens=1024)
    assert "--max-tokens 409" in caught.value.hint


@pytest.mark.slow
def test_a_tokenizer_of_ones_own_is_copied_into_the_bundle(reviews: Any, session: Any, tmp_path: Path) -> None:
    path = own_tokenizer(tmp_path / "mine.json")
    spec = Train(model="Net", data="reviews", epochs=1, tokenizer=str(path), max_tokens=12)
    trained = train(session, Windows, reviews(ignore=BESIDE), spec)
    path.unlink()
    assert trained.card.is_deployable, trained.card.why_not
    assert json.loads(trained.bundle.read(TOKENIZER))["model"]["vocab"] == {"[PAD]": 0, "[UNK]": 1, "coffee": 2}
    assert TOKENIZER in trained.bundle.manifest.files
    assert trained.bundle.schema.max_tokens == 12


def test_a_tokenizer_that_cannot_be_used_is_refused_by_its_name(reviews: Any, made: Any, tmp_path: Path) -> None:
    dataset = reviews(ignore=BESIDE)
    with pytest.raises(LeptonError, match=r"--tokenizer .*none\.json cannot be read: No such file"):
        made(Windows, dataset, tokenizer=str(tmp_path / "none.json"))
    odd = own_tokenizer(tmp_path / "odd.json", first="the")
    with pytest.raises(LeptonError, match=r"odd\.json is refused: 0 is padding here, and its id 0 is 'the'"):
        made(Windows, dataset, tokenizer=str(odd))


def test_a_module_that_reads_no_prose_is_told_the_lines_to_paste(reviews: Any, made: Any) -> None:
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(LeptonError, match="'review', and forward of 'Net' names no tokens") as caught:
        made(Plain, reviews(), max_tokens=9)
    assert "def forward(self, tokens)" in caught.value.hint and "[rows, 9]" in caught.value.hint
    assert "--ignore review" in caught.value.hint
    with pytest.raises(LeptonError, match="names no tokens"):
        made(lambda: Plain(), reviews())


def test_a_module_that_would_lose_columns_is_told_which(reviews: Any, made: Any) -> None:
    with pytest.raises(LeptonError, match="takes tokens; 'reviews@1' has more: days, bought_by") as caught:
        made(Windows, reviews())
    assert "def forward(self, numeric, tokens)" in caught.value.hint
    assert "--ignore days --ignore bought_by" in caught.value.hint


def test_a_module_that_names_tokens_needs_a_column_of_prose(reviews: Any, made: Any) -> None:
    with pytest.raises(LeptonError, match="'reviews@1' has no column of prose") as caught:
        made(Windows, reviews(text=(), ignore=("bought_by",)))
    assert "--text COLUMN" in caught.value.hint
    with pytest.raises(LeptonError, match=r"--tokenizer x\.json means nothing"):
        made(nn.Linear(2, 2), reviews(text=(), ignore=("bought_by",)), tokenizer="x.json")
    with pytest.raises(LeptonError, match="--max-tokens 9 means nothing"):
        made(nn.Linear(2, 2), reviews(text=(), ignore=("bought_by",)), max_tokens=9)


@pytest.mark.slow
def test_tensors_and_loaders_of_ones_own_may_be_called_tokens(make_dataset: Any, made: Any, session: Any) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.EmbeddingBag(10, 4)
            self.out = nn.Linear(4, 2)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.out(self.embed(tokens.long().flatten(1)))

    numbers = torch.arange(480).reshape(60, 8) % 10
    dataset = make_dataset((numbers.reshape(60, 2, 4).numpy(), (numbers[:, 0] > 4).long().numpy()), name="own")
    assert made(Own, dataset).feed.names == ("tensor",)
    spec = Train(model="Net", data="own", epochs=1)
    loaders = loaders_of(TensorDataset(numbers.float(), (numbers[:, 0] > 4).long()), spec)
    trained = train(session, Own, loaders, spec)
    assert trained.card.is_deployable, trained.card.why_not


def test_an_estimator_reads_no_prose(reviews: Any, session: Any) -> None:
    with pytest.raises(LeptonError, match="an estimator, which reads no prose, and 'reviews@1' has a column of it"):
        train(session, LogisticRegression(), reviews(), Train(model="Net", data="reviews"))
    with pytest.raises(LeptonError, match="--max-tokens"):
        preflight(LogisticRegression(), Train(model="Net", data="reviews", max_tokens=9), named=(), data="reviews")


def test_numbers_are_not_mixed_into_tokens(reviews: Any, session: Any) -> None:
    for word in ("mixup", "noise"):
        spec = Train(model="Net", data="reviews", epochs=1, augment=(word,))
        with pytest.raises(LeptonError, match=f"--augment {word} changes numbers, and 'Net' takes tokens of text"):
            train(session, Windows, reviews(ignore=BESIDE), spec)


@pytest.mark.slow
def test_prose_that_is_larger_than_memory_is_read_from_disk(
    reviews: Any, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEPTON_MEMORY_LIMIT", "60K")
    for name in ("LEAST_ROWS", "MOST_ROWS"):
        monkeypatch.setattr(f"lepton_jupyter.stages.data.row_groups.{name}", 50)
    dataset = reviews(ignore=BESIDE)
    assert dataset.is_large
    trained = train(session, Windows, dataset, Train(model="Net", data="reviews", epochs=8, lr=1e-2, max_tokens=32))
    assert trained.card.is_deployable, trained.card.why_not
    assert trained.metrics["val_accuracy"] > 0.8


@pytest.mark.slow
def test_a_training_that_goes_on_reads_by_the_tokenizer_that_it_began_with(
    reviews: Any, session: Any, made: Any, tmp_path: Path
) -> None:
    path, dataset = own_tokenizer(tmp_path / "mine.json"), reviews(ignore=BESIDE)
    before = made(Windows, dataset, tokenizer=str(path)).tokenizer
    path.write_text("{}")  # whatever became of it since
    assert made(Windows, dataset, tokenizer=str(path)).tokenizer == before
    assert made(Windows, dataset).tokenizer != before


def test_tokens_are_given_by_name_and_other_columns_as_before() -> None:
    class Late(nn.Module):
        def forward(self, other: Any = None, *, tokens: torch.Tensor) -> Any:
            return tokens, other

    assert names_for(Late, has_prose=True) == ("tokens",)
    assert names_for(Late, has_prose=False) == ("features",)
    tokens = torch.ones(2, 3, dtype=torch.int64)
    found, other = Feed(("tokens",)).call(Late(), (tokens,))
    assert found is tokens and other is None
