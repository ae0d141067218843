"""Triton's own HTTP clients against an endpoint: ``triton.py HOST:PORT TOKEN MODEL``; raises at what is wrong."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
import tritonclient.http as http
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

ADDRESS, TOKEN, MODEL = sys.argv[1:4]
AGES = np.array([[50.0, 2.0], [np.nan, 1.0]])
WANTED = (0.549834, None)  # of the first row's second class


def said() -> dict[str, str]:
    """Return the headers anew: the client writes into them."""
    return {"Authorization": f"Bearer {TOKEN}"}


def inputs(module: Any, *, is_binary: bool) -> list[Any]:
    """Return both packed inputs."""
    num, txt = module.InferInput("num", [2, 2], "FP64"), module.InferInput("txt", [2, 1], "BYTES")
    num.set_data_from_numpy(AGES, binary_data=is_binary)
    txt.set_data_from_numpy(np.array([["Dream"], ["Biscoe"]], object), binary_data=is_binary)
    return [num, txt]


def outputs(module: Any, *, is_binary: bool) -> list[Any]:
    """Return both outputs, as they are asked for."""
    return [module.InferRequestedOutput(name, binary_data=is_binary) for name in ("prediction", "probability")]


def hold(result: Any) -> None:
    """Hold an answer to what the graph computes."""
    probability = result.as_numpy("probability")
    assert probability.shape == (2, 2) and probability.dtype == np.float32, probability
    assert abs(probability[0, 1] - WANTED[0]) < 1e-5, probability
    labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("prediction").tolist()]
    assert labels[0] == "yes", labels


def main() -> None:
    """Ask everything that the blocking client can ask."""
    client = http.InferenceServerClient(ADDRESS)
    assert client.is_server_live(headers=said()) and client.is_server_ready(headers=said())
    assert client.is_model_ready(MODEL, headers=said())
    assert "binary_tensor_data" in client.get_server_metadata(headers=said())["extensions"]
    metadata = client.get_model_metadata(MODEL, headers=said())
    assert [one["name"] for one in metadata["inputs"]] == ["num", "txt"], metadata
    assert client.get_model_repository_index(headers=said())[0]["state"] == "READY"
    for is_binary in (True, False):
        for coding in (None, "gzip", "deflate"):
            found = client.infer(
                MODEL, inputs(http, is_binary=is_binary), outputs=outputs(http, is_binary=is_binary), headers=said(),
                request_id="mine-7", request_compression_algorithm=coding, response_compression_algorithm=coding,
            )  # fmt: skip
            hold(found)
            assert found.get_response()["id"] == "mine-7"
    only = client.infer(
        MODEL, inputs(http, is_binary=True), outputs=[http.InferRequestedOutput("probability")], headers=said()
    )
    assert only.as_numpy("prediction") is None
    hold(client.infer(MODEL, inputs(http, is_binary=True), headers=said()))
    statistics = client.get_inference_statistics(MODEL, headers=said())["model_stats"][0]
    assert statistics["inference_count"] >= 16, statistics
    for wrong in (
        lambda: client.infer(MODEL, inputs(http, is_binary=True)[:1], headers=said()),
        lambda: client.infer("nobody", inputs(http, is_binary=True), headers=said()),
        lambda: client.infer(MODEL, inputs(http, is_binary=True)),
        lambda: client.infer(
            MODEL, inputs(http, is_binary=True), outputs=[http.InferRequestedOutput("x")], headers=said()
        ),
    ):
        try:
            wrong()
        except InferenceServerException as error:
            said_why = error.message()
        else:
            said_why = ""
        assert said_why, "no error came"
    asyncio.run(beside())
    print("triton: all well")


async def beside() -> None:
    """Ask the same with the client for asyncio."""
    async with aio.InferenceServerClient(ADDRESS) as client:
        assert await client.is_model_ready(MODEL, headers=said())
        for is_binary in (True, False):
            asked = [
                client.infer(MODEL, inputs(http, is_binary=is_binary), outputs=outputs(http, is_binary=is_binary),
                             headers=said())
                for _ in range(20)
            ]  # fmt: skip
            for found in await asyncio.gather(*asked):
                hold(found)


if __name__ == "__main__":
    main()
