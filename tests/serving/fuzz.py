"""Requests that nobody should send: bytes for a socket, drawn from a seed."""

from __future__ import annotations

import gzip
import json
import random
import socket
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.serving.graphs import ROW, TOKEN

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND")
PATHS = (
    "/", "/healthz", "/readyz", "/ping", "/version", "/metrics", "/openapi.json", "/predict", "/invocations", "/v2",
    "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/models/Net", "/v2/models/Net/ready",
    "/v2/models/Net/infer", "/v2/models/diagnosis/versions/1/infer", "/v2/models/Net/stats", "/v2/repository/index",
    "/nothing", "/%00", "/%ff%fe", "/../../etc/passwd", "//predict", "/predict?a=1#b", "*", "/" + "a" * 3000,
)  # fmt: skip
SCORING = ("/predict", "/invocations", "/v2/models/Net/infer")
ANSWER_S = 20
_INPUTS = [
    {"name": "num", "shape": [1, 2], "datatype": "FP64", "data": [ROW["age"], ROW["children"]]},
    {"name": "txt", "shape": [1, 1], "datatype": "BYTES", "data": [ROW["island"]]},
]
_WHOLE = {  # bodies that are answered
    "/predict": json.dumps({"rows": [ROW]}).encode(),
    "/invocations": json.dumps({"dataframe_records": [ROW]}).encode(),
    "/v2/models/Net/infer": json.dumps({"inputs": _INPUTS}).encode(),
}


class Case(NamedTuple):
    """What is sent; whether it may go without an answer (it is cut off, or no HTTP at all)."""

    name: str
    content: bytes
    may_be_silent: bool = False


def cases(seed: int) -> Iterator[Case]:
    """Yield cases without end."""
    draw = random.Random(seed)
    kinds = list(_KINDS.items())
    while True:
        name, make = draw.choice(kinds)
        yield make(draw)._replace(name=name)


def heavy() -> Iterator[Case]:
    """Yield the cases that take a second each: bodies of 64 MiB and one byte, and bombs that unfold beyond it."""
    limit = 64 * 2**20
    body = b'{"rows": [' + b" " * (limit - 9)
    yield Case("one byte too many", head("POST", "/predict", len(body)) + body)
    bomb = gzip.compress(b" " * (4 * limit), 9)
    yield Case("gzip bomb", head("POST", "/predict", len(bomb), "Content-Encoding: gzip") + bomb)
    bomb = zlib.compress(b"[" * (4 * limit), 9)
    yield Case("deflate bomb", head("POST", "/invocations", len(bomb), "Content-Encoding: deflate") + bomb)
    nested = gzip.compress(gzip.compress(b" " * limit, 9), 9)
    yield Case("gzip of gzip", head("POST", "/predict", len(nested), "Content-Encoding: gzip") + nested)


def head(method: str, path: str, length: int | None = None, *more: str, token: str = TOKEN) -> bytes:
    """Return a request's head."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *more]
    if not any(line.lower().startswith("content-type") for line in more):
        lines.append("Content-Type: application/json")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(path: str, body: bytes, *more: str) -> bytes:
    """Return a request with a body."""
    return head("POST", path, len(body), *more) + body


def ask(port: int, case: Case) -> int | None:
    """Send a case and half-close; return the status of the first answer, None where the server just hangs up.

    Raises
    ------
    AssertionError
        If no answer comes, or one that is no HTTP.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as connection:
        said = b""
        try:
            connection.sendall(case.content)
            if case.may_be_silent:
                connection.shutdown(socket.SHUT_WR)
            while b"\r\n\r\n" not in said and (part := connection.recv(2**16)):
                said += part
        except (ConnectionResetError, BrokenPipeError):  # it answered before it had read all, and hung up
            pass
        except TimeoutError:
            assert case.may_be_silent, f"{case.name}: no answer within {ANSWER_S} s to {case.content[:200]!r}"
    if not said:
        return None
    assert said.startswith(b"HTTP/1.1 "), (case.name, said[:200])
    return int(said[9:12])


# -- kinds


def _whole(draw: random.Random, *more: str) -> bytes:
    """Return a request that is answered."""
    path, body = draw.choice(list(_WHOLE.items()))
    return post(path, body, *more)


