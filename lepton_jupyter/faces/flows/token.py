"""``token``: who is let in by an endpoint. Tokens are shown nowhere: they go to files, and files have paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.deploy import who
from lepton_jupyter.faces.objects.table import Table
from lepton_jupyter.faces.objects.token import Token
from lepton_jupyter.faces.objects.when import clock
from lepton_jupyter.formats.views import TokenRequest, TokenView
from lepton_jupyter.stages.deploy.spec import Token as Spec


def token(asker: Asker, spec: Spec, objects: Mapping[str, Any]) -> Token | Table[Token]:
    """Return an endpoint's tokens; with a name the one that was made or replaced, or those left by a revoked one."""
    endpoint = parse(spec.endpoint, "endpoint").name
    is_about_one = spec.scope or spec.replace or spec.revoke or spec.grace is not None
    if spec.name is None:
        if is_about_one:
            raise LeptonError(
                "token needs --name: which token is it about?",
                f"For instance: {asker.type_next(f'token {endpoint} --name shop --scope infer')}",
            )
        return _table(asker, endpoint, asker.client.tokens(endpoint))
    if spec.revoke:
        if spec.scope or spec.replace or spec.grace is not None:
            raise LeptonError("--revoke ends a token: it goes with no other flag than --name.")
        left = asker.client.revoke_token(endpoint, spec.name, who=who())
        asker.say(f"The token '{spec.name}' of {endpoint} is let in no more.")
        return _table(asker, endpoint, left)
    if spec.grace is not None and not spec.replace:
        raise LeptonError("--grace is for the token that --replace replaces.", "Say --replace too, or leave it out.")
    request = TokenRequest(
        name=spec.name, scopes=spec.scope, is_replacing=spec.replace, grace_s=spec.grace or 0.0, who=who()
    )
    view = asker.client.make_token(endpoint, request)
    return Token(view, endpoint, asker.client.endpoint(endpoint))


def _table(asker: Asker, endpoint: str, views: list[TokenView]) -> Table[Token]:
    at = asker.client.endpoint(endpoint)
    return Table(
        f"tokens of {endpoint}",
        [Token(view, endpoint, at) for view in views],
        columns=("token", "scopes", "made", "by", "until", "file"),
        rows=[
            (each.name, ", ".join(each.scopes), clock(each.made_at), each.who, clock(each.ends_at), each.path)
            for each in views
        ],
    )
