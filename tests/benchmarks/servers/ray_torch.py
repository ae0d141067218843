"""Ray Serve with one replica: ``python ray_torch.py PORT``."""

from __future__ import annotations

import sys
from typing import Any

import torch
from net import Net
from ray import serve


@serve.deployment(num_replicas=1, max_ongoing_requests=512)
class Predict:
    """Rows as objects of 32 columns."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.model = Net().eval()

    async def __call__(self, request: Any) -> dict[str, list[dict[str, float]]]:
        rows = (await request.json())["rows"]
        x = torch.tensor([[row[f"x{place}"] for place in range(32)] for row in rows])
        with torch.inference_mode():
            shares = self.model(x).softmax(1)
        return {"predictions": [{"prediction": int(row.argmax()), "probability_1": float(row[1])} for row in shares]}


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Predict.bind(), route_prefix="/predict", blocking=True)
