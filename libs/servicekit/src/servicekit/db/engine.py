"""The connection pool of one process and the transactions drawn from it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import sqlalchemy.event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util.queue import AsyncAdaptedQueue

from servicekit import telemetry
from servicekit.db.hint import CommitHint
from servicekit.db.outbox import CHANNEL as OUTBOX_CHANNEL
from servicekit.db.transaction import Scope

if TYPE_CHECKING:
    from servicekit.settings import ServiceSettings

# A request waits this long for a connection of the pool, then it is answered 503: longer queues only grow.
POOL_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 3.0
# Client-side ceiling of one statement, for a server that vanished without closing its sockets.
COMMAND_TIMEOUT_S = 30.0
STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 3_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 15_000
POOL_RECYCLE_S = 1_800


_WAITS = telemetry.histogram(
    "db_pool_wait_seconds", "Time that a transaction waited because every connection of the pool was taken."
)
_WAITING = telemetry.gauge("db_pool_waiting", "Transactions that wait for a connection of the pool now.")


class _Idle(AsyncAdaptedQueue[Any]):
    """The idle connections of a pool; measures who waits for one."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not block or not self.empty():
            return super().get(block, timeout)
        began = time.perf_counter()
        _WAITING.inc()
        try:
            return super().get(block, timeout)
        finally:
            _WAITING.dec()
            _WAITS.observe(time.perf_counter() - began)


class _Pool(AsyncAdaptedQueuePool):
    """A pool whose waiting is measured."""

    _queue_class = _Idle


