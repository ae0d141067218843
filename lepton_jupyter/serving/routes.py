"""Where an endpoint answers, by which method, and how its metrics name it."""

from __future__ import annotations

import re

V2_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer|/stats)?\Z")
ROUTES = {
    "/": "GET",
    "/healthz": "GET",
    "/readyz": "GET",
    "/metrics": "GET",
    "/openapi.json": "GET",
    "/predict": "POST",
    "/invocations": "POST",
    "/ping": "GET",
    "/version": "GET",
    "/v2": "GET",
    "/v2/health/live": "GET",
    "/v2/health/ready": "GET",
    "/v2/models/stats": "GET",
    "/v2/repository/index": "POST",
    "/admin/drain": "POST",
    "/admin/resume": "POST",
}
OPEN = ("/healthz", "/readyz", "/ping")


def route_of(path: str) -> str:
    """Return the path as a metric names it: of a bounded number."""
    if path in ROUTES:
        return path
    model = V2_MODEL.match(path)
    if model is not None:
        return f"/v2/models/NAME{model[3] or ''}"
    return "/v2/other" if path.startswith("/v2/") else "other"
