"""A process may end at every step between a commit and its effect elsewhere: each event has one effect, none is lost.

The steps are all that there are: the writer's commit, then those of the relay, then those of the consumer. What ends
at a step leaves its transaction to be rolled back and its connections to be closed, and a process that starts after it
does the rest. The last test kills a real process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from omoios.identity.events.v1.events_pb2 import OrganizationCreated, UserRegistered
from servicekit.db import Tx
from servicekit.events import Consumers, relay
from servicekit.events.loop import ConsumerLoop
from servicekit.events.relay import _MARK, Relay

DYING = Path(__file__).parent / "dying_relay.py"
USERS = ["u-1", "u-2", "u-3"]


class Killed(BaseException):
    """The process ends here."""


def killing(step: str, points: list[str]) -> Callable[[str], None]:
    """A function to call at each step, which ends the process at the given one."""

    def at(here: str) -> None:
        if here == step and not points:
            points.append(here)
            raise Killed

    return at


async def register(party: Any, *, at: Callable[[str], None] = lambda _: None) -> None:
    """State and events of three users, in one commit."""
    async with party.db.uow() as tx:
        connection = await tx.connection()
        for user_id in USERS:
            await connection.execute("INSERT INTO things (id, name) VALUES ($1, $1)", user_id)
            tx.emit(UserRegistered(user_id=user_id), aggregate_id=user_id, version=1)
        tx.on_commit(lambda: at("after the commit"))
        at("before the commit")


def accounts(at: Callable[[str], None] = lambda _: None) -> Consumers:
    """A row and a further event for each user."""
    group = Consumers("accounts")

    @group.on(UserRegistered)
    async def registered(tx: Tx, event: Any) -> None:
        at("after the inbox row")
        await (await tx.connection()).execute(
            "INSERT INTO things (id, name) VALUES ($1, $2)", event.id, event.body.user_id
        )
        tx.emit(OrganizationCreated(organization_id=event.body.user_id), aggregate_id=event.body.user_id, version=1)
        at("before the commit")

    return group


async def ended(work: Any) -> None:
    """Run until the process is killed, which it must be."""
    with pytest.raises(Killed):
        async with asyncio.timeout(20):
            await work


async def told(kit: Any, subject: str) -> list[str]:
    """The aggregates of what the stream has under a subject, each as often as it is there."""
    found = await kit.stored("IDENTITY")
    return sorted(one.headers["Omoios-Aggregate-Id"] for one in found if one.subject == subject)


async def is_empty(party: Any) -> bool:
    return bool(await party.pending() == 0)


async def quiet(kit: Any) -> bool:
    info = await kit.js.consumer_info("IDENTITY", "billing-accounts-identity")
    return bool(info.num_pending == 0 and info.num_ack_pending == 0)


@pytest.mark.parametrize(("step", "written"), [("before the commit", False), ("after the commit", True)])
async def test_a_writer_killed_around_its_commit_leaves_both_or_neither(kit: Any, step: str, written: bool) -> None:
    identity = await kit.party("identity")
    await kit.topology()
    await ended(register(identity, at=killing(step, [])))
    assert len(await identity.fetch("SELECT 1 FROM things")) == (len(USERS) if written else 0)
    async with identity.working():
        await kit.until(lambda: is_empty(identity))
    assert await kit.stored_ids("IDENTITY") == (USERS if written else [])


class Connection:
    """The relay's connection, with a step before and after the mark."""

    def __init__(self, connection: Any, at: Callable[[str], None]) -> None:
        self._connection = connection
        self._at = at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, statement: str, *arguments: Any) -> Any:
        if statement == _MARK:
            self._at("before the mark")
        answer = await self._connection.execute(statement, *arguments)
        if statement == _MARK:
            self._at("after the mark")
        return answer


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("step", ["before the publish", "before its answer", "before the mark", "after the mark"])
async def test_a_relay_killed_at_any_step_loses_and_repeats_nothing(
    kit: Any, monkeypatch: pytest.MonkeyPatch, step: str, batch: int
) -> None:
    identity, billing = await kit.party("identity"), await kit.party("billing")
    billing.groups = [accounts()]
    await kit.topology(billing)
    await register(identity)
    points: list[str] = []
    at = killing(step, points)
    connect, publish = identity.db.connect, relay.publish

    async def connected(*arguments: Any, **options: Any) -> Any:
        return Connection(await connect(*arguments, **options), at)

    async def published(bus: Any, rows: Any) -> list[int]:
        at("before the publish")
        acked = await publish(bus, rows[:batch])
        at("before its answer")
        return acked

    with monkeypatch.context() as patched:
        patched.setattr(identity.db, "connect", connected)
        patched.setattr(relay, "publish", published)
        await ended(Relay(identity.db, identity.bus, "identity").run())
    assert points == [step]
    async with identity.working(), billing.working():
        await kit.until(lambda: is_empty(identity))
        await kit.until(lambda: quiet(kit))
    assert await told(kit, "identity.user.registered.v1") == USERS
    assert sorted(row[0] for row in await billing.fetch("SELECT name FROM things")) == USERS


@pytest.mark.parametrize(
    "step", ["before the inbox row", "after the inbox row", "before the commit", "after the commit", "after one ack"]
)
async def test_a_consumer_killed_at_any_step_has_one_effect(
    kit: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    identity, billing = await kit.party("identity"), await kit.party("billing")
    points: list[str] = []
    at = killing(step, points)
    billing.groups = [accounts(at)]
    await kit.topology(billing, ack_wait_s=0.5)
    await register(identity)
    async with identity.working():
        await kit.until(lambda: is_empty(identity))

    class Loop(ConsumerLoop):
        async def _commit(self, deliveries: Any) -> int:
            at("before the inbox row")
            fresh = await super()._commit(deliveries)
            at("after the commit")
            return fresh

    ack = Msg.ack

    async def acked(message: Msg) -> None:
        await ack(message)
        at("after one ack")

    (source,) = billing.groups[0].sources.values()
    with monkeypatch.context() as patched:
        patched.setattr(Msg, "ack", acked)
        await ended(Loop(billing.bus, billing.db, source, billing.groups[0].durable("billing", source)).run())
    assert points == [step]
    async with billing.working():
        await kit.until(lambda: quiet(kit))
        await kit.until(lambda: is_empty(billing))
    assert sorted(row[0] for row in await billing.fetch("SELECT name FROM things")) == USERS
    assert await told(kit, "identity.organization.created.v1") == USERS


async def test_a_relay_process_killed_between_publish_and_mark_blocks_and_loses_nothing(kit: Any) -> None:
    identity = await kit.party("identity")
    await kit.topology()
    await register(identity)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(DYING), identity.target.url, kit.nats_url, env=os.environ
    )
    assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
    assert await kit.stored_ids("IDENTITY") == USERS
    assert await identity.pending() == len(USERS)
    async with identity.working():
        await kit.until(lambda: is_empty(identity), timeout_s=20)
        async with identity.db.uow() as tx:
            tx.emit(UserRegistered(user_id="next"), aggregate_id="next", version=1)
        await kit.until(lambda: is_empty(identity))
    assert await kit.stored_ids("IDENTITY") == [*USERS, "next"]
