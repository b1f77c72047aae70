"""A small service that the tests start as a process of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter

from servicekit.auth.access import PUBLIC, AccessTable
from servicekit.host import Job, Service, run
from servicekit.logging import get_logger
from servicekit.settings import ServiceSettings

log = get_logger("process")


def build(settings: ServiceSettings) -> Service:
    router = APIRouter(prefix="/api/v1/process", tags=["process"])

    @router.get("/slow")
    async def slow(s: float) -> str:
        log.info("entered")
        await asyncio.sleep(s)
        return "done"

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        log.info("lifespan entered")
        yield
        log.info("lifespan left")

    async def tick() -> None:
        log.info("tick")

    return Service(
        name="process",
        settings=settings,
        access=AccessTable(operations={"process.slow": PUBLIC}),
        routers=[router],
        jobs=[Job("tick", every_s=0.05, run=tick)],
        lifespans=[lifespan],
    )


if __name__ == "__main__":
    run(build(ServiceSettings()), role="worker" if os.environ.get("ROLE") == "worker" else "server")
