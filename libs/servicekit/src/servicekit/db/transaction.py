"""One transaction of a use case: its session, its raw connection, its events and its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import sqlalchemy.event
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session

from servicekit import context
from servicekit.db import idempotency
from servicekit.db.failures import unavailable
from servicekit.db.outbox import OutgoingEvent, insert_events, outgoing_event

if TYPE_CHECKING:
    from servicekit.db.engine import Database

T = TypeVar("T")
_NOTHING = object()

_log = logging.getLogger(__name__)


class _ReadOnlySession(Session):
    """A session that refuses to write."""


@sqlalchemy.event.listens_for(_ReadOnlySession, "do_orm_execute")
def _refuse_dml(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise RuntimeError("a reader() does not write; use uow()")


@sqlalchemy.event.listens_for(_ReadOnlySession, "before_flush")
def _refuse_flush(_session: Session, _context: Any, _instances: Any) -> None:
    raise RuntimeError("a reader() does not write; use uow()")


class Tx:
    """An open transaction. Functions that take one join it; only `Database.uow()` and `reader()` make one."""

    __slots__ = (
        "_claims",
        "_connection",
        "_database",
        "_events",
        "_on_commit",
        "_result",
        "_session",
        "_snapshot",
        "_writes",
    )

    def __init__(self, database: Database, *, writes: bool, snapshot: bool) -> None:
        self._database = database
        self._writes = writes
        self._snapshot = snapshot
        self._session: AsyncSession | None = None
        self._connection: AsyncConnection | None = None
        self._events: list[OutgoingEvent] = []
        self._on_commit: list[Callable[[], None]] = []
        self._result: Any = _NOTHING
        self._claims: context.IdempotencyClaim | None = None

    @property
    def session(self) -> AsyncSession:
        """The SQLAlchemy session of this transaction; it takes a connection at its first statement."""
        if self._session is None:
            self._session = AsyncSession(
                bind=self._connection if self._connection is not None else self._engine(),
                sync_session_class=Session if self._writes else _ReadOnlySession,
                expire_on_commit=False,
                autoflush=self._writes,
            )
        return self._session

    async def connection(self) -> asyncpg.Connection[Any]:
        """Return the raw asyncpg connection inside the same transaction, for UNNEST, SKIP LOCKED and COPY.

        What the session holds is flushed first, so that both see the same rows.
        """
        if self._session is not None:
            if self._writes:
                await self._session.flush()
            connection = await self._session.connection()
        elif self._connection is not None:
            connection = self._connection
        else:
            connection = self._connection = await self._engine().connect()
            await connection.begin()
        adapted: Any = (await connection.get_raw_connection()).dbapi_connection
        if adapted._transaction is None:
            # SQLAlchemy sends BEGIN with its own first statement; a raw statement before that would commit by itself.
            await adapted._start_transaction()
        raw: asyncpg.Connection[Any] = adapted.driver_connection
        return raw

    def emit(
        self,
        message: Message,
        *,
        aggregate_id: str,
        version: int = 0,
        organization_id: str | None = None,
        event_id: str | None = None,
        occurred_at: datetime | None = None,
    ) -> str:
        """Add an event to the outbox, written last in this transaction; return its id.

        `message` is of an `events/v1` package. `version` is the aggregate's version after this change, 0 where the
        aggregate has none. The ids of request, cause and trace are those of now.
        """
        if not self._writes:
            raise RuntimeError("a reader() has no outbox; use uow()")
        event = outgoing_event(
            message,
            aggregate_id=aggregate_id,
            version=version,
            organization_id=organization_id,
            event_id=event_id,
            occurred_at=occurred_at,
        )
        self._events.append(event)
        return event.event_id

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Run `callback` after the commit, in memory only; it is never run after a rollback."""
        self._on_commit.append(callback)

    def result(self, value: T) -> T:
        """Store `value` as the answer of this request's Idempotency-Key in the same commit, and return it."""
        if not self._writes:
            raise RuntimeError("a reader() stores no answer; use uow()")
        self._result = value
        return value

    def _engine(self) -> Any:
        if self._writes:
            return self._database.engine
        return self._database.snapshot_engine if self._snapshot else self._database.reading_engine

    async def _begin(self, statement_timeout_s: float | None) -> None:
        claim = context.idempotency_claim.get()
        if claim is not None and not claim.locked:
            await idempotency.claim_in(await self.connection(), claim)
            self._claims = claim
        if statement_timeout_s is not None:
            raw = await self.connection()
            await raw.execute(f"SET LOCAL statement_timeout = {int(statement_timeout_s * 1000)}")

    async def _commit(self) -> None:
        if self._session is not None:
            await self._session.flush()
        claim = context.idempotency_claim.get()
        stores = claim is not None and not claim.stored and self._result is not _NOTHING
        if claim is not None and stores:
            await idempotency.store_in(await self.connection(), claim, claim.encode(self._result))
        if self._events:
            await insert_events(await self.connection(), self._events)
        if self._connection is not None:
            await self._connection.commit()
        elif self._session is not None:
            await self._session.commit()
        if claim is not None:
            claim.locked = claim.locked or claim is self._claims
            claim.stored = claim.stored or stores
        if self._events:
            self._database.outbox_hint.committed()
        for callback in self._on_commit:
            try:
                callback()
            except Exception:
                # The commit stands; a failed wake-up must not make its caller believe otherwise.
                _log.exception("a callback after the commit failed")

    async def _close(self) -> None:
        try:
            if self._session is not None:
                await self._session.close()
        finally:
            if self._connection is not None:
                await self._connection.close()


