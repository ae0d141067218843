"""What to type to ask an endpoint whose model takes no rows of columns: image files, or arrays."""

from __future__ import annotations

import shlex
from pathlib import Path

from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.formats.views import EndpointView


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
        f'curl -s {view.url}/predict -H "Authorization: Bearer $(cat {shlex.quote(view.token_path)})" '
        f"-H 'Content-Type: image/{kind}' --data-binary {shlex.quote(f'@{picture}')}"
    )


def _for_arrays(view: EndpointView, shape: tuple[int, ...]) -> list[str]:
    sizes = ", ".join(map(str, shape))
    return [
        "import json, urllib.request, numpy as np",
        f"rows = np.zeros((1, {sizes}), np.float32)  # yours: [N, {sizes}], prepared as for training",
        f"token = open({view.token_path!r}).read().strip()",
        'headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}',
        f'url, body = "{view.url}/predict", json.dumps({{"rows": rows.tolist()}}).encode()',
        "print(urllib.request.urlopen(urllib.request.Request(url, body, headers)).read().decode())",
    ]
