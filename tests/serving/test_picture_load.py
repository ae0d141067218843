"""Many images, large ones and damaged ones: each gets its own answer, and memory is given back."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from lepton_jupyter.formats import pixels
from lepton_jupyter.formats.packing import PackingError
from lepton_jupyter.formats.pixels import decode
from lepton_jupyter.formats.schema import ImageInput
from lepton_jupyter.serving import pictures
from lepton_jupyter.serving.answers import HttpError
from lepton_jupyter.serving.app import SMALL_BODY
from lepton_jupyter.serving.batching import Batcher
from lepton_jupyter.serving.scorer import Scorer
from tests.pictures import encoded
from tests.serving.graphs import Server, make_bundle
from tests.serving.test_pictures import (
    BLUE,
    CUT,
    PHOTO,
    RED,
    SCHEMA_IMAGE,
    b64,
    graph_of_images,
    of_any_size,
    send,
    serving,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(tmp_path_factory.mktemp("pictures"))


def test_many_at_once_get_their_own_answers(server: Server) -> None:
    wrong: list[Any] = []

    def ask(colour: str, content: bytes) -> None:
        for _ in range(20):
            status, answer = send(server, content, "image/jpeg" if content is PHOTO else "image/png")
            if status != 200 or answer["predictions"][0]["prediction"] != colour:
                wrong.append(answer)

    named = (("red", RED), ("blue", BLUE), ("green", PHOTO))
    threads = [threading.Thread(target=ask, args=pair) for pair in named * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(RED) < SMALL_BODY  # it would have gone the short way


def test_a_request_of_more_pixels_than_it_may_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    image = ImageInput(height=12, width=16, channels=3)
    monkeypatch.setattr(pictures, "MAX_DECODED_BYTES", 3 * 12 * 16 * 4)
    assert len(pictures.read_rows(image, [RED] * 4).pixels) == 4
    with pytest.raises(HttpError, match="5 images of 16x12 RGB") as error:
        pictures.read_rows(image, [RED] * 5)
    assert error.value.status == 413


def test_a_decoder_that_sees_other_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lepton_jupyter.core.errors import LeptonError

    ours = pixels.fingerprint()
    assert len(ours) == 36 and len(set(ours)) > 20
    proved = {"pillow": "9.9", "pixels": [min(255, value + 2) for value in ours]}
    pictures.check_decoder(proved)
    pictures.check_decoder({})
    proved["pixels"] = [abs(value - 9) for value in ours]
    with pytest.raises(LeptonError, match=r"otherwise than Pillow 9\.9, with which this version was proved"):
        pictures.check_decoder(proved)


def test_pixels_under_way_are_counted_until_nobody_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    image = ImageInput(height=12, width=16, channels=3)
    before = pictures.under_way.n_bytes
    held = pictures.read_rows(image, [RED] * 4)
    part = held.pixels[1:2]
    assert pictures.under_way.n_bytes == before + 3 * 12 * 16 * 4
    monkeypatch.setattr(pictures, "MAX_UNDER_WAY_BYTES", pictures.under_way.n_bytes)
    with pytest.raises(HttpError) as error:
        pictures.read_rows(image, [RED])
    assert error.value.status == 503
    del held
    assert pictures.under_way.n_bytes > before  # a view holds them too
    del part
    assert pictures.under_way.n_bytes == before
    with pytest.raises(PackingError):
        pictures.read_rows(image, [RED, CUT])
    assert pictures.under_way.n_bytes == before


def test_pillow_is_loaded_for_models_of_images_only(tmp_path: Path) -> None:
    import subprocess
    import sys

    bundles = (
        (make_bundle(tmp_path / "columns"), "False"),
        (make_bundle(tmp_path / "images", SCHEMA_IMAGE, content=graph_of_images()), "False"),
    )
    for bundle, is_loaded in bundles:
        code = (
            "import sys; from pathlib import Path; import lepton_jupyter.serving.endpoint\n"
            "from lepton_jupyter.serving.scorer import Scorer; from lepton_jupyter.formats.bundle import open_bundle\n"
            f"Scorer(open_bundle(Path({str(bundle.root)!r}))).warm(); print('PIL' in sys.modules)"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == is_loaded


def test_many_images_are_scored_some_at_a_time(tmp_path: Path) -> None:
    scorer = Scorer(make_bundle(tmp_path / "b", SCHEMA_IMAGE, content=graph_of_images()))
    scorer.chunk_rows = 3
    rows = np.stack([decode(one, height=12, width=16, channels=3) for one in (RED, BLUE, PHOTO)] * 5)
    assert scorer.table(scorer.score(rows))["prediction"] == ["red", "blue", "green"] * 5


def test_damaged_files_are_answered_4xx_in_every_form(server: Server) -> None:
    random = np.random.default_rng(3)
    found: dict[int, int] = {}
    for place in range(400):
        content = bytearray((RED, PHOTO)[place % 2])
        for at in random.integers(0, min(len(content), 600), 8):
            content[at] = random.integers(0, 256)
        damaged = bytes(content[: random.integers(1, len(content) + 1)])
        if place % 3 == 0:
            status, answer = send(server, damaged, "image/png")
        elif place % 3 == 1:
            status, answer = server.ask("POST", "/predict", [{"image": b64(damaged)}])
        else:
            raw = struct.pack("<I", len(damaged)) + damaged
            tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
            head = json.dumps({"inputs": [tensor]}).encode()
            length = {"Inference-Header-Content-Length": str(len(head))}
            status, answer = send(server, head + raw, "application/octet-stream", "/v2/models/Net/infer", **length)
        assert status in (200, 400, 422), answer
        found[status] = found.get(status, 0) + 1
    assert found[400] > 50 and found[422] > 100


def test_memory_of_large_files_is_bounded_and_given_back(
    new_server: Callable[[], Server], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    import psutil

    large = encoded(Image.new("RGBA", (8000, 6000), (250, 9, 9, 255)), compress_level=1)
    server = new_server()
    server.configure(make_bundle(tmp_path / "bundle", SCHEMA_IMAGE, content=graph_of_images()))
    server.start()
    server.wait()
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(send(server, large, "image/png")[1])) for _ in range(3)]
    for thread in threads:
        thread.start()
    peak = 0
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, process.memory_info().rss)
        threads[0].join(0.01)
        threads[-1].join(0.01)
    assert [answer["predictions"][0]["prediction"] for answer in found] == ["red"] * 3
    assert peak < 700 * 2**20  # one at a time: 48 million pixels of four bytes, and a copy
    eventually(lambda: process.memory_info().rss < 200 * 2**20, what="its memory is given back")


def test_of_large_images_fewer_rows_go_together(tmp_path: Path) -> None:
    large = msgspec.structs.replace(
        SCHEMA_IMAGE, image=ImageInput(height=500, width=700, channels=3), tensor_shape=(3, 500, 700)
    )
    scorer = Scorer(make_bundle(tmp_path / "b", large, content=of_any_size(graph_of_images())))
    assert scorer.chunk_rows == 1
    batches: list[int] = []
    rows = np.zeros((5, 3, 500, 700), np.uint8)
    rows[2, 0] = 255

    async def asked() -> Any:
        batcher = Batcher(scorer, pool, on_batch=lambda n, n_rows, _: batches.append(n_rows))
        outputs = await batcher.submit(rows)
        whole: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        batcher.submit_to(whole, rows, 5, None)  # as a shadow does: not in parts, and taken all the same
        return outputs, await whole

    with ThreadPoolExecutor(1) as pool:
        outputs, whole = asyncio.run(asked())
    assert outputs.prediction.tolist()[2] == 2 and batches == [1] * 5 + [5]
    assert whole.prediction.tolist() == outputs.prediction.tolist()
