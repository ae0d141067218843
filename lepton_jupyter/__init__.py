"""The whole life of a model, inside the notebook where it was born."""

from __future__ import annotations

__version__ = "0.1.0"
