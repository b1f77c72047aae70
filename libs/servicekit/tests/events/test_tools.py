"""The operators' tools tell in a line what is wrong with what they were given."""

from __future__ import annotations

from typing import Any

import pytest

from servicekit.events import tail


@pytest.mark.parametrize("subject", ["workflow..x", ">>"])
def test_odd_subjects_are_told(
    nats_server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], subject: str
) -> None:
    monkeypatch.setenv("OMOIOS_NATS_URL", nats_server.url)
    assert tail.main([subject]) == 2
    assert capsys.readouterr().err.strip() == f"not subjects of NATS: {subject}"
