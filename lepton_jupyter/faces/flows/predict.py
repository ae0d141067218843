"""``predict``: rows scored by a version without a server, or by an endpoint over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.load import version_bundle
from lepton_jupyter.faces.flows.meaning import find_version, kinds_of, newest_run
from lepton_jupyter.formats.views import EndpointView
from lepton_jupyter.stages.deploy.spec import Predict

ROWS_A_REQUEST = 5_000  # well below the endpoint's limits of rows and bytes
TIMEOUT_S = 120.0


def predict(asker: Asker, spec: Predict, objects: Mapping[str, Any]) -> Any:
    """Score rows and return a table: id if there is one, prediction, probabilities; with --to write it too."""
    from lepton_jupyter.stages.deploy.scoring import frame_of_rows, predict_frame, write_table

    if spec.to is not None:
        _check_target(spec.to)
    rows = objects["rows"] if "rows" in objects else _rows(asker, spec.rows)
    kind = _kind(asker, spec.model)
    if kind == "endpoint":
        table = ask_endpoint(asker.client.endpoint(parse(spec.model).name), rows)
    else:
        version = find_version(asker, spec.model)
        table = predict_frame(version_bundle(version), frame_of_rows(rows))
    if spec.to is not None:
        write_table(table, Path(spec.to).expanduser())
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


def _check_target(path: str) -> None:
    known = (".parquet", ".csv", ".jsonl")
    if Path(path).suffix.lower() not in known:
        raise LeptonError(
            f"--to '{path}' is no kind of table. Known: {', '.join(known)}.", "Name a file of one of these."
        )
    if not Path(path).expanduser().absolute().parent.is_dir():
        raise LeptonError(f"There is no folder '{Path(path).parent}' for --to '{path}'.", "Make it first.")


def _rows(asker: Asker, text: str) -> Any:
    """Return the rows that a word means: a variable of the notebook, else a path."""
    is_name = asker.has_variables and text.isidentifier() and text in asker.namespace
    if is_name and Path(text).exists():
        raise LeptonError(f"'{text}' is a variable and a path here.", f"Write ./{text} for the path, or rename one.")
    return asker.namespace[text] if is_name else Path(text).expanduser()


def ask_endpoint(view: EndpointView, rows: Any) -> Any:
    """Score rows by an endpoint over HTTP.

    Raises
    ------
    LeptonError
        If it does not serve, refuses a row, or answers nonsense.
    """
    import httpx
    import polars as pl

    from lepton_jupyter.stages.deploy.scoring import frame_of_rows

    if view.state not in ("ready", "updating"):
        reason = f": {view.error.message}" if view.error else ""
        raise LeptonError(
            f"Endpoint '{view.name}' is {view.state}{reason}.", f"Look: %lepton logs endpoint/{view.name}",
            code="unavailable",
        )  # fmt: skip
    frame = frame_of_rows(rows)
    parts = []
    headers = {"Authorization": f"Bearer {Path(view.token_path).read_text().strip()}"}
    with httpx.Client(base_url=view.url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as line:
        for start in range(0, max(frame.height, 1), ROWS_A_REQUEST):
            parts.append(_one_request(line, view, frame.slice(start, ROWS_A_REQUEST), start))
    tables = [pl.DataFrame(part, infer_schema_length=None) for part in parts]
    return pl.concat(tables, how="vertical_relaxed") if len(tables) > 1 else tables[0]


def _one_request(line: Any, view: EndpointView, frame: Any, start: int) -> Any:
    import httpx

    body = b'{"columns":' + _columns(frame) + b"}"
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
    return _table_of(answer.json())


def _columns(frame: Any) -> bytes:
    """Return a frame's columns as JSON. Dates travel as ISO text, NaN and null as null."""
    import orjson

    def plain(value: Any) -> Any:
        return str(value)

    columns = {name: frame[name].to_list() for name in frame.columns}
    return orjson.dumps(columns, default=plain)


def _table_of(answer: dict[str, Any]) -> Any:
    for key in ("columns", "predictions"):
        if isinstance(answer.get(key), (dict, list)):
            return answer[key]
    return answer


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