class Scope:
    """What `Database.uow()` and `reader()` return: an async context manager around one `Tx`."""

    __slots__ = ("_database", "_marker", "_snapshot", "_statement_timeout_s", "_tx", "_writes")

    def __init__(self, database: Database, *, writes: bool, snapshot: bool, statement_timeout_s: float | None) -> None:
        self._database = database
        self._writes = writes
        self._snapshot = snapshot
        self._statement_timeout_s = statement_timeout_s
        self._tx: Tx | None = None
        self._marker: AbstractContextManager[None] | None = None

    async def __aenter__(self) -> Tx:
        if self._tx is not None:
            raise RuntimeError("a scope is entered once")
        if context.transaction_is_open():
            raise RuntimeError("a transaction is open already: one connection per request at a time, pass `tx` on")
        self._tx = Tx(self._database, writes=self._writes, snapshot=self._snapshot)
        self._marker = context.in_transaction("unit of work" if self._writes else "reader")
        self._marker.__enter__()
        if self._writes:
            try:
                await self._tx._begin(self._statement_timeout_s)
            except BaseException as error:
                await self._leave(error)
                raise
        return self._tx

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._tx is not None
        if error is None:
            try:
                await self._tx._commit()
            except BaseException as failure:
                await self._leave(failure)
                raise
        await self._leave(error)

    async def _leave(self, error: BaseException | None) -> None:
        """Give the connection back, whatever happens, and translate what the database's absence raised."""
        assert self._tx is not None
        assert self._marker is not None
        try:
            if error is None:
                await self._tx._close()
            else:
                # The rollback runs to its end in a task of its own: a second cancellation must not leak a connection.
                await asyncio.shield(_keep(asyncio.ensure_future(self._tx._close())))
        except Exception as failure:
            if error is None:
                raise
            _log.warning("the rollback failed; its connection is discarded", exc_info=failure)
        finally:
            self._marker.__exit__(None, None, None)
        # Writing in a snapshot reader is a mistake of ours, not a database that has become a standby.
        mistake = not self._writes and isinstance(error, asyncpg.ReadOnlySQLTransactionError)
        if error is not None and not mistake:
            translated = unavailable(error)
            if translated is not None:
                _log.warning("database unavailable: %s: %s", type(error).__name__, error)
                raise translated from error


_closing: set[asyncio.Future[None]] = set()


def _keep(future: asyncio.Future[None]) -> asyncio.Future[None]:
    """Hold a reference: the event loop itself keeps only a weak one."""
    _closing.add(future)
    future.add_done_callback(_closing.discard)
    return future
