"""A token of an endpoint: its name, its scopes, its file; never the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.asking import curl_to
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.faces.objects.when import clock
from lepton_jupyter.formats.views import EndpointView, TokenView


class Token(Shown):
    """Who may ask an endpoint, and for what."""

    def __init__(self, view: TokenView, endpoint: str, at: EndpointView) -> None:
        self.view = view
        self.endpoint = endpoint
        self._at = at

    @property
    def name(self) -> str:
        """The token's name; every endpoint has ``owner``."""
        return self.view.name

    @property
    def scopes(self) -> tuple[str, ...]:
        """Of ``infer``, ``read``, ``admin``."""
        return self.view.scopes

    @property
    def path(self) -> Path | None:
        """The file that holds it, readable by its owner only; None for one that was replaced and ends."""
        return Path(self.view.path) if self.view.path else None

    @property
    def ends_at(self) -> float | None:
        """Until when it is let in, seconds since 1970, UTC; None: until it is revoked."""
        return self.view.ends_at

    @property
    def curl(self) -> str:
        """A line for a shell that asks for something that it may."""
        path = "/metrics" if self.scopes == ("read",) else "/openapi.json"
        return curl_to(self._at, path, self.view.path)

    def _pairs(self) -> list[tuple[str, Any]]:
        return [
            ("scopes", ", ".join(self.scopes)),
            ("file", self.view.path),
            ("made", clock(self.view.made_at)),
            ("by", self.view.who),
            ("until", clock(self.ends_at) if self.ends_at else None),
        ]

    def _line(self) -> str:
        return f"token {self.name} of {self.endpoint} · {', '.join(self.scopes)}"

    def _text(self) -> str:
        pairs = [f"  {key}: {value}" for key, value in self._pairs() if value]
        return "\n".join([self._line(), *pairs, *([f"  {self.curl}"] if self.path else [])])

    def _html(self) -> str:
        return html.card(
            f"token {self.name} of {self.endpoint}",
            html.facts(self._pairs()),
            html.lines([self.curl] if self.path else [], is_code=True),
        )