def _method(draw: random.Random) -> Case:
    path = draw.choice(PATHS)
    method = draw.choice(METHODS)
    return Case("", head(method, path, 0, "Connection: close"), may_be_silent=path == "*")


def _truncated(draw: random.Random) -> Case:
    whole = _whole(draw)
    return Case("", whole[: draw.randrange(1, len(whole))], may_be_silent=True)


def _garbled(draw: random.Random) -> Case:
    whole = bytearray(_whole(draw, "Connection: close"))
    for _ in range(draw.randrange(1, 12)):
        whole[draw.randrange(len(whole))] = draw.randrange(256)
    return Case("", bytes(whole), may_be_silent=True)


def _noise(draw: random.Random) -> Case:
    return Case("", draw.randbytes(draw.randrange(1, 3000)), may_be_silent=True)


def _chunked(draw: random.Random) -> Case:
    body = json.dumps({"rows": [ROW] * draw.randrange(1, 5)}).encode()
    parts, at = [], 0
    while at < len(body):
        size = draw.randrange(1, 60)
        parts.append(b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size]))
        at += size
    ends = (b"0\r\n\r\n", b"", b"0\r\nX: y\r\n\r\n", b"zz\r\n", b"-1\r\n\r\n", b"ffffffffffffffffff\r\n")
    end = draw.choice(ends)
    start = head("POST", "/predict", None, "Transfer-Encoding: chunked")
    return Case("", start + b"".join(parts) + end, may_be_silent=end != ends[0])


def _smuggled(draw: random.Random) -> Case:
    more = draw.choice(
        (("Transfer-Encoding: chunked",), ("Content-Length: 3",), ("Transfer-Encoding: chunked, identity",),
         ("Content-Length: -1",), ("Content-Length: 1e3",), ("Content-Length: 99999999999999999999",))
    )  # fmt: skip
    body = json.dumps(ROW).encode()
    return Case("", head("POST", "/predict", len(body), *more) + body, may_be_silent=True)


def _large_head(draw: random.Random) -> Case:
    n, size = draw.choice(((1, 70_000), (300, 10), (2000, 4000), (1, 300_000)))
    return Case("", head("GET", "/healthz", None, *(f"X-{place}: {'a' * size}" for place in range(n))))


def _odd_header(draw: random.Random) -> Case:
    value = "".join(map(chr, draw.choices(range(128, 256), k=40)))
    name = draw.choice(_HEADERS)
    said = draw.choice((value, "", "gzip;q=abc", "9" * 400, "-1", "1.5", "websocket", "100-continue", "a,b,,c"))
    return Case("", _whole(draw, f"{name}: {said}"), may_be_silent=True)


_HEADERS = (
    "Authorization", "Content-Type", "Content-Encoding", "Accept-Encoding", "X-Request-Id", "Accept", "Expect",
    "Inference-Header-Content-Length", "Connection", "Upgrade",
)  # fmt: skip


def _squeezed(draw: random.Random) -> Case:
    path, body = draw.choice(list(_WHOLE.items()))
    body = draw.choice((gzip.compress, zlib.compress))(body)
    damaged = bytearray(body)
    if draw.random() < 0.7:
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    cut = bytes(damaged[: draw.randrange(1, len(damaged) + 1)])
    coding = draw.choice(("gzip", "deflate", "br", "zstd", "gzip, gzip", "identity"))
    return Case("", post(path, draw.choice((body, cut)), f"Content-Encoding: {coding}"))


def _deep(draw: random.Random) -> Case:
    depth = draw.choice((120, 1000, 20_000))
    opening = draw.choice(('{"rows":', "[", '{"inputs":[', '{"columns":{"age":'))
    closing = "".join({"{": "}", "[": "]"}[mark] for mark in reversed(opening) if mark in "{[")
    body = (opening * depth + "1" + draw.choice((closing, "")) * depth).encode()
    return Case("", post(draw.choice(SCORING), body))


_ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, "", "\0", "a\0b", "\u2400missing", "NaN", [], {}, [None],
    {"a": {}}, "x" * 5000, "\U0001f600", "2024-01-01", "9999999-99-99",
)  # fmt: skip


