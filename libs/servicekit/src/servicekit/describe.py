"""Services built without being started, to be read: topology, OpenAPI, access tables, the event catalogue.

Building opens no connection, so the addresses given here lead nowhere. The settings of the caller's environment are set
aside meanwhile: what a service declares must not depend on where it is described.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servicekit.host import Service

SERVICES = ("identity", "workflow", "agents", "monitoring", "billing", "vcs")

_NOWHERE = "127.0.0.1:1"
_ENVIRONMENT = {
    "OMOIOS_ENV": "local",
    "OMOIOS_DATABASE_URL": f"postgresql://none:none@{_NOWHERE}/none",
    "OMOIOS_REDIS_URL": f"redis://{_NOWHERE}/0",
    "OMOIOS_NATS_URL": f"nats://{_NOWHERE}",
    "OMOIOS_RPC_TARGETS": json.dumps(dict.fromkeys(SERVICES, _NOWHERE)),
    "OMOIOS_SERVICE_SECRET": "none",
    # 32 bytes of zeros.
    "OMOIOS_ENVELOPE_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    # A folder that is never made.
    "OMOIOS_DATA_DIR": os.path.join(tempfile.gettempdir(), "omoios-described"),
}


@contextmanager
def _described_environment() -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if name.startswith("OMOIOS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name in _ENVIRONMENT:
            del os.environ[name]
        os.environ.update(before)


def describe(names: Iterable[str] = SERVICES) -> list[Service]:
    """Build those of the named services that are installed; whatever their `main.build` raises comes out."""
    found: list[Service] = []
    with _described_environment():
        for name in names:
            package = f"{name}_service"
            if importlib.util.find_spec(package) is None or importlib.util.find_spec(f"{package}.main") is None:
                continue
            settings = importlib.import_module(f"{package}.settings").Settings()
            found.append(importlib.import_module(f"{package}.main").build(settings))
    return found
