"""What `status` shows besides processes: memory, outbox age, consumer lag, dead letters, disk use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
import psutil
from nats.errors import Error as NatsError
from nats.js.api import ConsumerInfo
from nats.js.errors import NotFoundError

from omoios_local.client import StackClient
from omoios_local.ports import SERVICES
from omoios_local.stack import OPERATOR_USER, Stack

DEAD_LETTER_STREAM = "DLQ"
FIGURES = """
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(occurred_at)), 0)::float8
FROM outbox WHERE published_at IS NULL
"""
# What the stream dropped before a durable had handled it; the second figure is whether the outbox is younger than that,
# by more than a row is marked late.
UNREAD = """
SELECT coalesce(json_agg(json_build_object('durable', durable,
    'since_s', round(extract(epoch FROM clock_timestamp() - lost_from)),
    'may_be_lost', coalesce((SELECT published_at FROM outbox ORDER BY seq LIMIT 1) > lost_from + interval '125 s', true)
    ) ORDER BY durable), '[]')
FROM stream_readers WHERE lost_from IS NOT NULL
"""


@dataclass(frozen=True)
class Figures:
    """Everything that `status` knows beyond the supervisor. A part that does not answer leaves its figure empty."""

    outbox: dict[str, dict[str, Any]]
    """Service → `{pending: rows, oldest_s: seconds, bytes: size of the database, unread: […]}` or `{error: why}`.

    `unread`: `{durable, since_s: seconds, may_be_lost}` of each durable for which the stream dropped events that it had
    not handled; `may_be_lost` where the outbox does not reach back as far."""
    consumers: list[dict[str, Any]]
    """`{stream, durable, pending: messages not yet delivered, unacknowledged, redelivered, idle_s}` of every durable.

    `idle_s`: seconds since it acknowledged last, or since it was made when it never has."""
    dead_letters: int | None
    disk: dict[str, int]
    """Folder of the state directory → bytes."""
    volume: dict[str, int]
    """`{free_bytes, total_bytes}` of the file system below the state directory."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "outbox": self.outbox,
            "consumers": self.consumers,
            "dead_letters": self.dead_letters,
            "disk_bytes": self.disk,
            "volume": self.volume,
        }


def add_process_figures(units: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add memory (proportional set size of the process and its children, bytes), age in seconds, and CPU seconds."""
    for unit in units:
        pid = unit.get("pid")
        unit["pss_bytes"] = unit["cpu_s"] = None
        if pid is None:
            continue
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
            unit["pss_bytes"] = sum(pss(member) for member in family)
            unit["cpu_s"] = round(sum(sum(member.cpu_times()[:2]) for member in family), 1)
            if process.status() == psutil.STATUS_STOPPED:
                unit["state"] = "suspended"
    return units


def pss(process: psutil.Process) -> int:
    """Bytes; where the kernel does not tell the proportional set size, the resident one."""
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.uss))
    except psutil.Error:
        return 0


def collect(client: StackClient) -> Figures:
    """Ask PostgreSQL, NATS and the file system. Never raises for a part that is down."""
    stack = client.stack()
    with ThreadPoolExecutor(len(SERVICES) + 1) as pool:
        outboxes = {name: pool.submit(outbox_of, stack, name) for name in SERVICES}
        disk = pool.submit(disk_use, client.state.directory)
        consumers, dead_letters = asyncio.run(stream_figures(stack))
        volume = shutil.disk_usage(client.state.directory)
        return Figures(
            {name: found.result() for name, found in outboxes.items()},
            consumers,
            dead_letters,
            disk.result(),
            {"free_bytes": volume.free, "total_bytes": volume.total},
        )


def outbox_of(stack: Stack, service: str) -> dict[str, Any]:
    try:
        size = int(stack.postgres.execute("SELECT pg_database_size(current_database())", service))
        if stack.postgres.execute("SELECT to_regclass('public.outbox') IS NOT NULL", service) != "t":
            return {"pending": 0, "oldest_s": 0.0, "bytes": size, "unread": []}
        pending, oldest = stack.postgres.execute(FIGURES, service).split("|")
        # A database that waits for its newest migration has no such note yet.
        noted = stack.postgres.execute("SELECT to_regclass('public.stream_readers') IS NOT NULL", service) == "t"
        unread = json.loads(stack.postgres.execute(UNREAD, service)) if noted else []
        return {"pending": int(pending), "oldest_s": round(float(oldest), 3), "bytes": size, "unread": unread}
    except RuntimeError as error:
        return {"error": str(error).splitlines()[0]}


async def _ignore_error(_: Exception) -> None:
    return


async def stream_figures(stack: Stack) -> tuple[list[dict[str, Any]], int | None]:
    """Lag of every durable and the number of dead letters (None when NATS does not answer or has no such stream)."""
    server = stack.nats()
    if not server.ready():
        return [], None
    try:
        connection = await nats.connect(
            server.url,
            user=OPERATOR_USER,
            password=stack.credentials.nats(OPERATOR_USER),
            allow_reconnect=False,
            connect_timeout=2,
            error_cb=_ignore_error,
        )
    except (NatsError, OSError):
        return [], None
    try:
        manager = connection.jsm(timeout=2)
        durables: list[dict[str, Any]] = []
        dead_letters: int | None = None
        for stream in await manager.streams_info():
            name = stream.config.name or ""
            if name == DEAD_LETTER_STREAM:
                dead_letters = stream.state.messages
            durables += [
                {
                    "stream": name,
                    "durable": consumer.name,
                    "pending": consumer.num_pending,
                    "unacknowledged": consumer.num_ack_pending,
                    "redelivered": consumer.num_redelivered,
                    "idle_s": _idle_s(consumer),
                }
                for consumer in await manager.consumers_info(name)
            ]
        return durables, dead_letters
    except (NatsError, NotFoundError, OSError):
        return [], None
    finally:
        await connection.close()


def _idle_s(consumer: ConsumerInfo) -> float:
    last = (consumer.ack_floor and consumer.ack_floor.last_active) or consumer.created
    return round((datetime.now(UTC) - last).total_seconds(), 1)


def disk_use(directory: Path) -> dict[str, int]:
    """Bytes on disk of each folder below the state directory."""
    found: dict[str, int] = {}
    for folder in sorted(path for path in directory.iterdir() if path.is_dir() and not path.is_symlink()):
        total = 0
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                # Blocks count 512 bytes each; sparse and preallocated files differ from their nominal size.
                total += status.st_blocks * 512
        found[folder.name] = total
    return found
