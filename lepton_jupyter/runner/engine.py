"""papermill's way in: ``engine_name="lepton"``.

Kept light, and free of papermill: papermill loads every engine's module while it is itself half imported.
"""

from __future__ import annotations

from typing import Any


class LeptonEngine:
    """Execute a notebook in a kernel that somebody else started, and keep its cells' statuses true.

    Without ``km`` it starts a kernel as papermill's own engine does.
    """

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str | None, **kwargs: Any) -> Any:
        """Execute the notebook; see `lepton_jupyter.runner.execution.execute`."""
        from lepton_jupyter.runner.execution import execute

        return execute(nb, kernel_name=kernel_name, **kwargs)

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """Return the kernel that the notebook names; a notebook without one is Python's."""
        return str(name or nb.metadata.get("kernelspec", {}).get("name") or "python3")

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """Return the notebook's language, by which papermill writes parameters."""
        about = nb.metadata.get("kernelspec", {}).get("language") or nb.metadata.get("language_info", {}).get("name")
        return str(language or about or "python")
