"""What most people write: FastAPI, a pydantic model, torch. ``uvicorn fastapi_torch:app``."""

from __future__ import annotations

import torch
from fastapi import FastAPI
from net import Net
from pydantic import BaseModel

torch.set_num_threads(1)
app = FastAPI()
model = Net().eval()


class Rows(BaseModel):
    """Rows as objects of 32 columns."""

    rows: list[dict[str, float]]


@app.post("/predict")
def predict(asked: Rows) -> dict[str, list[dict[str, float]]]:
    x = torch.tensor([[row[f"x{place}"] for place in range(32)] for row in asked.rows])
    with torch.inference_mode():
        shares = model(x).softmax(1)
    return {
        "predictions": [
            {"prediction": int(row.argmax()), "probability_0": float(row[0]), "probability_1": float(row[1])}
            for row in shares
        ]
    }
