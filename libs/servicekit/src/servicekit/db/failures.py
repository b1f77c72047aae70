"""Which database failures mean "not available now"."""

from __future__ import annotations

import asyncpg
import sqlalchemy.exc

from servicekit.errors import AppError, ErrorSpec, Kind

DATABASE_UNAVAILABLE = ErrorSpec("database.unavailable", Kind.UNAVAILABLE, "The database is not available.", 1.0)
STALE_VERSION = ErrorSpec("database.stale_version", Kind.CONFLICT, "This was changed by someone else in the meantime.")

# Each of these leaves the request undone and worth repeating: the server is gone, starting, full, read-only or on a
# standby, the pool or a lock was not had in time, or this transaction was the victim of a deadlock.
_TRANSIENT_ASYNCPG: tuple[type[BaseException], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.ReadOnlySQLTransactionError,
)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed when it is run again a moment later."""
    if isinstance(error, sqlalchemy.exc.TimeoutError | ConnectionError | TimeoutError):
        return True
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        if error.connection_invalidated:
            return True
        cause = error.orig.__cause__ if error.orig is not None else None
        return cause is not None and is_transient(cause)
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error)
    return isinstance(error, _TRANSIENT_ASYNCPG)


def unavailable(error: BaseException) -> AppError | None:
    """Return the 503 for a transient failure of the database, None for any other error."""
    if isinstance(error, AppError) or not is_transient(error):
        return None
    return DATABASE_UNAVAILABLE()
