"""Which failures of the database are "not available now"."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

from servicekit.db.failures import is_away, is_transient, unavailable


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def adapted(cause: BaseException) -> BaseException:
    """What SQLAlchemy's adapter raises when it is used directly."""
    return caused(AsyncAdapt_asyncpg_dbapi.Error(str(cause), cause), cause)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.InterfaceError("connection is closed"),
        ConnectionRefusedError(),
        adapted(asyncpg.ConnectionDoesNotExistError("terminating connection due to unexpected postmaster exit")),
    ],
    ids=repr,
)
def test_a_server_that_is_gone_is_away(error: BaseException) -> None:
    assert is_away(error)
    translated = unavailable(error)
    assert translated is not None
    assert translated.code == "database.unavailable"
    assert translated.retry_after_s == 1.0


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DeadlockDetectedError("deadlock detected"),
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        adapted(asyncpg.LockNotAvailableError("canceling statement due to lock timeout")),
    ],
    ids=repr,
)
def test_bad_luck_is_transient_but_not_absence(error: BaseException) -> None:
    assert is_transient(error)
    assert not is_away(error)
    assert unavailable(error) is not None


@pytest.mark.parametrize(
    "error",
    [asyncpg.UniqueViolationError("duplicate"), adapted(asyncpg.UndefinedTableError("no table")), KeyError("x")],
    ids=repr,
)
def test_mistakes_stay_mistakes(error: BaseException) -> None:
    assert not is_transient(error)
    assert unavailable(error) is None
