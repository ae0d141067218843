"""``GET /openapi.json``: every route of an endpoint, with the rows that its model takes and gives (OpenAPI 3.1)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from lepton_jupyter.formats.schema import SENTINEL, Column, ColumnKind, Schema
from lepton_jupyter.formats.values import MAX_TEXT
from lepton_jupyter.serving.inference import DATATYPES, LABEL_TYPES
from lepton_jupyter.serving.release import Release
from lepton_jupyter.serving.tokens import needed

Record = dict[str, Any]

_VALUES: dict[ColumnKind, Record] = {
    "number": {"type": ["number", "null"]},
    "integer": {"type": ["integer", "null"]},
    "boolean": {"enum": [True, False, 0, 1, None]},
    "datetime": {
        "oneOf": [{"type": ["number", "null"]}, {"type": "string", "format": "date-time"}],
        "description": "Seconds since 1970, UTC, or a date and time as text.",
    },
    "string": {"type": ["string", "null"], "not": {"const": SENTINEL}},
    "text": {"type": ["string", "null"], "not": {"const": SENTINEL}, "maxLength": MAX_TEXT},
}
_LABELS: dict[ColumnKind, Record] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "datetime": {"type": "string"},
    "text": {"type": "string"},
}
REFUSALS = {
    400: "The body is broken: no JSON, CSV or Arrow, or a tensor that is not what it says.",
    401: "The token is missing or wrong.",
    403: "The token is known, and has not the scope that is wanted.",
    404: "There is no such model or version here.",
    408: "The body did not come in time.",
    413: "The body is too large, or has too many rows.",
    415: "The body is of a type or coding that is not taken.",
    422: "The rows do not fit the schema; `faults` names row and column.",
    429: "Too many requests wait already.",
    500: "The endpoint failed; its log has the reason.",
    503: "The endpoint is starting, or too much is under way.",
    504: "The rows were not scored in time.",
}
_FILES: Record = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/jpeg", "image/png")}
_KEY = "While there is a canary, requests of the same key are answered by the same version."
_ID = {"request_id": {"type": "string"}}


def describe(release: Release, name: str) -> Record:
    """Return the document for a release; `name` is what the endpoint is called."""
    schema, config = release.schema, release.config
    row = _row(schema)
    rows: Record = {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}
    infer = f"/v2/models/{name}/infer"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": config.version,
            "description": f"{config.version}, served by lepton_jupyter {version('lepton_jupyter')}.",
        },
        "security": [{"token": []}],
        "paths": _scoped({
            "/predict": {"post": _scoring("predict", "Score rows.", _predict_bodies(schema, rows), "Predictions")},
            "/invocations": {
                "post": _scoring(
                    "invocations", "Score rows as MLflow's clients send them.", _mlflow(schema, rows), "Predictions"
                )
            },
            infer: {
                "post": _scoring(
                    "infer",
                    "Open Inference Protocol, version 2; tensors may follow as bytes (binary tensor extension).",
                    {"application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}},
                    "InferResponse",
                    error="V2Error",
                )
            },
            f"/v2/models/{name}": {
                "get": _telling("metadata", "Inputs and outputs.", {"type": "object"}, error="V2Error")
            },
            f"/v2/models/{name}/ready": {
                "get": _telling("modelReady", "Whether it answers.", _flag("ready"), 503, error="V2Error")
            },
            f"/v2/models/{name}/stats": {"get": _telling("modelStats", "Counts.", {"type": "object"}, error="V2Error")},
            "/v2": {"get": _telling("server", "Name, version and extensions.", {"type": "object"}, error="V2Error")},
            "/v2/health/live": {"get": _telling("live", "Whether the process lives.", _flag("live"), error="V2Error")},
            "/v2/health/ready": {"get": _telling("ready", "Whether it answers.", _flag("ready"), 503, error="V2Error")},
            "/v2/models/stats": {"get": _telling("stats", "Counts.", {"type": "object"}, error="V2Error")},
            "/v2/repository/index": {
                "post": _telling("index", "The models that are served.", {"type": "array"}, error="V2Error")
            },
            "/metrics": {"get": _telling("metrics", "Prometheus' text format.", None)},
            "/healthz": {"get": _telling("healthz", "Whether the process lives.", _flag("live"), is_open=True)},
            "/readyz": {"get": _telling("readyz", "Whether it answers.", _flag("ready"), 503, is_open=True)},
            "/ping": {"get": _telling("ping", "As /readyz.", _flag("ready"), 503, is_open=True)},
            "/admin/drain": {"post": _telling("drain", "Say 503 when asked for readiness.", _flag("drained"))},
            "/admin/resume": {"post": _telling("resume", "Say 200 again.", _flag("drained"))},
        }),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Row": row,
                "Prediction": _prediction(schema),
                "Predictions": _answer(
                    {
                        "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
                        "model": {"type": "string"},
                        "version": {"type": "string"},
                    }
                ),
                "InferRequest": _infer_request(schema),
                "InferResponse": _infer_response(schema),
                "Error": _error(
                    {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}}
                ),
                "V2Error": _error({"type": "string"}),
            },
        },
    }  # fmt: skip


def _scoped(paths: dict[str, Record]) -> dict[str, Record]:
    """Return the paths, each with the scopes of which a token must have one."""
    for path, operations in paths.items():
        for operation in operations.values():
            operation.setdefault("security", [{"token": [scope]} for scope in sorted(needed(path))])
    return paths


# -- rows


def _value(column: Column) -> Record:
    about = dict(_VALUES[column.kind])
    seen: Record = {}
    if column.categories:
        seen["categories"] = list(column.categories)
    if column.minimum is not None:
        seen["minimum"], seen["maximum"] = column.minimum, column.maximum
    return about | ({"x-seen-in-training": seen} if seen else {})


def _row(schema: Schema) -> Record:
    if schema.image is not None:
        return _image_row(schema)
    if schema.tensor_shape is not None:
        value: Record = {"type": "number"}
        for size in reversed(schema.tensor_shape):
            value = {"type": "array", "items": value, "minItems": size, "maxItems": size}
        return value
    columns = {column.name: _value(column) for column in schema.columns}
    passed_over: dict[str, Record] = {name: {} for name in schema.dropped if name not in columns}
    if schema.id_column is not None:
        passed_over[schema.id_column] = {"type": ["string", "number", "boolean", "null"]}
    return {
        "type": "object",
        "required": list(columns),
        "properties": columns | passed_over,
        "additionalProperties": False,
        "example": dict(schema.example),
    }


def _image_row(schema: Schema) -> Record:
    about = f"A JPEG or PNG file in base64; the model sees {schema.image}."
    image = {"type": "string", "contentEncoding": "base64", "description": about}
    passed_over: dict[str, Record] = {name: {} for name in schema.dropped}
    passed_over[str(schema.id_column)] = {"type": ["string", "number", "boolean", "null"]}
    return {
        "type": "object",
        "required": ["image"],
        "properties": {**passed_over, "image": image},
        "additionalProperties": False,
        "example": dict(schema.example),
    }


def _columns(schema: Schema) -> Record:
    properties = {column.name: {"type": "array", "items": _value(column)} for column in schema.columns}
    return {"type": "object", "required": list(properties), "properties": properties, "minProperties": 1}


def _prediction(schema: Schema) -> Record:
    fields: Record = {}
    if schema.id_column is not None:
        fields[schema.id_column] = {}
    if schema.task == "regression":
        names = [f"prediction_{target}" for target in schema.targets] if len(schema.targets) > 1 else ["prediction"]
        needed = {name: {"type": ["number", "null"]} for name in names}
    else:
        share = {"type": ["number", "null"]}
        needed = {"prediction": _LABELS[schema.class_kind]} | {
            f"probability_{label}": share for label in schema.classes
        }
    return {
        "type": "object",
        "required": list(needed),
        "properties": fields | needed,
        "additionalProperties": False,
    }


# -- bodies


def _predict_bodies(schema: Schema, rows: Record) -> Record:
    forms: list[Record] = [
        rows,
        {"type": "object", "required": ["rows"], "properties": {"rows": rows}, "maxProperties": 1},
    ]
    if schema.image is not None:
        row = {"$ref": "#/components/schemas/Row"}
        bodies: Record = {"schema": {"anyOf": [row, *forms]}, "example": {"rows": [dict(schema.example)]}}
        return {"application/json": bodies} | _FILES
    if schema.tensor_shape is not None:
        return {"application/json": {"schema": {"anyOf": forms}}}
    table = {"type": "object", "required": ["columns"], "properties": {"columns": _columns(schema)}, "maxProperties": 1}
    forms = [{"$ref": "#/components/schemas/Row"}, *forms, table]
    return {"application/json": {"schema": {"anyOf": forms}, "example": {"rows": [dict(schema.example)]}}}


def _mlflow(schema: Schema, rows: Record) -> Record:
    is_array = schema.tensor_shape is not None and schema.image is None
    forms = ["instances", "inputs"] if is_array else ["dataframe_records", "instances"]
    properties = dict.fromkeys(forms, rows)
    return {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": properties,
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
            }
        }
    }


def _infer_request(schema: Schema) -> Record:
    tensor: Record = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"enum": list(DATATYPES)},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
    }
    names = ["prediction"] if schema.task == "regression" else ["prediction", "probability"]
    wanted = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"enum": names}, "parameters": {"type": "object"}},
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {"type": "array", "items": wanted},
            "parameters": {"type": "object"},
        },
    }  # fmt: skip


def _infer_response(schema: Schema) -> Record:
    kinds = ["FP64"] if schema.task == "regression" else [LABEL_TYPES.get(schema.class_kind, "BYTES"), "FP32"]
    output: Record = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"enum": kinds},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
    }
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": output},
        },
    }


# -- operations


def _flag(name: str) -> Record:
    return {"type": "object", "required": [name], "properties": {name: {"type": "boolean"}}}


def _answer(properties: Record) -> Record:
    return {"type": "object", "required": [*properties, *_ID], "properties": properties | _ID}


def _error(error: Record) -> Record:
    faults = {"type": "array", "items": {"type": "object", "required": ["message"]}}
    return {"type": "object", "required": ["error"], "properties": {"error": error, "faults": faults, **_ID}}


def _refusals(statuses: dict[int, str], error: str) -> Record:
    body = {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}}
    return {str(status): {"description": said, "content": body} for status, said in statuses.items()}


def _scoring(name: str, summary: str, bodies: Record, answer: str, *, error: str = "Error") -> Record:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [{"name": "X-Lepton-Key", "in": "header", "schema": {"type": "string"}, "description": _KEY}],
        "requestBody": {"required": True, "content": bodies},
        "responses": {
            "200": {
                "description": "The rows' predictions, in their order.",
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}},
            }
        }
        | _refusals(REFUSALS, error),
    }


def _telling(
    name: str, summary: str, answer: Record | None, *more: int, is_open: bool = False, error: str = "Error"
) -> Record:
    content = (
        {"application/json": {"schema": answer}}
        if answer is not None
        else {"text/plain": {"schema": {"type": "string"}}}
    )
    responses: Record = {"200": {"description": summary, "content": content}}
    for status in more:
        responses[str(status)] = {"description": REFUSALS[status], "content": content}
    statuses = {500: REFUSALS[500]} if is_open else {status: REFUSALS[status] for status in (401, 403, 404, 500, 503)}
    told = {
        "operationId": name,
        "summary": summary,
        "responses": _refusals({key: said for key, said in statuses.items() if key not in more}, error) | responses,
    }
    return told | ({"security": []} if is_open else {})
