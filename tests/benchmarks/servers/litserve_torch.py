"""LitServe with its own batching: ``python litserve_torch.py PORT``.

It looks at the annotations themselves: none of them may be text.
"""

import sys
from typing import Any

import litserve
import torch
from net import Net


class Predict(litserve.LitAPI):
    """Rows as objects of 32 columns."""

    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        self.model = Net().eval()

    def decode_request(self, request: dict[str, Any]) -> torch.Tensor:
        return torch.tensor([[row[f"x{place}"] for place in range(32)] for row in request["rows"]])

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(x).softmax(-1)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        shares = output.reshape(-1, 2)
        return {"predictions": [{"prediction": int(row.argmax()), "probabilities": row.tolist()} for row in shares]}


if __name__ == "__main__":
    api = Predict(max_batch_size=32, batch_timeout=0.0)
    litserve.LitServer(api, accelerator="cpu").run(port=int(sys.argv[1]), generate_client_file=False)
