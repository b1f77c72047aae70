"""Commits one batch and dies before the acknowledgement: `crashing_consumer.py <database url> <NATS url>`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from omoios.identity.events.v1.events_pb2 import UserRegistered
from servicekit.db import Database, Tx
from servicekit.events import Bus, Consumers
from servicekit.events.loop import ConsumerLoop
from servicekit.settings import ServiceSettings

group = Consumers("accounts")


@group.on(UserRegistered)
async def registered(tx: Tx, event: Any) -> None:
    await (await tx.connection()).execute("INSERT INTO things (id, name) VALUES ($1, $2)", event.id, event.body.user_id)
    tx.on_commit(lambda: os._exit(7))


async def main() -> None:
    settings = ServiceSettings(env="test", database_url=sys.argv[1], nats_url=sys.argv[2])
    bus = Bus(settings)
    await bus.start()
    source = group.sources["identity"]
    await ConsumerLoop(bus, Database(settings), source, group.durable("billing", source)).run()


asyncio.run(main())