class Database:
    """The database of one service: `uow()` for writing, `reader()` for reading.

    Nothing connects before the first statement. `settings` gives `database_url`, `database_pool_size` and `instance`.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._url = settings.database_url
        self._pool_size = settings.database_pool_size
        self._instance = settings.instance
        self._engine: AsyncEngine | None = None
        self._reading: AsyncEngine | None = None
        self._snapshot: AsyncEngine | None = None
        self._hints: dict[str, CommitHint] = {}
        self.outbox_hint = self.hint(OUTBOX_CHANNEL)

    @property
    def name(self) -> str:
        """Name of the database, which is the name of its service."""
        return urlsplit(self.url).path.lstrip("/")

    @property
    def url(self) -> str:
        """The address with its secret; `RuntimeError` when the process was given none."""
        if self._url is None:
            raise RuntimeError("OMOIOS_DATABASE_URL is not set")
        return self._url

    @property
    def engine(self) -> AsyncEngine:
        """The engine behind `uow()`."""
        if self._engine is None:
            self._engine = create_async_engine(
                self.url.replace("postgresql://", "postgresql+asyncpg://", 1),
                poolclass=_Pool,
                pool_size=self._pool_size,
                max_overflow=0,
                pool_timeout=POOL_TIMEOUT_S,
                pool_recycle=POOL_RECYCLE_S,
                pool_use_lifo=True,
                connect_args={
                    "timeout": CONNECT_TIMEOUT_S,
                    "command_timeout": COMMAND_TIMEOUT_S,
                    "server_settings": self._server_settings("pool"),
                },
            )
            sqlalchemy.event.listen(self._engine.sync_engine, "checkin", _drop_left_open)
            sqlalchemy.event.listen(self._engine.sync_engine, "checkout", _refuse_unusable)
            _measure_pool(self._engine.sync_engine.pool, self._pool_size)
        return self._engine

    @property
    def reading_engine(self) -> AsyncEngine:
        """The same pool without BEGIN and ROLLBACK: each statement of READ COMMITTED has its own snapshot anyway."""
        if self._reading is None:
            self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        return self._reading

    @property
    def snapshot_engine(self) -> AsyncEngine:
        """The same pool with one snapshot for all statements of a `reader(snapshot=True)`."""
        if self._snapshot is None:
            self._snapshot = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        return self._snapshot

    def uow(self, *, statement_timeout_s: float | None = None) -> Scope:
        """Open one transaction: `async with db.uow() as tx`. It commits on a clean exit and rolls back otherwise.

        The connection is taken at the first statement. `statement_timeout_s` replaces the pool's 15 s. Raises
        `RuntimeError` when a transaction of this task is open, `AppError` (UNAVAILABLE) when the database is not there.
        """
        return Scope(self, writes=True, snapshot=False, statement_timeout_s=statement_timeout_s)

    def reader(self, *, snapshot: bool = False) -> Scope:
        """Open a read-only scope without an outbox; `snapshot` gives all its statements the same snapshot."""
        return Scope(self, writes=False, snapshot=snapshot, statement_timeout_s=None)

    async def connect(self, purpose: str, **server_settings: str) -> asyncpg.Connection[Any]:
        """Open a connection of its own outside the pool, for LISTEN and for leader locks. The caller closes it."""
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            self.url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            server_settings=self._server_settings(purpose) | server_settings,
        )
        return connection

    async def start(self) -> None:
        """Check that an address was given. Nothing connects: a service starts while its database is still away."""
        _ = self.engine

    async def ping(self, timeout_s: float = 2.0) -> None:
        """Ask the database for an answer; raises when there is none within `timeout_s`."""
        async with asyncio.timeout(timeout_s), self.reading_engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")

    def hint(self, channel: str) -> CommitHint:
        """The hint of a channel, one for each in a process: `tx.on_commit(db.hint("omoios_merges").committed)`."""
        return self._hints.setdefault(channel, CommitHint(self, channel))

    async def notify(self, channel: str) -> None:
        """Send a NOTIFY that need not survive a crash, so that it waits for no disk; one round trip."""
        if not channel.isidentifier():
            raise ValueError(f"not a channel name: {channel!r}")
        async with self.reading_engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute(f"BEGIN; SET LOCAL synchronous_commit = off; NOTIFY {channel}; COMMIT")

    async def close(self) -> None:
        """Stop hinting and close the pool."""
        for hint in self._hints.values():
            await hint.close()
        engine, self._engine, self._reading, self._snapshot = self._engine, None, None, None
        if engine is not None:
            await engine.dispose()

    def _server_settings(self, purpose: str) -> dict[str, str]:
        return {
            "application_name": f"{self.name}:{purpose}:{self._instance}"[:63],
            "statement_timeout": str(STATEMENT_TIMEOUT_MS),
            "lock_timeout": str(LOCK_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
            # Compiling a plan costs more than it saves in statements of this size.
            "jit": "off",
            "timezone": "UTC",
        }


def _refuse_unusable(dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
    """Replace a connection that the server has closed or that was left in a transaction; costs no round trip.

    The driver would make every later transaction of that connection a savepoint of it, whose commit is no commit.
    """
    driver = dbapi_connection.driver_connection
    if driver.is_closed():
        raise DisconnectionError("the server closed this connection")
    if _is_left_open(driver):
        raise DisconnectionError("this connection was left in a transaction")


def _drop_left_open(dbapi_connection: Any, record: Any) -> None:
    """Close a connection that comes back in a transaction; the pool takes the last used first and may not see it soon.

    Whoever is cancelled while BEGIN is under way leaves the server in a transaction that SQLAlchemy does not know of.
    """
    if dbapi_connection is not None and _is_left_open(dbapi_connection.driver_connection):
        record.invalidate()


def _is_left_open(driver: Any) -> bool:
    return not driver.is_closed() and (driver.is_in_transaction() or driver._top_xact is not None)


def _measure_pool(pool: Any, size: int) -> None:
    """Show a process's pool at each scrape; of several pools in one process (tests), the last made."""
    telemetry.gauge("db_pool_size", "Connections that the pool may hold.").set(size)
    telemetry.gauge("db_pool_in_use", "Connections of the pool that are taken.").set_function(pool.checkedout)
    telemetry.gauge("db_pool_open", "Connections that the pool holds, taken and idle.").set_function(
        lambda: pool.checkedout() + pool.checkedin()
    )
