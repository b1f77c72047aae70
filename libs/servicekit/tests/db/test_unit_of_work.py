"""The unit of work: one commit or none, one connection, nothing remote inside."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from sqlalchemy import Text, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from omoios.identity.events.v1.events_pb2 import OrganizationCreated, UserRegistered
from servicekit import context, telemetry
from servicekit.db import Base, Database, Tx
from servicekit.db.inserts import insert_new
from servicekit.db.tables import OutboxRow
from servicekit.errors import AppError, Kind
from servicekit.testing.postgres import TestDatabase


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)


async def names(db: Database) -> list[str]:
    async with db.reader() as tx:
        return list((await tx.session.scalars(select(Thing.name).order_by(Thing.name))).all())


async def test_a_clean_exit_commits_session_and_raw_statements_together(db: Database) -> None:
    async with db.uow() as tx:
        raw = await tx.connection()
        await raw.execute("INSERT INTO things (id, name) VALUES ('1', 'raw')")
        tx.session.add(Thing(id="2", name="orm"))
        other = await db.connect("observer")
        assert await other.fetchval("SELECT count(*) FROM things") == 0
    assert await other.fetchval("SELECT count(*) FROM things") == 2
    await other.close()
    assert await names(db) == ["orm", "raw"]


async def test_the_raw_connection_sees_what_the_session_has_not_flushed(db: Database) -> None:
    async with db.uow() as tx:
        tx.session.add(Thing(id="1", name="first"))
        assert await (await tx.connection()).fetchval("SELECT name FROM things") == "first"


async def test_new_rows_are_objects_of_the_session_in_their_order(db: Database) -> None:
    async with db.uow() as tx:
        made = await insert_new(tx, Thing, [{"id": str(number), "name": f"n{number}"} for number in (3, 1, 2)])
        assert [(item.id, item.name, item.version) for item in made] == [("3", "n3", 1), ("1", "n1", 1), ("2", "n2", 1)]
        # A change of one is written, and reading it again gives the same object.
        made[1].name = "changed"
        assert await tx.session.get(Thing, "1") is made[1]
    assert await names(db) == ["changed", "n2", "n3"]
    async with db.uow() as tx:
        assert await insert_new(tx, Thing, []) == []
        with pytest.raises(asyncpg.UniqueViolationError):
            await insert_new(tx, Thing, [{"id": "1", "name": "again"}])
    assert await names(db) == ["changed", "n2", "n3"]


async def test_an_exception_rolls_everything_back_and_comes_out_unchanged(db: Database) -> None:
    ran: list[str] = []
    with pytest.raises(ValueError, match="no"):
        async with db.uow() as tx:
            await (await tx.connection()).execute("INSERT INTO things (id, name) VALUES ('1', 'raw')")
            tx.session.add(Thing(id="2", name="orm"))
            tx.emit(UserRegistered(user_id="u"), aggregate_id="u")
            tx.on_commit(lambda: ran.append("committed"))
            raise ValueError("no")
    async with db.reader() as tx:
        assert await tx.session.scalar(select(func.count()).select_from(OutboxRow)) == 0
    assert await names(db) == []
    assert ran == []


async def test_a_commit_that_fails_raises_and_leaves_nothing(db: Database) -> None:
    ran: list[str] = []

    async def use_case() -> str:
        async with db.uow() as tx:
            # The unique constraint is deferred: PostgreSQL refuses at COMMIT, not before.
            await tx.session.execute(insert(Thing), [{"id": "1", "name": "same"}, {"id": "2", "name": "same"}])
            tx.emit(UserRegistered(user_id="u"), aggregate_id="u")
            tx.on_commit(lambda: ran.append("committed"))
        return "success"

    with pytest.raises(IntegrityError):
        await use_case()
    assert await names(db) == []
    assert ran == []
    async with db.reader() as tx:
        assert await tx.session.scalar(select(func.count()).select_from(OutboxRow)) == 0


async def test_a_connection_lost_before_the_commit_is_unavailable(db: Database, kit_database: TestDatabase) -> None:
    with pytest.raises(AppError) as raised:
        async with db.uow() as tx:
            tx.session.add(Thing(id="1", name="lost"))
            await tx.session.flush()
            pid = await tx.session.scalar(text("SELECT pg_backend_pid()"))
            killer = await db.connect("killer")
            await killer.execute("SELECT pg_terminate_backend($1)", pid)
            await killer.close()
    assert raised.value.kind is Kind.UNAVAILABLE
    assert raised.value.retry_after_s == 1
    assert await names(db) == []


async def test_closed_connections_of_the_pool_are_replaced_without_an_error(db: Database) -> None:
    await db.ping()
    killer = await db.connect("killer")
    await killer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> $1",
        killer.get_server_pid(),
    )
    await killer.close()
    await asyncio.sleep(0.05)
    assert await names(db) == []


async def test_commits_last_after_somebody_was_cancelled_while_a_transaction_began(
    kit_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has begun, the caller is gone: the pool's only connection must not carry that transaction on."""
    execute = asyncpg.Connection.execute

    async def cancelled_after_begin(self: asyncpg.Connection, query: str, *arguments: object, **options: object) -> str:
        status = await execute(self, query, *arguments, **options)
        if query.startswith("BEGIN"):
            raise asyncio.CancelledError
        return status

    async with kit_database.opened(database_pool_size=1) as db:
        assert await names(db) == []
        with monkeypatch.context() as patch:
            patch.setattr(asyncpg.Connection, "execute", cancelled_after_begin)
            with pytest.raises(asyncio.CancelledError):
                async with db.uow() as tx:
                    await tx.connection()
        observer = await db.connect("observer")
        open_query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        )
        async with asyncio.timeout(10):
            while await observer.fetchval(open_query):  # noqa: ASYNC110 - the server tells nobody when it has closed.
                await asyncio.sleep(0.05)
        async with db.uow() as tx:
            await (await tx.connection()).execute("INSERT INTO things (id, name) VALUES ('1', 'kept')")
        assert await observer.fetchval("SELECT count(*) FROM things") == 1
        await observer.close()


