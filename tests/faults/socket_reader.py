"""A client of the public WebSocket that comes back whenever it is cut off, and goes on where it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.faults.history import Frame
from tests.faults.tenant import Tenant

if TYPE_CHECKING:
    from tests.faults.load import Load

PAUSE_S = 0.5


async def read_socket(load: Load, tenant: Tenant) -> None:
    """Read frames for ever."""
    connection = 0
    while True:
        connection += 1
        query = {"token": tenant.token}
        if tenant.last_sequence is not None:
            query["after"] = str(tenant.last_sequence)
        address = f"{load.url.replace('http', 'ws', 1)}/api/v1/ws/events?{urlencode(query)}"
        with contextlib.suppress(OSError, TimeoutError, WebSocketException):
            async with connect(address, open_timeout=10, close_timeout=1, max_size=4 * 1024**2, proxy=None) as socket:
                async for text in socket:
                    _note(load, tenant, connection, json.loads(text))
        await asyncio.sleep(PAUSE_S)


def _note(load: Load, tenant: Tenant, connection: int, frame: dict[str, object]) -> None:
    sequence = frame.get("sequence")
    if not isinstance(sequence, int) or "event_type" not in frame:
        return
    tenant.last_sequence = sequence
    load.history.frames.append(
        Frame(
            tenant.name,
            connection,
            sequence,
            str(frame["event_type"]),
            str(frame.get("entity_type", "")),
            str(frame.get("entity_id", "")),
        )
    )
