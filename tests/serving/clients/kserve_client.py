"""KServe's own client against an endpoint: ``kserve_client.py URL TOKEN MODEL``. Raises where anything is wrong."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

URL, TOKEN, MODEL = sys.argv[1:4]
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


async def main() -> None:
    """Ask for readiness and for rows, as JSON and as bytes."""
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=30))
    assert await client.is_server_ready(URL, headers=HEADERS)
    assert await client.is_server_live(URL, headers=HEADERS)
    assert await client.is_model_ready(URL, MODEL, headers=HEADERS)
    for is_binary in (False, True):
        num, txt = InferInput("num", [1, 2], "FP64"), InferInput("txt", [1, 1], "BYTES")
        num.set_data_from_numpy(np.array([[50.0, 2.0]]), binary_data=is_binary)
        txt.set_data_from_numpy(np.array([["Dream"]], object), binary_data=is_binary)
        found = await client.infer(
            URL, InferRequest(MODEL, [num, txt], request_id="mine-8"), headers=HEADERS, model_name=MODEL
        )
        probability = next(output for output in found.outputs if output.name == "probability").as_numpy()
        assert abs(probability[0, 1] - 0.549834) < 1e-5, probability
        assert found.id == "mine-8", found.id
    print("kserve: all well")


if __name__ == "__main__":
    asyncio.run(main())