async def test_no_database_is_unavailable() -> None:
    nowhere = TestDatabase("x", "x", "postgresql://x:x@127.0.0.1:1/x")
    async with nowhere.opened() as db:
        for scope in (db.uow, db.reader):
            with pytest.raises(AppError) as raised:
                async with scope() as tx:
                    await tx.session.execute(text("SELECT 1"))
            assert raised.value.kind is Kind.UNAVAILABLE


def waits() -> float:
    return telemetry.REGISTRY.get_sample_value("db_pool_wait_seconds_count") or 0.0


async def test_an_exhausted_pool_is_unavailable(kit_database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.db.engine.POOL_TIMEOUT_S", 0.05)
    async with kit_database.opened(database_pool_size=1) as db:
        held, release = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with db.uow() as tx:
                await tx.connection()
                held.set()
                await release.wait()

        holder = asyncio.create_task(hold())
        await held.wait()
        before = waits()
        waiting = asyncio.create_task(names(db))
        while telemetry.REGISTRY.get_sample_value("db_pool_waiting") != 1:
            assert not waiting.done()
            await asyncio.sleep(0)
        with pytest.raises(AppError) as raised:
            await waiting
        assert raised.value.kind is Kind.UNAVAILABLE
        assert waits() == before + 1
        assert telemetry.REGISTRY.get_sample_value("db_pool_waiting") == 0
        release.set()
        await holder
        assert await names(db) == []


async def test_a_lock_not_had_in_time_is_unavailable(db: Database) -> None:
    async with db.uow() as tx:
        tx.session.add(Thing(id="1", name="locked"))
    blocker = await db.connect("blocker")
    async with blocker.transaction():
        await blocker.execute("SELECT FROM things FOR UPDATE")
        with pytest.raises(AppError) as raised:
            async with db.uow() as tx:
                await (await tx.connection()).execute("SET LOCAL lock_timeout = '50ms'")
                await tx.session.execute(update(Thing).values(name="x"))
    await blocker.close()
    assert raised.value.kind is Kind.UNAVAILABLE


async def test_a_second_transaction_in_the_same_task_is_refused(db: Database) -> None:
    for outer in (db.uow, db.reader):
        for inner in (db.uow, db.reader):
            async with outer():
                with pytest.raises(RuntimeError, match="one connection per request"):
                    async with inner():
                        pass
    await db.ping()


async def test_what_is_remote_is_refused_while_a_transaction_is_open(db: Database) -> None:
    context.assert_no_transaction("billing.Reserve")
    async with db.uow():
        with pytest.raises(context.RemoteCallInTransaction, match=r"billing\.Reserve"):
            context.assert_no_transaction("billing.Reserve")
    context.assert_no_transaction("billing.Reserve")


async def test_no_connection_is_taken_before_the_first_statement(db: Database) -> None:
    async with db.uow() as tx:
        assert tx.session is not None
        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await tx.session.execute(text("SELECT 1"))
        assert db.engine.pool.checkedout() == 1  # type: ignore[attr-defined]
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_a_reader_refuses_to_write(db: Database) -> None:
    async def attempts(tx: Tx) -> None:
        for statement in (insert(Thing).values(id="1", name="x"), update(Thing).values(name="x"), delete(Thing)):
            with pytest.raises(RuntimeError, match="does not write"):
                await tx.session.execute(statement)
        with pytest.raises(RuntimeError, match="no outbox"):
            tx.emit(UserRegistered(user_id="u"), aggregate_id="u")

    async with db.reader() as tx:
        await attempts(tx)
    with pytest.raises(RuntimeError, match="does not write"):
        async with db.reader() as tx:
            tx.session.add(Thing(id="1", name="x"))
    assert await names(db) == []


async def test_a_snapshot_reader_sees_one_moment(db: Database) -> None:
    async with db.reader(snapshot=True) as tx:
        assert await (await tx.connection()).fetchval("SELECT count(*) FROM things") == 0
        other = await db.connect("writer")
        await other.execute("INSERT INTO things (id, name) VALUES ('1', 'late')")
        await other.close()
        assert await tx.session.scalar(select(func.count()).select_from(Thing)) == 0
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with db.reader(snapshot=True) as tx:
            await (await tx.connection()).execute("INSERT INTO things (id, name) VALUES ('2', 'x')")
    assert await names(db) == ["late"]


async def test_events_are_written_last_in_order_and_carry_their_cause(db: Database) -> None:
    with context.bind(request="req-1", causation="cause-1", trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01"):
        async with db.uow() as tx:
            for number in range(20):
                tx.emit(
                    OrganizationCreated(organization_id=f"o-{number}"),
                    aggregate_id=f"o-{number}",
                    version=number,
                    organization_id=f"o-{number}",
                )
            assert await (await tx.connection()).fetchval("SELECT count(*) FROM outbox") == 0
    async with db.reader() as tx:
        rows = (await tx.session.scalars(select(OutboxRow).order_by(OutboxRow.seq))).all()
    assert [row.version for row in rows] == list(range(20))
    first = rows[0]
    assert (first.subject, first.aggregate_type) == ("identity.organization.created.v1", "organization")
    assert (first.correlation_id, first.causation_id) == ("req-1", "cause-1")
    assert first.traceparent is not None
    assert first.traceparent.startswith("00-")
    assert OrganizationCreated.FromString(first.payload).organization_id == "o-0"
    assert first.published_at is None


async def test_callbacks_run_after_the_commit_and_cannot_undo_it(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def broken() -> None:
        raise ValueError("broken")

    async with db.uow() as tx:
        tx.session.add(Thing(id="1", name="kept"))
        tx.on_commit(broken)
        tx.on_commit(lambda: seen.append(1))
    assert seen == [1]
    assert await names(db) == ["kept"]
    assert "callback after the commit" in caplog.text


async def test_a_thousand_cancelled_requests_leak_no_connection(db: Database) -> None:
    observer = await db.connect("observer")

    async def open_transactions() -> int:
        return int(
            await observer.fetchval(
                """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> $1
                   AND state <> 'idle'""",
                observer.get_server_pid(),
            )
        )

    async def request(number: int) -> None:
        async with db.uow() as tx:
            if number % 2:
                await (await tx.connection()).execute("SELECT pg_sleep(0.02)")
            else:
                await tx.session.execute(text("SELECT pg_sleep(0.02)"))
            tx.session.add(Thing(id=f"t-{number}", name=f"t-{number}"))

    for start in range(0, 1000, 50):
        tasks = [asyncio.create_task(request(number)) for number in range(start, start + 50)]
        for position, task in enumerate(tasks):
            asyncio.get_running_loop().call_later(0.0006 * position, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(100):
        if await open_transactions() == 0:
            break
        await asyncio.sleep(0.05)
    assert await open_transactions() == 0
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    total = await observer.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> $1",
        observer.get_server_pid(),
    )
    assert total <= 5
    await asyncio.gather(*(names(db) for _ in range(20)))
    await observer.close()
