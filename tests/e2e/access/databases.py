"""The services' databases, to look into and to bring rows into states that no public operation brings about."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg

from omoios_local.environment import Environments


class Databases:
    """One connection per service, opened when it is first asked for."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments
        self._loop = asyncio.new_event_loop()
        self._connections: dict[str, asyncpg.Connection[Any]] = {}

    def rows(self, service: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """What a statement returns."""
        if service not in self._connections:
            url = Path(self._environments.service(service)["OMOIOS_DATABASE_URL_FILE"]).read_text(encoding="utf-8")
            self._connections[service] = self._loop.run_until_complete(asyncpg.connect(url.strip()))
        found: list[asyncpg.Record] = self._loop.run_until_complete(
            self._connections[service].fetch(statement, *arguments)
        )
        return found

    def close(self) -> None:
        """Close what was opened."""
        for connection in self._connections.values():
            self._loop.run_until_complete(connection.close())
        self._loop.close()
