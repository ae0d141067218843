"""What an endpoint says of itself: its document, and the page that tries the model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lepton_jupyter.formats.schema import Schema
from tests.serving.graphs import (
    ROW,
    SCHEMA_MULTI,
    SCHEMA_REGRESSION,
    Server,
    graph_of_tensors,
    make_bundle,
)

pytestmark = pytest.mark.slow

TENSORS = Schema(columns=(), targets=("sum",), task="regression", tensor_shape=(2, 2))


def test_the_document_names_columns_outputs_and_every_refusal(server: Server) -> None:
    status, document = server.ask("GET", "/openapi.json")
    assert status == 200 and document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    assert schemas["Row"]["required"] == ["age", "island", "children"]
    assert set(schemas["Row"]["properties"]) == {"age", "island", "children", "patient", "remark"}
    assert set(schemas["Prediction"]["required"]) == {"prediction", "probability_no", "probability_yes"}
    refusals = {"400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503", "504"}
    assert set(document["paths"]["/predict"]["post"]["responses"]) == {"200"} | refusals
    assert "/v2/models/diagnosis/infer" in document["paths"]
    assert server.ask("GET", "/openapi.json", token=None)[0] == 401


@pytest.mark.parametrize("schema", [SCHEMA_MULTI, SCHEMA_REGRESSION, TENSORS], ids=["labels", "numbers", "tensors"])
def test_its_example_is_answered_as_it_says(new_server: Callable[[], Server], tmp_path: Path, schema: Schema) -> None:
    server = new_server()
    content = graph_of_tensors() if schema.tensor_shape else None
    server.configure(make_bundle(tmp_path / "bundle", schema, content=content))
    server.start()
    server.wait()
    _, about = server.ask("GET", "/")
    (answer,) = server.predict(about["example"])["predictions"]
    _, document = server.ask("GET", "/openapi.json")
    assert set(answer) == set(document["components"]["schemas"]["Prediction"]["required"])


def test_every_path_that_it_names_is_answered(server: Server) -> None:
    _, document = server.ask("GET", "/openapi.json")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body: Any = {"rows": [ROW]} if method == "post" else None
            status, _ = server.ask(method.upper(), path, body)
            assert str(status) in operation["responses"], (method, path, status)


def test_a_browser_gets_a_page_that_holds_nothing_of_the_model(server: Server) -> None:
    headers = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    status, page, said = server.ask_fully("GET", "/", token=None, headers=headers)
    assert status == 200 and said["content-type"].startswith("text/html")
    assert "Net" not in page and "island" not in page
    policy = said["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"https?://", page)  # nothing is loaded from elsewhere
    assert server.ask("GET", "/", token=None)[0] == 401


def test_the_root_tells_a_form_what_to_ask_for(server: Server) -> None:
    _, about = server.ask("GET", "/")
    assert [column["name"] for column in about["columns"]] == ["age", "island", "children"]
    assert about["columns"][1]["categories"] == ["Biscoe", "Dream"]
    assert msgspec.json.encode(about["example"])
