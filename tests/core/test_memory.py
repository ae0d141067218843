"""Sizes and limits of memory."""

from __future__ import annotations

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.memory import memory_limit


def test_the_smallest_limit_counts_and_a_setting_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEPTON_MEMORY_LIMIT", raising=False)
    monkeypatch.setenv("MEM_LIMIT", str(2**20))
    assert memory_limit() == 2**20
    monkeypatch.setenv("LEPTON_MEMORY_LIMIT", "1.5G")
    assert memory_limit() == 3 * 2**29
    monkeypatch.setenv("LEPTON_MEMORY_LIMIT", "much")
    with pytest.raises(LeptonError, match="'much' is no size"):
        memory_limit()
