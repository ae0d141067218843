"""What others on the host find of an endpoint: a port of this machine's own, and no secret."""

from __future__ import annotations

import psutil

from tests.serving.graphs import ROW, TOKEN, Server


def test_it_listens_on_the_loopback_only(server: Server) -> None:
    listening = [
        line.laddr
        for line in psutil.Process(server.wait().pid).net_connections("inet")
        if line.status == psutil.CONN_LISTEN
    ]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", server.wait().port)]


def test_a_token_is_in_no_argument_log_or_file(server: Server) -> None:
    assert server.predict(ROW)
    assert server.ask("POST", "/predict", {"rows": [{"age": "x"}]})[0] == 422
    assert server.ask("GET", "/", token="a-wrong-token-for-tests")[0] == 401
    process = psutil.Process(server.wait().pid)
    assert not any(TOKEN in part for part in [*process.cmdline(), *process.environ().values()])
    files = [path for path in server.folder.root.rglob("*") if path.is_file()]
    assert server.folder.log in files and server.folder.config in files
    for path in files:
        content = path.read_bytes()
        assert TOKEN.encode() not in content and b"a-wrong-token" not in content, path
        assert path.stat().st_mode & 0o077 == 0, path
