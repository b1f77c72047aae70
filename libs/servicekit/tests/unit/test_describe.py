"""A service is described by its own composition root, in an environment that says nothing of where it is described."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from servicekit.describe import describe

MAIN = """
from servicekit.auth import AccessTable
from servicekit.host import Service

def build(settings):
    if settings.database_url is None or settings.envelope_key is None:
        raise ValueError("settings are missing")
    return Service(name="planted", settings=settings, access=AccessTable())
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "planted_service"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text("from servicekit.settings import ServiceSettings as Settings\n")
    (package / "main.py").write_text(MAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("planted_service")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("planted")
def test_a_service_is_built_apart_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOIOS_PUBLIC_URL", "http://elsewhere")
    before = dict(os.environ)
    [service] = describe(["planted"])
    assert service.name == "planted"
    assert service.settings.public_url != "http://elsewhere"
    assert set(service.settings.rpc_targets) == {"identity", "workflow", "agents", "monitoring", "billing", "vcs"}
    assert dict(os.environ) == before


def test_services_that_are_not_installed_are_left_out() -> None:
    assert describe(["nothing_of_this_name"]) == []
