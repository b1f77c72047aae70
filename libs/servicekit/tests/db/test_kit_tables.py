"""What the kit keeps in every database: idempotency keys, resources, versions, and how old rows go."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from servicekit import context
from servicekit.clock import utc_now
from servicekit.context import IdempotencyClaim
from servicekit.db import Base, Database, idempotency, resources
from servicekit.db.purge import first_id_of, purge_idempotency_keys, purge_inbox, purge_outbox
from servicekit.db.versions import update_versioned
from servicekit.errors import AppError
from servicekit.ids import uuid7


class Item(Base):
    __tablename__ = "items"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int] = mapped_column(BigInteger, default=1)


def claim(key: str = "k", digest: bytes = b"d") -> IdempotencyClaim:
    return IdempotencyClaim("user:1", key, digest, 201, lambda value: json.dumps(value).encode())


async def write(db: Database, made: IdempotencyClaim, *, answer: Any = None, error: Exception | None = None) -> None:
    token = context.idempotency_claim.set(made)
    try:
        async with db.uow() as tx:
            await (await tx.connection()).execute("INSERT INTO things (id, name) VALUES ($1, $1)", made.key)
            if answer is not None:
                tx.result(answer)
            if error is not None:
                raise error
    finally:
        context.idempotency_claim.reset(token)


async def code_of(awaitable: Any) -> str:
    with pytest.raises(AppError) as raised:
        await awaitable
    return raised.value.code


async def test_the_answer_of_a_key_is_stored_with_its_write(db: Database) -> None:
    assert await idempotency.lookup(db, claim()) is None
    made = claim()
    await write(db, made, answer={"id": 1})
    assert made.stored
    assert await idempotency.lookup(db, claim()) == idempotency.StoredAnswer(201, b'{"id": 1}')
    assert await code_of(idempotency.lookup(db, claim(digest=b"other"))) == "idempotency.key_reused"
    assert await code_of(write(db, claim())) == "idempotency.in_flight"
    assert await code_of(write(db, claim(digest=b"other"))) == "idempotency.key_reused"


async def test_a_rolled_back_write_leaves_its_key_free(db: Database) -> None:
    made = claim()
    with pytest.raises(ValueError, match="no"):
        await write(db, made, answer={}, error=ValueError("no"))
    assert not made.locked
    assert not made.stored
    assert await idempotency.lookup(db, claim()) is None
    await write(db, claim(), answer={"id": 2})


async def test_a_second_request_with_a_running_key_is_refused_at_once(db: Database) -> None:
    began, finish = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        context.idempotency_claim.set(claim())
        async with db.uow() as tx:
            began.set()
            await finish.wait()
            tx.result({})

    running = asyncio.create_task(first())
    await began.wait()
    # Whoever waited for the first would wait for ever.
    async with asyncio.timeout(20):
        assert await code_of(write(db, claim())) == "idempotency.in_flight"
    finish.set()
    await running
    stored = await idempotency.lookup(db, claim())
    assert stored is not None


async def test_of_sixteen_requests_with_one_key_one_writes(db: Database) -> None:
    outcomes = await asyncio.gather(*(write(db, claim(), answer={}) for _ in range(16)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert {outcome.code for outcome in outcomes if isinstance(outcome, AppError)} == {"idempotency.in_flight"}


async def test_a_claim_without_an_answer_is_completed_released_or_taken_over(db: Database) -> None:
    made = claim()
    await write(db, made)
    assert made.locked
    assert not made.stored
    assert await code_of(idempotency.lookup(db, claim())) == "idempotency.in_flight"
    await idempotency.complete(db, made, 200, b"late")
    assert await idempotency.lookup(db, claim()) == idempotency.StoredAnswer(200, b"late")

    await write(db, claim("released"))
    await idempotency.release(db, claim("released"))
    assert await idempotency.lookup(db, claim("released")) is None

    await write(db, claim("abandoned"))
    raw = await db.connect("test")
    await raw.execute("UPDATE idempotency_keys SET claimed_at = now() - interval '61 seconds'")
    await raw.execute("DELETE FROM things")
    await raw.close()
    assert await idempotency.lookup(db, claim("abandoned")) is None
    await write(db, claim("abandoned"), answer={})


async def test_old_rows_are_purged_and_young_ones_stay(db: Database) -> None:
    raw = await db.connect("test")
    await raw.execute(
        """INSERT INTO outbox (event_id, subject, aggregate_type, aggregate_id, version, occurred_at, payload,
               published_at)
           SELECT gen_random_uuid(), 's', 'a', n::text, 1, now(), '',
               CASE WHEN n <= 6000 THEN now() - interval '9 days' WHEN n <= 6002 THEN now() ELSE NULL END
           FROM generate_series(1, 6003) AS n"""
    )
    # An event that waited long, in the outbox or for its consumer, may come again as late as a young one.
    await raw.execute(
        """INSERT INTO inbox (event_id, consumer, handled_at)
           VALUES ($1, 'a', $2), ($1, 'b', $2), ($1, 'waited', now()), ($3, 'a', now())""",
        first_id_of(utc_now() - timedelta(days=30)),
        utc_now() - timedelta(days=16, minutes=1),
        uuid7(),
    )
    await raw.execute(
        """INSERT INTO idempotency_keys (scope, key, digest, claimed_at)
           VALUES ('s', 'old', '', now() - interval '25 hours'), ('s', 'young', '', now() - interval '23 hours')"""
    )
    assert await purge_outbox(db, 8) == 6000
    assert await purge_inbox(db, 16) == 2
    assert [row["consumer"] for row in await raw.fetch("SELECT consumer FROM inbox ORDER BY 1")] == ["a", "waited"]
    assert await purge_idempotency_keys(db) == 1
    assert await purge_outbox(db, 8) == 0
    assert await raw.fetchval("SELECT count(*) FROM outbox") == 3
    await raw.close()


def test_the_first_id_of_a_moment_separates_ids() -> None:
    before = first_id_of(utc_now() - timedelta(milliseconds=2))
    made = uuid7()
    assert before < made < first_id_of(utc_now() + timedelta(milliseconds=2))


async def test_the_last_fact_of_a_resource_wins(db: Database) -> None:
    async with db.uow() as tx:
        raw = await tx.connection()
        await resources.remember(
            raw, [("task", "1", "org-a", None), ("task", "1", "org-b", "p"), ("x", "1", "o", None)]
        )
        await resources.remember(raw, [("task", "1", "org-b", None)])
        await resources.remember(raw, [])
        assert await resources.organizations_of(raw, "task", ["1", "2"]) == {"1": "org-b"}
        assert await raw.fetchval("SELECT parent_id FROM replica_resources WHERE resource_type = 'task'") == "p"


async def test_a_writer_with_an_old_version_is_refused(db: Database) -> None:
    async with db.uow() as tx:
        tx.session.add(Item(id="1", name="a"))
    async with db.uow() as tx:
        assert await update_versioned(tx, Item, Item.id == "1", expected_version=1, values={"name": "b"}) == 2
        assert await update_versioned(tx, Item, Item.id == "1", expected_version=None, values={"name": "c"}) == 3

    async def stale(version: int, item_id: str) -> None:
        async with db.uow() as tx:
            await update_versioned(tx, Item, Item.id == item_id, expected_version=version, values={"name": "x"})

    assert await code_of(stale(2, "1")) == "database.stale_version"
    assert await code_of(stale(1, "absent")) == "database.stale_version"
