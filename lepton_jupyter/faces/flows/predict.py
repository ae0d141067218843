"""``predict``: rows scored by a version without a server, or by an endpoint over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.load import open_version
from lepton_jupyter.faces.flows.meaning import find_version, kinds_of, newest_run
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.formats.schema import ImageInput, Schema
from lepton_jupyter.formats.views import EndpointView
from lepton_jupyter.stages.deploy.spec import Predict

ROWS_A_REQUEST = 5_000  # well below the endpoint's limits of rows and bytes
TIMEOUT_S = 120.0


def predict(asker: Asker, spec: Predict, objects: Mapping[str, Any]) -> Any:
    """Score rows and return a table: id if there is one, prediction, probabilities; with --to write it too."""
    from lepton_jupyter.stages.deploy.scoring import check_table_path, write_table

    to = Path(spec.to).expanduser().absolute() if spec.to is not None else None
    if to is not None:
        check_table_path(to)
    rows = objects["rows"] if "rows" in objects else rows_of(asker, spec.rows)
    if _kind(asker, spec.model) == "endpoint":
        table = ask_endpoint(asker, asker.client.endpoint(parse(spec.model).name), rows)
    else:
        table = open_version(find_version(asker, spec.model)).predict(rows)
    if to is not None:
        write_table(table, to)
        asker.say(f"{table.height} rows written to {spec.to}")
    return table


def _kind(asker: Asker, text: str) -> str:
    ref = parse(text)
    if ref.kind in ("model", "run") or not ref.is_latest or ref.split:
        return "model"
    if ref.kind is None:
        running = newest_run(asker, ref.name)
        if running is not None and running.state not in ENDED and not _is_endpoint(asker, ref.name):
            return "model"
        if ref.may_be_run and not _is_endpoint(asker, ref.name):
            return "model"
    return kinds_of(asker, text, ("model", "endpoint"))[0]


def _is_endpoint(asker: Asker, name: str) -> bool:
    return any(view.name == name for view in asker.client.endpoints())


def rows_of(asker: Asker, text: str) -> Any:
    """Return the rows that a word means: a variable of the notebook, else a path."""
    is_name = asker.has_variables and text.isidentifier() and text in asker.namespace
    if is_name and Path(text).exists():
        raise LeptonError(f"'{text}' is a variable and a path here.", f"Write ./{text} for the path, or rename one.")
    return asker.namespace[text] if is_name else Path(text).expanduser()


def ask_endpoint(asker: Asker, view: EndpointView, rows: Any) -> Any:
    """Score rows by an endpoint over HTTP.

    Raises
    ------
    LeptonError
        If it does not serve, refuses a row, or cannot be reached.
    """
    import httpx
    import polars as pl

    from lepton_jupyter.client.trust import certificate_of, verify

    if view.state not in ("ready", "updating"):
        reason = f": {view.error.message}" if view.error else ""
        look = f"Look: {asker.type_next(f'logs endpoint/{view.name}')}"
        again = f"Serve it again: {asker.type_next(f'deploy {view.version} --as {view.name}')}"
        raise LeptonError(
            f"Endpoint '{view.name}' is {view.state}{reason}.",
            again if view.state == "stopped" else look,
            code="unavailable",
        )
    headers = {"Authorization": f"Bearer {Path(view.token_path).read_text().strip()}"}
    found: list[dict[str, Any]] = []
    trusted = verify(certificate_of(view.url, Path(view.certificate_path)))
    with httpx.Client(base_url=view.url, headers=headers, timeout=TIMEOUT_S, trust_env=False, verify=trusted) as line:
        schema = open_bundle(asker.home.bundles / view.run_id).schema
        for start, body in _bodies(schema, rows):
            found += _one_request(line, view, body, start=start, id_column=schema.id_column)
    return pl.DataFrame(found, infer_schema_length=None)


def _bodies(schema: Schema, rows: Any) -> Iterator[tuple[int, bytes]]:
    """Yield requests' bodies with the number of their first row. Dates travel as ISO text, NaN as null."""
    import orjson

    from lepton_jupyter.stages.data.reading import array_of

    if schema.image is not None and array_of(rows) is None:
        yield from _bodies_of_pictures(schema.image, rows)
        return
    if schema.tensor_shape is not None:
        values = rows.tolist() if hasattr(rows, "tolist") else list(rows)
        for start in range(0, max(len(values), 1), ROWS_A_REQUEST):
            yield start, orjson.dumps({"rows": values[start : start + ROWS_A_REQUEST]})
        return
    from lepton_jupyter.stages.deploy.scoring import frame_of_rows

    frame = frame_of_rows(rows, schema=schema)
    for start in range(0, max(frame.height, 1), ROWS_A_REQUEST):
        part = frame.slice(start, ROWS_A_REQUEST)
        columns = {name: part[name].to_list() for name in part.columns}
        yield start, orjson.dumps({"columns": columns}, default=str)


def _bodies_of_pictures(image: ImageInput, rows: Any) -> Iterator[tuple[int, bytes]]:
    import base64

    import orjson

    from lepton_jupyter.stages.deploy.picture_rows import listed, pieces

    found = listed(rows)
    for start, contents in pieces(found, image):
        columns: dict[str, list[Any]] = {"image": [base64.b64encode(content).decode() for content in contents]}
        if found.names is not None:
            columns["path"] = found.names[start : start + len(contents)]
        yield start, orjson.dumps({"columns": columns})


def _one_request(
    line: Any, view: EndpointView, body: bytes, *, start: int, id_column: str | None
) -> list[dict[str, Any]]:
    import httpx

    try:
        answer = line.post("/predict", content=body, headers={"Content-Type": "application/json"})
    except httpx.HTTPError as error:
        raise LeptonError(
            f"Endpoint '{view.name}' at {view.url} does not answer: {error}.",
            f"Look: %lepton logs endpoint/{view.name}",
            code="unavailable",
        ) from error
    if answer.status_code != 200:
        raise _refused(view, answer, start)
    said = answer.json()
    return _with_row_ids(said["predictions"], said["request_id"], id_column)


def _with_row_ids(rows: list[dict[str, Any]], request_id: str, id_column: str | None) -> list[dict[str, Any]]:
    """Return rows with what the request log calls them, where they brought no id of their own."""
    if id_column is not None and any(row.get(id_column) is not None for row in rows):
        return rows
    return [{"row_id": f"{request_id}/{index}", **row} for index, row in enumerate(rows)]


def _refused(view: EndpointView, answer: Any, start: int) -> LeptonError:
    try:
        said = answer.json().get("error", {})
    except ValueError:
        said = {}
    message = said.get("message") if isinstance(said, dict) else str(said)
    where = f" (rows from {start} on)" if start else ""
    return LeptonError(
        f"Endpoint '{view.name}' refused the rows with {answer.status_code}{where}: {message or answer.text[:300]}",
        said.get("hint", "") if isinstance(said, dict) else "",
        detail=said.get("detail", "") if isinstance(said, dict) else "",
    )
