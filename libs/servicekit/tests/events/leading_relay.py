"""Leads the relay of a database until it is killed: `leading_relay.py <database url> <NATS url>`."""

from __future__ import annotations

import asyncio
import sys

from servicekit.db import Database
from servicekit.events import Bus
from servicekit.events.relay import Relay
from servicekit.settings import ServiceSettings


async def main() -> None:
    settings = ServiceSettings(env="test", database_url=sys.argv[1], nats_url=sys.argv[2])
    bus = Bus(settings)
    await bus.start()
    relay = Relay(Database(settings), bus, "identity", idle_limit_ms=1_500)
    task = asyncio.create_task(relay.run())
    while True:
        await asyncio.sleep(0.01)
        if relay.leads:
            break
    sys.stdout.write("leads\n")
    sys.stdout.flush()
    await task


asyncio.run(main())
