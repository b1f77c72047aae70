"""`python -m servicekit.events.rebuild <service>`: build a service's projections anew.

Pages through the owners' snapshot RPCs (identity's memberships and revocations, and the service's own replicas) and has
the outbox published again where its stream is younger than what was published. Runs with the service's own environment,
beside its running instances; what events brought in the meantime is newer and stays.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from nats.js.errors import NotFoundError

from servicekit.errors import AppError
from servicekit.events.bus import Bus
from servicekit.events.relay import CLOCK_MARGIN, unpublish

if TYPE_CHECKING:
    from servicekit.db import Database
    from servicekit.host import Service
    from servicekit.rpc import RpcChannels


def sources_of(service: Service) -> list[tuple[str, Callable[[], Awaitable[int]]]]:
    """Return name and function of each projection that can be built anew."""
    found: list[tuple[str, Callable[[], Awaitable[int]]]] = []
    if service.name != "identity" and service.channels is not None and "identity" in service.settings.rpc_targets:
        from servicekit.auth.identity import IdentityClient
        from servicekit.auth.replica import rebuild

        client = IdentityClient(cast("RpcChannels", service.channels).channel("identity"))
        database = cast("Database", service.db)
        found.append(("access", lambda: rebuild(database, client.membership_snapshot, client.revocation_snapshot)))
    found += [(source.name, source.rebuild) for source in service.replicas]
    return found


async def replay_outbox(service: Service, bus: Bus) -> int:
    """Have events published again that the service's stream is too young to have; return how many."""
    await bus.wait_connected(10)
    try:
        created = (await bus.js.stream_info(service.name.upper())).created
    except NotFoundError:
        raise RuntimeError(f"stream {service.name.upper()} does not exist; apply the topology first") from None
    if created is None:
        return 0
    connection = await cast("Database", service.db).connect("rebuild")
    try:
        return await unpublish(connection, created + CLOCK_MARGIN)
    finally:
        await connection.close()


@asynccontextmanager
async def _opened(service: Service) -> AsyncIterator[Bus]:
    async with AsyncExitStack() as stack:
        bus = Bus(service.settings)
        parts: list[Any] = [service.channels, service.resources, bus]
        if service.db is not None:
            stack.push_async_callback(service.db.close)
        for part in parts:
            if part is not None:
                stack.push_async_callback(part.close)
                await part.start()
        yield bus


async def run(service: Service, only: list[str]) -> None:
    """Build anew what `only` names, or everything. Raises ValueError for a name that the service does not have."""
    async with _opened(service) as bus:
        sources = sources_of(service)
        known = [*(name for name, _ in sources), "outbox"]
        if unknown := [name for name in only if name not in known]:
            raise ValueError(f"{service.name} has no {', '.join(unknown)}; it has {', '.join(known)}")
        for name, rebuild in sources:
            if not only or name in only:
                print(f"{service.name}: {name}: {await rebuild()} rows", flush=True)
        if not only or "outbox" in only:
            print(f"{service.name}: outbox: {await replay_outbox(service, bus)} events go out again", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the process' exit code."""
    parser = argparse.ArgumentParser(prog="python -m servicekit.events.rebuild", description=__doc__)
    parser.add_argument("service")
    parser.add_argument("only", nargs="*", help="names of projections, or outbox; all by default")
    options = parser.parse_args(arguments)
    package = f"{options.service}_service"
    settings = importlib.import_module(f"{package}.settings").Settings()
    service = importlib.import_module(f"{package}.main").build(settings)
    try:
        asyncio.run(run(service, options.only))
    except (AppError, OSError, RuntimeError, TimeoutError, ValueError) as error:
        print(f"{options.service} is not built anew: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
