"""Relays one batch and is killed before it marks it: `dying_relay.py <database url> <NATS url>`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from servicekit.db import Database
from servicekit.events import Bus, relay
from servicekit.events.relay import Relay
from servicekit.settings import ServiceSettings

publish = relay.publish


async def published(bus: Bus, rows: Any) -> list[int]:
    await publish(bus, rows)
    os.kill(os.getpid(), signal.SIGKILL)
    return []


async def main() -> None:
    settings = ServiceSettings(env="test", database_url=sys.argv[1], nats_url=sys.argv[2])
    bus = Bus(settings)
    await bus.start()
    relay.publish = published
    await Relay(Database(settings), bus, "identity").run()


asyncio.run(main())
