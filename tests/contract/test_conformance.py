"""The comparison of answers with the OpenAPI document finds what contradicts it."""

from __future__ import annotations

from typing import Any

import httpx2
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from servicekit.auth.access import PUBLIC, AccessTable
from servicekit.host import Running, Service
from servicekit.http.app import create_app
from servicekit.http.probes import Readiness
from servicekit.settings import ServiceSettings
from tests.contract.conformance import EXAMPLES, conformance

books = APIRouter(prefix="/api/v1/books", tags=["books"])


@books.get("/right")
async def right() -> int:
    return 1


@books.get("/teapot")
async def teapot(response: Response, size: int) -> int:
    response.status_code = 418
    return size


@books.get("/mistyped", response_model=int)
async def mistyped() -> Any:
    return JSONResponse("one")


@books.get("/{book_id}")
async def get(book_id: str) -> str:
    return book_id


async def test_an_answer_that_is_not_documented_is_found() -> None:
    names = ("right", "teapot", "mistyped", "get")
    access = AccessTable(operations={f"books.{name}": PUBLIC for name in names})
    service = Service("kit", ServiceSettings(env="test"), access, routers=(books,))
    app = create_app(service)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://kit.test") as http:
        running = Running(service, app, http, Readiness(None))
        found = await conformance(running, {}, {"book_id": "b-1"}, excluded={})
    assert found.failures.keys() == {"books.teapot", "books.mistyped"}
    assert "Received: 418" in found.failures["books.teapot"]
    assert sum(found.answers["books.teapot"].values()) == EXAMPLES
    assert found.succeeded == {"books.right", "books.mistyped", "books.get"}
