"""Publishing outbox rows so that JetStream either has them or says why not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from nats.errors import Error as NatsError
from nats.js.errors import APIError

from servicekit.events import metrics
from servicekit.events.bus import Bus, acknowledged
from servicekit.events.envelope import headers_of

MAX_BATCH = 500
MAX_BATCH_BYTES = 8 * 1024 * 1024
BATCH_ID = "Nats-Batch-Id"
BATCH_SEQUENCE = "Nats-Batch-Sequence"
BATCH_COMMIT = "Nats-Batch-Commit"

# Both together stay below the relay's idle limit of 5 s, within which its leader connection must speak.
BATCH_TIMEOUT_S = 2.0
SINGLE_TIMEOUT_S = 2.0

Row = Mapping[str, Any]


async def publish(bus: Bus, rows: Sequence[Row]) -> list[int]:
    """Publish rows of one stream in their order; return the sequence numbers that JetStream acknowledged.

    Several rows go as one atomic batch. JetStream refuses a whole batch when it knows one id of it already; then, and
    when no answer came, the rows go one by one and a duplicate counts as acknowledged.
    """
    if len(rows) > 1:
        try:
            await _atomically(bus, rows)
        except (APIError, NatsError, TimeoutError):
            metrics.relay_rejected_batches.inc()
        else:
            return [row["seq"] for row in rows]
    return await _singly(bus, rows)


async def _atomically(bus: Bus, rows: Sequence[Row]) -> None:
    client = bus.client
    batch = uuid4().hex
    last = len(rows)
    for number, row in enumerate(rows, start=1):
        headers = headers_of(row)
        headers[BATCH_ID] = batch
        headers[BATCH_SEQUENCE] = str(number)
        if number < last:
            await client.publish(row["subject"], row["payload"], headers=headers)
            continue
        headers[BATCH_COMMIT] = "1"
        reply = await client.request(row["subject"], row["payload"], timeout=BATCH_TIMEOUT_S, headers=headers)
        acknowledged(reply)


async def _singly(bus: Bus, rows: Sequence[Row]) -> list[int]:
    """Send all rows, then gather the answers: NATS keeps the order of one connection."""
    client = bus.client
    outcomes = await asyncio.gather(
        *(
            client.request(row["subject"], row["payload"], timeout=SINGLE_TIMEOUT_S, headers=headers_of(row))
            for row in rows
        ),
        return_exceptions=True,
    )
    acked: list[int] = []
    failure: BaseException | None = None
    for row, outcome in zip(rows, outcomes, strict=True):
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            if acknowledged(outcome).get("duplicate"):
                metrics.relay_duplicates.inc()
            acked.append(row["seq"])
        except (APIError, NatsError, TimeoutError, ConnectionError) as error:
            failure = failure or error
    if failure is not None and not acked:
        raise failure
    return acked
