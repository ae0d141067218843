"""What to type to ask an endpoint: by curl, and where its model takes no rows of columns, image files or arrays."""

from __future__ import annotations

import shlex
from pathlib import Path

from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.formats.views import EndpointView


def curl_to(view: EndpointView, path: str, token_path: str) -> str:
    """Return the words with which curl asks an endpoint of this machine; TLS trusts the certificate that it shows.

    curl compares names: where the certificate is for others than the address, it is asked by one of those.
    """
    found, address = view.certificate, f"{view.url}{path}"
    trust = ""
    if found is not None:
        trust = f"--cacert {shlex.quote(view.certificate_path)} "
        host = view.url.removeprefix("https://").rpartition(":")[0]
        names = [name.replace("*", "endpoint", 1) for name in found.names]
        if host.strip("[]") not in found.names and names:
            trust += f"--connect-to ::{host}:{view.port} "
            address = f"https://{names[0]}:{view.port}{path}"
    return f'curl -s {trust}{address} -H "Authorization: Bearer $(cat {shlex.quote(token_path)})"'


def lines_for(view: EndpointView, schema: Schema, picture: Path | None) -> list[str]:
    """Return lines for a shell (images) or for Python (arrays) that ask an endpoint; none for rows of columns.

    Parameters
    ----------
    picture : Path or None
        A file that is there.
    """
    if schema.image is not None:
        return [_for_a_file(view, picture or Path("picture.png"))]
    if schema.tensor_shape is not None:
        return _for_arrays(view, schema.tensor_shape)
    return []


def _for_a_file(view: EndpointView, picture: Path) -> str:
    kind = "png" if picture.suffix.lower() == ".png" else "jpeg"
    return (
        f"{curl_to(view, '/predict', view.token_path)} "
        f"-H 'Content-Type: image/{kind}' --data-binary {shlex.quote(f'@{picture}')}"
    )


def _for_arrays(view: EndpointView, shape: tuple[int, ...]) -> list[str]:
    sizes = ", ".join(map(str, shape))
    trust, how = [], ""
    if view.certificate is not None:
        how = ", context=trust"
        trust = [
            f"trust = ssl.create_default_context(cafile={view.certificate_path!r})  # this certificate alone",
            "trust.check_hostname, trust.verify_flags = False, trust.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN",
        ]
    return [
        f"import json, {'ssl, ' if trust else ''}urllib.request, numpy as np",
        f"rows = np.zeros((1, {sizes}), np.float32)  # yours: [N, {sizes}], prepared as for training",
        f"token = open({view.token_path!r}).read().strip()",
        'headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}',
        f'url, body = "{view.url}/predict", json.dumps({{"rows": rows.tolist()}}).encode()',
        *trust,
        f"print(urllib.request.urlopen(urllib.request.Request(url, body, headers){how}).read().decode())",
    ]
