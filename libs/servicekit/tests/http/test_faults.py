"""What a lost, slow or refusing database becomes at the edge."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from fastapi import APIRouter
from sqlalchemy import text

from servicekit.db import Database
from servicekit.settings import ServiceSettings
from servicekit.testing.postgres import TestDatabase


def router(db: Database, **answers: Any) -> APIRouter:
    made = APIRouter(prefix="/api/v1/faults", tags=["faults"])

    @made.get("/ok")
    async def ok() -> int:
        async with db.reader() as tx:
            return (await tx.session.execute(text("SELECT 1"))).scalar_one()

    @made.get("/slow")
    async def slow() -> None:
        async with db.uow(statement_timeout_s=0.05) as tx:
            await tx.session.execute(text("SELECT pg_sleep(5)"))

    @made.post("/commit", status_code=201)
    async def commit() -> str:
        async with db.uow() as tx:
            connection = await tx.connection()
            await connection.execute(
                "CREATE TABLE parent (id int PRIMARY KEY);"
                "CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);"
                "INSERT INTO child VALUES (1)"
            )
        return "created"

    @made.post("/lost", status_code=201)
    async def lost() -> str:
        async with db.uow() as tx:
            connection = await tx.connection()
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            async with db.reading_engine.connect() as other:
                await other.execute(text(f"SELECT pg_terminate_backend({pid})"))
            await asyncio.sleep(0.05)
        return "created"

    @made.get("/range")
    async def out_of_range(n: int) -> None:
        async with db.uow() as tx:
            await (await tx.connection()).fetchval("SELECT $1::bigint", n)

    @made.get("/range-orm")
    async def out_of_range_orm(n: int) -> None:
        async with db.uow() as tx:
            await tx.session.execute(text("SELECT CAST(:n AS bigint)"), {"n": n})

    @made.get("/division")
    async def division() -> None:
        async with db.uow() as tx:
            await tx.session.execute(text("SELECT 'x'::uuid"))

    @made.get("/hold")
    async def hold(s: float) -> None:
        async with db.uow() as tx:
            await tx.session.execute(text("SELECT pg_sleep(:s)"), {"s": s})

    return made


def assert_unavailable(answer: Any) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] in ("database.unavailable", "service.unavailable")


async def test_an_absent_database_is_503_and_not_ready(serve: Any) -> None:
    db = Database(ServiceSettings(env="test", database_url="postgresql://nobody:hunter2@127.0.0.1:1/none"))
    async with serve(router(db), db=db) as http:
        answer = await http.get("/api/v1/faults/ok")
        ready = await http.get("/readyz")
        live = await http.get("/livez")
    assert_unavailable(answer)
    assert "hunter2" not in answer.text
    assert ready.status_code == 503
    assert any(item.startswith("database") for item in ready.json()["failed"])
    assert live.status_code == 200


async def test_a_statement_timeout_is_503(serve: Any, db: Database) -> None:
    async with serve(router(db)) as http:
        assert_unavailable(await http.get("/api/v1/faults/slow"))
        assert (await http.get("/api/v1/faults/ok")).json() == 1


async def test_a_failing_commit_is_never_answered_201(serve: Any, db: Database) -> None:
    async with serve(router(db)) as http:
        refused = await http.post("/api/v1/faults/commit")
        lost = await http.post("/api/v1/faults/lost")
        after = await http.get("/api/v1/faults/ok")
    assert refused.status_code == 500
    assert refused.json()["code"] == "service.internal"
    assert "child" not in refused.text
    assert_unavailable(lost)
    assert after.json() == 1


async def test_an_exhausted_pool_is_503(
    serve: Any, kit_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.db.engine.POOL_TIMEOUT_S", 0.2)
    async with kit_database.opened(database_pool_size=1) as db, serve(router(db)) as http:
        holding = asyncio.create_task(http.get("/api/v1/faults/hold?s=1.2"))
        await asyncio.sleep(0.3)
        assert_unavailable(await http.get("/api/v1/faults/hold?s=0"))
        assert (await holding).status_code == 200


@pytest.mark.parametrize("path", [f"range?n={10**30}", f"range-orm?n={10**30}", "division"])
async def test_a_value_the_database_refuses_is_422(serve: Any, db: Database, path: str) -> None:
    async with serve(router(db)) as http:
        answer = await http.get(f"/api/v1/faults/{path}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body"]


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.TooManyConnectionsError("x"),
        asyncpg.ConnectionDoesNotExistError("x"),
        asyncpg.CannotConnectNowError("x"),
        ConnectionRefusedError("x"),
        ConnectionResetError("x"),
    ],
)
async def test_connection_errors_outside_a_unit_of_work(serve: Any, error: Exception) -> None:
    made = APIRouter(prefix="/api/v1/raw", tags=["raw"])

    @made.get("")
    async def raw() -> None:
        raise error

    async with serve(made) as http:
        assert_unavailable(await http.get("/api/v1/raw"))
