"""The doors of an endpoint, which change while it serves: tokens, the certificate, and whether it is drained."""

from __future__ import annotations

import asyncio
import time

import msgspec

from lepton_jupyter.core.files import signature
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.formats.endpoint import EndpointConfig, EndpointStatus, Token, fingerprint
from lepton_jupyter.serving.app import App
from lepton_jupyter.serving.tls import Certificate

CERTIFICATE_PAUSE_S = 1.0  # between two looks at the certificate's files


class Doors:
    """Follow what is said of them; nothing here waits for a release that is being loaded or tried.

    Parameters
    ----------
    folder : EndpointFolder
    app : App
    config : EndpointConfig
        As it was read first.
    """

    def __init__(self, folder: EndpointFolder, app: App, config: EndpointConfig) -> None:
        self._folder, self._app = folder, app
        self._tokens: tuple[Token, ...] = config.let_in()
        self._seen: tuple[int, int, int] | None = None
        self._published = ""
        self._is_drained = False  # as it was told last
        self._certificate_at = time.monotonic()

    async def look(self, certificate: Certificate | None) -> bool:
        """Look at all of them; return whether anything has changed."""
        has_changed = [self._look_at_tokens(), self._app.drain.look() != self._is_drained]
        if certificate is not None and time.monotonic() - self._certificate_at > CERTIFICATE_PAUSE_S:
            self._certificate_at = time.monotonic()
            if certificate.has_changed():
                await asyncio.to_thread(certificate.renew)
                self.publish(certificate)
                has_changed.append(True)
        return any(has_changed)

    def publish(self, certificate: Certificate | None) -> None:
        """Write down which certificate is shown, for the clients of this machine."""
        if certificate is not None and certificate.leaf != self._published:
            self._published = certificate.leaf
            certificate.publish(self._folder.certificate)

    def told(self, status: EndpointStatus, certificate: Certificate | None) -> EndpointStatus:
        """Return a status with what is true of the doors."""
        self._is_drained = self._app.drain.is_on
        return msgspec.structs.replace(
            status,
            tokens=fingerprint(self._tokens),
            tls=certificate.about if certificate is not None else None,
            is_drained=self._is_drained,
        )

    def _look_at_tokens(self) -> bool:
        try:
            seen = signature(self._folder.config)
            if seen == self._seen:
                return False
            config = msgspec.json.decode(self._folder.config.read_bytes(), type=EndpointConfig)
        except (OSError, msgspec.DecodeError):  # whoever follows releases says so
            return False
        self._seen = seen
        tokens = config.let_in()
        if tokens == self._tokens:
            return False
        self._tokens = tokens
        self._app.gate.let_in(tokens)
        return True
