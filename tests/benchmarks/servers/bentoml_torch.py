"""BentoML with its own batching: ``bentoml serve bentoml_torch:Predict --port PORT``."""

from __future__ import annotations

import bentoml
import torch
from net import Net


@bentoml.service(workers=1)
class Predict:
    """Rows as objects of 32 columns."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.model = Net().eval()

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=60_000)
    def predict(self, rows: list[dict[str, float]]) -> list[dict[str, float]]:
        x = torch.tensor([[row[f"x{place}"] for place in range(32)] for row in rows])
        with torch.inference_mode():
            shares = self.model(x).softmax(1)
        return [{"prediction": int(row.argmax()), "probability_1": float(row[1])} for row in shares]