def _odd_rows(draw: random.Random) -> Case:
    row: dict[str, Any] = dict(ROW)
    for name in draw.sample(list(ROW), draw.choice((0, 1, 1, 2))):
        row[name] = draw.choice(_ODD_VALUES)
    if draw.random() < 0.2:
        row[draw.choice(("", "\0", "age", "nothing", "patient", "x" * 3000))] = draw.choice(_ODD_VALUES)
    columns = {key: [value] for key, value in row.items()}
    split = {"columns": list(row), "data": [list(row.values())]}
    forms: dict[str, tuple[Any, ...]] = {
        "/predict": (row, [row], {"rows": [row]}, {"rows": row}, {"columns": row}, {"columns": columns}, [row, ROW]),
        "/invocations": (
            {"instances": [row]}, {"inputs": row}, {"inputs": columns}, {"dataframe_records": [row, ROW]},
            {"dataframe_split": split}, {"dataframe_split": {**split, "columns": list(row) * 2}},
        ),
    }  # fmt: skip
    path = draw.choice(list(forms))
    return Case("", post(path, json.dumps(draw.choice(forms[path])).encode()))


def _words(draw: random.Random) -> Case:
    path, body = draw.choice(list(_WHOLE.items()))
    word = draw.choice((b"NaN", b"Infinity", b"-Infinity", b"1e999", b"nan", b"0x1", b"-0", b"5e-324", b"1e308"))
    return Case("", post(path, body.replace(b"50.0", word)))


def _tensors(draw: random.Random) -> Case:
    """One thing is wrong with a body that fits, or two."""
    document = json.loads(_WHOLE["/v2/models/Net/infer"])
    raw = b""
    for _ in range(draw.choice((0, 1, 1, 1, 2))):
        one = draw.choice(document["inputs"])
        key = draw.choice(("name", "datatype", "shape", "data", "binary", "outputs"))
        if key == "outputs":
            document["outputs"] = draw.choice(([{"name": "prediction"}], [{"name": "x"}], [1], "prediction", []))
        elif key == "binary":
            one.pop("data", None)
            one["parameters"] = {"binary_data_size": draw.choice((0, 8, 16, -8, 2**70, "8", 1.5, None))}
            raw = draw.randbytes(draw.choice((0, 1, 8, 16, 17, 4096)))
        else:
            one[key] = draw.choice(_ODD_TENSORS[key])
    body = json.dumps(document).encode()
    length = draw.choice((len(body),) * 6 + (0, len(body) - 1, len(body) + len(raw) + 1))
    return Case("", post("/v2/models/Net/infer", body + raw, f"Inference-Header-Content-Length: {length}"))


_ODD_TENSORS: dict[str, tuple[Any, ...]] = {
    "name": ("num", "txt", "age", "\0", "", 1),
    "datatype": ("FP64", "FP32", "BYTES", "INT64", "BOOL", "FP16", "UINT8", "COMPLEX", "", None),
    "shape": ([1, 2], [1, 1], [1], [], [-1, 2], [2**62, 4], [2**63], [0, 2], [1, 2, 1], [0, 2**60], "1,2"),
    "data": ([1.0, 2.0], ["a"], [[1, 2]], [[1], [2, 3]], [None, None], [], [2**70, 1], [True, False], ["\0"], {}),
}


def _tables(draw: random.Random) -> Case:
    body = draw.choice(
        ("age,island,children\n50,Dream,2\n", "age\n", "", "\0", "age,age\n1,2\n", 'age,"island\n1,2,3', "a" * 200_000,
         "age,island,children\n1,Dream\n", "age,island,children\n" + "1,Dream,x\n" * 60, "\n\n\n", ",,,\n,,,\n")
    )  # fmt: skip
    return Case("", post(draw.choice(SCORING[:2]), body.encode(), "Content-Type: text/csv"))


def _pipelined(draw: random.Random) -> Case:
    one = _whole(draw)
    others = [one, head("GET", draw.choice(PATHS[:10])), post("/predict", b"{"), draw.randbytes(30)]
    return Case("", one + b"".join(draw.choices(others, k=draw.randrange(1, 6))))


_KINDS: dict[str, Callable[[random.Random], Case]] = {
    "method": _method, "truncated": _truncated, "garbled": _garbled, "noise": _noise, "chunked": _chunked,
    "smuggled": _smuggled, "large head": _large_head, "odd header": _odd_header, "squeezed": _squeezed, "deep": _deep,
    "odd rows": _odd_rows, "words": _words, "tensors": _tensors, "tables": _tables, "pipelined": _pipelined,
}  # fmt: skip
