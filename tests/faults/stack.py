"""One embedded stack for the whole run: its own ports, its own state directory, and the handles that faults need."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg

from omoios_local import control, ports
from omoios_local.client import StackClient
from omoios_local.embedded.process import tail
from omoios_local.ports import SERVICES
from omoios_local.stack import Stack
from omoios_local.state import repository_root
from tests.faults.daemon import OVERLAY

# A lease as short as it may be, so that a dead runner is noticed soon, and tokens that outlive a short run.
SETTINGS = {
    "OMOIOS_TASK_LEASE_S": "10",
    "OMOIOS_SANDBOX_HEARTBEAT_INTERVAL_S": "1",
    "OMOIOS_ACCESS_TOKEN_TTL_S": "3600",
    # What was reserved for an execution that died with its service is given back after this time, by default 120 s, and
    # before that the stack does not rest. Whoever asks again later has it renewed.
    "OMOIOS_RESERVATION_TTL_S": "20",
    # The end of a sandbox is told once more when its token is revoked, as a rule after a minute: the stack would not
    # come to rest for so long. Clients that repeat a completion do so within this time.
    "OMOIOS_REVOKE_AFTER_COMPLETION_S": "5",
    # The load confirms no addresses: what mails must hold has scenarios of its own.
    "OMOIOS_REQUIRE_VERIFIED_EMAIL": "false",
}
DAEMON_START_S = 60.0
CONNECTIONS = """
SELECT application_name AS name, state, count(*)::int AS number,
       max(extract(epoch FROM clock_timestamp() - state_change))::float8 AS since_s,
       (array_agg(query ORDER BY state_change))[1] AS last_query
FROM pg_stat_activity WHERE application_name LIKE '%:%:%' GROUP BY application_name, state
"""


def free_offset() -> int:
    """An offset, never 0, whose every port is free now, further instances included."""
    for candidate in range(5_000 + os.getpid() % 500, 15_000, 517):
        plan = ports.PortPlan(candidate)
        claims = [claim for part in (*ports.FIXED, *ports.HTTP) for claim in plan.claims(part)]
        if all(ports.is_free(claim.port + shift) for claim in claims for shift in (0, ports.SLOT_STEP)):
            return candidate
    raise RuntimeError("no free offset below 15000")


def eventually(check: Callable[[], Any], what: str, within_s: float, pause_s: float = 0.1) -> Any:
    """The first true answer of `check`. Raises AssertionError when the time is over."""
    deadline = time.monotonic() + within_s
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(pause_s)
    return found


class FaultStack:
    """The stack in `directory`, which must lie where PostgreSQL's user can pass through."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.offset = free_offset()
        self.client = StackClient.here(self.offset, {"OMOIOS_STATE_DIR": str(directory / "state")})
        self.started_in_s = 0.0
        """Seconds that the whole stack took to start, by which slow machines are told."""
        self._overlay: dict[str, dict[str, str | None]] = {}

    @property
    def stack(self) -> Stack:
        return self.client.stack()

    @property
    def url(self) -> str:
        return self.stack.environments.public_url

    def start(self) -> None:
        """Start the supervisor with overlays, then everything."""
        self.client.state.create()
        log = self.client.state.logs / "supervisor.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.faults.daemon", str(self.client.state.directory), str(self.offset)],
                env={**os.environ, **SETTINGS, "PYTHONPATH": str(repository_root())},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + DAEMON_START_S
        while not control.answers(self.client.state.socket_path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the supervisor does not answer:\n{tail(log)}")
            time.sleep(0.05)
        began = time.monotonic()
        self.client.up()
        self.started_in_s = time.monotonic() - began

    def restart(self, *parts: str) -> None:
        """Restart parts side by side, the instances of each one after the other; all are ready afterwards."""
        with ThreadPoolExecutor(len(parts)) as pool:
            for answer in [pool.submit(self.client.restart, part) for part in parts]:
                answer.result()

    def end(self) -> None:
        self.client.down()

    def units(self, part: str) -> list[dict[str, Any]]:
        return [unit for unit in self.client.status() if unit["part"] == part]

    def ready(self, part: str) -> bool:
        units = self.units(part)
        return bool(units) and all(unit["state"] == "ready" for unit in units)

    def pids(self, part: str) -> list[int]:
        return [unit["pid"] for unit in self.units(part) if unit.get("pid")]

    def ports(self, service: str) -> list[int]:
        """HTTP ports of the service's instances."""
        return [unit["ports"][0] for unit in self.units(service)]

    def overlay(self, service: str, changes: dict[str, str | None]) -> None:
        """Variables that the service's processes get from their next start on; an empty mapping ends the overlay."""
        self._overlay[service] = changes
        (self.client.state.directory / OVERLAY).write_text(json.dumps(self._overlay))

    def sql(self, database: str, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of a statement, run as superuser."""

        async def run() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self.stack.postgres.superuser_url(database), timeout=10)
            try:
                return [dict(row) for row in await connection.fetch(statement, *values, timeout=30)]
            finally:
                await connection.close()

        return asyncio.run(run())

    def connections(self) -> dict[str, int]:
        """Service → connections to PostgreSQL."""
        found: Counter[str] = Counter()
        for row in self.sql("postgres", CONNECTIONS):
            found[row["name"].partition(":")[0]] += row["number"]
        return {service: found[service] for service in SERVICES}

    def stuck_connections(self) -> list[dict[str, Any]]:
        """Connections that hold a transaction open without working in it."""
        rows = self.sql("postgres", CONNECTIONS)
        return [row for row in rows if (row["state"] or "").startswith("idle in transaction") and row["since_s"] > 5]

    def pending(self, service: str) -> int:
        """Events of a service that are not published."""
        found = self.sql(service, "SELECT count(*)::int AS number FROM outbox WHERE published_at IS NULL")
        return int(found[0]["number"])

    def keep_logs(self, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.client.state.logs, target)
