"""Networks that read prose: tokens alone, beside the other columns, and of several columns."""

from __future__ import annotations

import torch
from torch import nn

from tests.stages.train.families import Case

# B batch, T tokens, N columns of prose, D width


class Averaged(nn.Module):
    """The mean of a text's words, beside the numbers."""

    def __init__(self, vocab_size: int, n_features: int, n_outputs: int, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width, padding_idx=0)
        self.out = nn.Linear(width + n_features, n_outputs)

    def mean(self, tokens: torch.Tensor) -> torch.Tensor:
        is_there = (tokens != 0).unsqueeze(-1)
        return (self.embed(tokens) * is_there).sum(-2) / is_there.sum(-2)

    def forward(self, numeric: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat([self.mean(tokens), numeric], 1))


class Coded(Averaged):
    """Codes of categories beside them too."""

    def __init__(self, vocab_size: int, n_features: int, cardinalities: tuple[int, ...], n_outputs: int) -> None:
        super().__init__(vocab_size, n_features + 4 * len(cardinalities), n_outputs)
        self.tables = nn.ModuleList(nn.Embedding(n, 4) for n in cardinalities)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        codes = [table(categorical[:, place]) for place, table in enumerate(self.tables)]
        return self.out(torch.cat([self.mean(tokens), numeric, *codes], 1))


class Windows(nn.Module):
    """A convolution over words, on prose alone."""

    def __init__(self, num_embeddings: int, n_outputs: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_embeddings, 16, padding_idx=0)
        self.windows = nn.Conv1d(16, 24, 3, padding=1)
        self.out = nn.Linear(24, n_outputs)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.windows(self.embed(tokens).transpose(1, 2))).amax(-1))


class Attentive(nn.Module):
    """A transformer that passes over padding, on several columns: [B, N, T]."""

    def __init__(self, vocab_size: int, max_tokens: int, n_outputs: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, 16)
        self.place = nn.Parameter(torch.randn(max_tokens, 16) * 0.1)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.out = nn.Linear(16, n_outputs)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        texts = tokens.flatten(0, 1)
        found = self.layer(self.embed(texts) + self.place, src_key_padding_mask=texts == 0)
        return self.out(found[:, 0].unflatten(0, tokens.shape[:2]).mean(1))


CASES = (
    Case("words averaged, beside numbers", "reviews", lambda: Averaged, {"epochs": 3, "max_tokens": 32}),
    Case("words averaged, codes beside them", "reviews", lambda: Coded, {"epochs": 3}),
    Case("CNN over words", "reviews, prose alone", lambda: Windows, {"epochs": 3}),
    Case("transformer over words", "reviews, two columns of prose", lambda: Attentive, {"epochs": 2, "max_tokens": 24}),
)
