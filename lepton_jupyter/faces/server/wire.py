"""HTTP from the Jupyter server's loop: to the backend's socket, and to endpoints on this machine."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_jupyter.client.trust import verify

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0


class Wire:
    """Clients, made when they are first wanted: no proxy of the environment, no cookies, no pool that runs dry.

    Parameters
    ----------
    socket : Path
        The backend's.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._backend: httpx.AsyncClient | None = None
        self._local: dict[str, httpx.AsyncClient] = {}  # by the certificate that is trusted

    async def backend(self) -> httpx.AsyncClient:
        """Return the client of the backend; its base is ``http://backend``."""
        if self._backend is None:
            httpx = await asyncio.to_thread(importlib.import_module, "httpx")  # 0.2 s that the loop does not wait
            transport = httpx.AsyncHTTPTransport(uds=str(self.socket), limits=httpx.Limits(max_connections=None))
            self._backend = httpx.AsyncClient(
                transport=transport, base_url="http://backend", trust_env=False, timeout=self._timeout(httpx)
            )
        return self._backend

    async def local(self, certificate: str = "") -> httpx.AsyncClient:
        """Return the client of what is on this machine: of plain HTTP, or of who shows this certificate (PEM)."""
        if certificate not in self._local:
            httpx = await asyncio.to_thread(importlib.import_module, "httpx")
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
            self._local[certificate] = httpx.AsyncClient(
                trust_env=False, limits=limits, timeout=self._timeout(httpx), verify=verify(certificate)
            )
        return self._local[certificate]

    @staticmethod
    def _timeout(httpx: object) -> object:
        """Return the time-outs: whoever asked waits as long as he likes, but not for a door that is shut."""
        return httpx.Timeout(None, connect=CONNECT_S)  # type: ignore[attr-defined]  # loaded by name

    async def close(self) -> None:
        """Close them."""
        for client in (self._backend, *self._local.values()):
            if client is not None:
                await client.aclose()
