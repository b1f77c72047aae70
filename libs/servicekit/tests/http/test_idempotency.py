"""Idempotency-Key: one effect, the same answer, and nothing left behind by a failure."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter
from pydantic import BaseModel

from servicekit.auth.access import PUBLIC
from servicekit.db import Database
from servicekit.errors import ErrorSpec, Kind
from servicekit.http import answer_not_kept
from servicekit.ids import new_id

FULL = ErrorSpec("kit.full", Kind.CONFLICT, "Full.")


class In(BaseModel):
    name: str


class Out(BaseModel):
    id: str
    name: str


class Shelf:
    """Writes one row of `replica_resources` for each creation: a table that every service's database has."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.runs = 0
        self.fail = False
        self.gate = asyncio.Event()
        self.inside = asyncio.Event()
        self.gate.set()

    async def add(self, name: str, *, stored: bool = True) -> Out:
        self.runs += 1
        async with self.db.uow() as tx:
            made = Out(id=new_id(), name=name)
            connection = await tx.connection()
            await connection.execute(
                "INSERT INTO replica_resources (resource_type, resource_id, organization_id) VALUES ('book', $1, $2)",
                made.id,
                name,
            )
            self.inside.set()
            await self.gate.wait()
            if self.fail:
                raise FULL()
            return tx.result(made) if stored else made

    async def count(self) -> int:
        async with self.db.reader() as tx:
            return await (await tx.connection()).fetchval("SELECT count(*) FROM replica_resources")

    def router(self) -> APIRouter:
        made = APIRouter(prefix="/api/v1/shelf", tags=["shelf"])

        @made.post("", status_code=201)
        async def add(body: In) -> Out:
            return await self.add(body.name)

        @made.post("/plain")
        async def add_plain(body: In) -> Out:
            return await self.add(body.name, stored=False)

        @made.post("/secret")
        @answer_not_kept
        async def add_secret(body: In) -> Out:
            return await self.add(body.name)

        @made.post("/public")
        async def add_public(body: In) -> Out:
            return await self.add(body.name)

        return made


@pytest.fixture
def shelf(db: Database) -> Shelf:
    return Shelf(db)


@pytest.fixture
def open_shelf(serve: Any, shelf: Shelf) -> Any:
    return lambda: serve(shelf.router(), operations={"shelf.add_public": PUBLIC}, db=shelf.db)


KEY = {"Idempotency-Key": "key-1"}


@pytest.mark.parametrize(("path", "status"), [("", 201), ("/plain", 200)])
async def test_a_repeat_gets_the_first_answer(open_shelf: Any, shelf: Shelf, path: str, status: int) -> None:
    async with open_shelf() as http:
        first = await http.post(f"/api/v1/shelf{path}", json={"name": "a"}, headers=KEY)
        again = await http.post(f"/api/v1/shelf{path}", json={"name": "a"}, headers=KEY)
        other_key = await http.post(f"/api/v1/shelf{path}", json={"name": "a"}, headers={"Idempotency-Key": "key-2"})
        no_key = await http.post(f"/api/v1/shelf{path}", json={"name": "a"})
    assert first.status_code == again.status_code == status
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert len({answer.json()["id"] for answer in (first, other_key, no_key)}) == 3
    assert (shelf.runs, await shelf.count()) == (3, 3)


async def test_the_same_key_for_another_request_is_422(open_shelf: Any, shelf: Shelf) -> None:
    async with open_shelf() as http:
        await http.post("/api/v1/shelf", json={"name": "a"}, headers=KEY)
        other_body = await http.post("/api/v1/shelf", json={"name": "b"}, headers=KEY)
        other_path = await http.post("/api/v1/shelf/plain", json={"name": "a"}, headers=KEY)
        other_user = await http.post(
            "/api/v1/shelf", json={"name": "b"}, headers=KEY | {"Authorization": "Bearer grace"}
        )
    for answer in (other_body, other_path):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency.key_reused")
    assert other_user.status_code == 201
    assert shelf.runs == 2


async def test_a_repeat_in_flight_is_409(open_shelf: Any, shelf: Shelf) -> None:
    shelf.gate.clear()
    async with open_shelf() as http:
        first = asyncio.create_task(http.post("/api/v1/shelf", json={"name": "a"}, headers=KEY))
        await asyncio.wait_for(shelf.inside.wait(), 10)
        second = await http.post("/api/v1/shelf", json={"name": "a"}, headers=KEY)
        shelf.gate.set()
        assert (await first).status_code == 201
        third = await http.post("/api/v1/shelf", json={"name": "a"}, headers=KEY)
    assert (second.status_code, second.json()["code"]) == (409, "idempotency.in_flight")
    assert second.headers["retry-after"] == "1"
    assert third.json() == (await first).json()
    assert await shelf.count() == 1


async def test_twenty_at_once_have_one_effect(open_shelf: Any, shelf: Shelf) -> None:
    async with open_shelf() as http:
        answers = await asyncio.gather(
            *(http.post("/api/v1/shelf", json={"name": "a"}, headers=KEY) for _ in range(20))
        )
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert await shelf.count() == 1


async def test_a_failure_leaves_the_key_free(open_shelf: Any, shelf: Shelf) -> None:
    shelf.fail = True
    async with open_shelf() as http:
        failed = await http.post("/api/v1/shelf", json={"name": "a"}, headers=KEY)
        invalid = await http.post("/api/v1/shelf", json={}, headers=KEY)
        shelf.fail = False
        done = await http.post("/api/v1/shelf", json={"name": "a"}, headers=KEY)
    assert (failed.status_code, invalid.status_code, done.status_code) == (409, 422, 201)
    assert failed.json()["code"] == "kit.full"
    assert await shelf.count() == 1


async def test_an_answer_with_a_secret_is_not_kept(open_shelf: Any, shelf: Shelf) -> None:
    async with open_shelf() as http:
        first = await http.post("/api/v1/shelf/secret", json={"name": "a"}, headers=KEY)
        again = await http.post("/api/v1/shelf/secret", json={"name": "a"}, headers=KEY)
    assert first.status_code == 200
    assert (again.status_code, again.json()["code"]) == (409, "idempotency.answer_not_kept")
    async with shelf.db.reader() as tx:
        stored = await (await tx.connection()).fetchval("SELECT body FROM idempotency_keys")
    assert stored == b""
    assert await shelf.count() == 1


async def test_a_public_operation_ignores_the_key(open_shelf: Any, shelf: Shelf) -> None:
    async with open_shelf() as http:
        for _ in range(2):
            await http.post("/api/v1/shelf/public", json={"name": "a"}, headers=KEY)
    assert await shelf.count() == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "ä"])
async def test_a_strange_key_is_422(open_shelf: Any, shelf: Shelf, key: str) -> None:
    async with open_shelf() as http:
        answer = await http.post("/api/v1/shelf", json={"name": "a"}, headers=[(b"Idempotency-Key", key.encode())])
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]
    assert shelf.runs == 0
