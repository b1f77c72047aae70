"""Which database failures mean "not available now"."""

from __future__ import annotations

import asyncpg
import sqlalchemy.exc
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

from servicekit.errors import AppError, ErrorSpec, Kind

DATABASE_UNAVAILABLE = ErrorSpec("database.unavailable", Kind.UNAVAILABLE, "The database is not available.", 1.0)
STALE_VERSION = ErrorSpec("database.stale_version", Kind.CONFLICT, "This was changed by someone else in the meantime.")

# The server is gone, starting, full, or a standby.
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
)
# This statement did not get through: a lock or an answer was not had in time, or a deadlock chose this transaction.
_UNLUCKY = (
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    # The driver's word for a connection that broke in the middle of its own bookkeeping.
    asyncpg.InternalClientError,
)


def is_away(error: BaseException | None) -> bool:
    """Tell whether the database itself cannot be used now, whatever is asked of it."""
    if isinstance(error, AppError):
        return error.code == DATABASE_UNAVAILABLE.code and is_away(error.__cause__)
    if isinstance(error, sqlalchemy.exc.TimeoutError | ConnectionError):
        return True
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return error.connection_invalidated or is_away(_driver_error(error))
    if isinstance(error, AsyncAdapt_asyncpg_dbapi.Error):
        # Raised where the kit begins a transaction on the adapted connection itself, past SQLAlchemy's wrapping.
        return is_away(error.__cause__)
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error)
    return isinstance(error, _AWAY)


def is_transient(error: BaseException | None) -> bool:
    """Tell whether the same transaction may succeed when it is run again a moment later."""
    if isinstance(error, sqlalchemy.exc.DBAPIError) and isinstance(_driver_error(error), _UNLUCKY):
        return True
    if isinstance(error, AsyncAdapt_asyncpg_dbapi.Error) and isinstance(error.__cause__, _UNLUCKY):
        return True
    return is_away(error) or isinstance(error, (*_UNLUCKY, TimeoutError))


def _driver_error(error: sqlalchemy.exc.DBAPIError) -> BaseException | None:
    return error.orig.__cause__ if error.orig is not None else None


def unavailable(error: BaseException) -> AppError | None:
    """Return the 503 for a transient failure of the database, None for any other error."""
    if isinstance(error, AppError) or not is_transient(error):
        return None
    return DATABASE_UNAVAILABLE()
