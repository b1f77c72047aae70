"""Hot routes, lists, and the OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fastapi import APIRouter, Depends
from pydantic import BaseModel

from servicekit.auth.access import PUBLIC
from servicekit.errors import ErrorSpec, Kind, invalid
from servicekit.http import HotRequest, HotRoute, Keyset, Page, decode_token, encode_token, problems
from servicekit.http.app import create_app
from servicekit.http.openapi import openapi_document
from servicekit.http.paging import next_token
from servicekit.http.ratelimit import RateLimit

TAKEN = ErrorSpec("kit.name_taken", Kind.CONFLICT, "This name is taken.")


class Event(msgspec.Struct):
    kind: str
    data: dict[str, Any] = {}
    kept: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))


class Batch(msgspec.Struct):
    events: list[Event]


class Accepted(msgspec.Struct):
    accepted: int


async def record(call: HotRequest) -> Accepted:
    """Records events."""
    assert call.path_params["box_id"] == "b-1"
    return Accepted(len(call.body.events) + int(call.query.get("plus", "0")))


HOT = HotRoute(
    "boxes.record",
    "/api/v1/boxes/{box_id}/events",
    methods=["POST"],
    endpoint=record,
    request=Batch,
    response=Accepted,
    status_code=202,
    responses=problems(TAKEN),
    body_limit=6_000,
)


class Book(BaseModel):
    title: str


def router() -> APIRouter:
    made = APIRouter(prefix="/api/v1/books", tags=["books"])

    @made.post("", status_code=201, responses=problems(TAKEN))
    async def create(body: Book) -> Book:
        if body.title == "taken":
            raise TAKEN()
        if body.title == "bad":
            raise invalid(("chapters", 0, "title"), "must not be bad", body.title)
        return body

    @made.get("")
    async def list_books(page: Page) -> list[int]:
        return [page.limit, page.offset]

    @made.get("/keyset")
    async def keyset_books(keyset: Keyset) -> dict[str, Any]:
        after = keyset.expect(int, str)
        start = 0 if after is None else after[0]
        rows = [(number, f"b{number}") for number in range(start + 1, 8)][: keyset.fetch]
        items, token = next_token(rows, keyset, lambda row: row)
        return {"items": [row[0] for row in items], "next_page_token": token}

    return made


async def test_a_hot_route(serve: Any) -> None:
    async with serve(router(), hot_routes=[HOT]) as http:
        url = "/api/v1/boxes/b-1/events"
        good = await http.post(f"{url}?plus=2", json={"events": [{"kind": "a", "data": {"n": 10**30}}]})
        missing = await http.post(url, json={"events": [{"data": {}}]})
        wrong = await http.post(url, json={"events": [{"kind": 7}]})
        nul = await http.post(url, json={"events": [{"kind": "a", "data": {"x": "\x00"}}]})
        broken = await http.post(url, content=b"{")
        large = await http.post(url, content=b" " * 6_001)
        method = await http.get(url)
        del http.headers["Authorization"]
        nobody = await http.post(url, json={"events": []})
    assert (good.status_code, good.json()) == (202, {"accepted": 3})
    assert good.headers["content-type"] == "application/json"
    assert missing.json()["detail"][0]["loc"] == ["body", "events", 0, "kind"]
    assert missing.json()["detail"][0]["type"] == "missing"
    assert wrong.json()["detail"][0]["loc"] == ["body", "events", 0, "kind"]
    assert nul.json()["detail"][0]["loc"] == ["body", "events", 0, "data", "x"]
    assert {answer.status_code for answer in (missing, wrong, nul, broken)} == {422}
    assert large.status_code == 413
    assert (method.status_code, method.headers["allow"]) == (405, "POST")
    assert nobody.status_code == 401


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 5000])
async def test_a_number_that_nobody_can_read_is_refused_in_what_is_kept_raw(serve: Any, number: str) -> None:
    async with serve(router(), hot_routes=[HOT]) as http:
        url = "/api/v1/boxes/b-1/events"
        sent = '{"events": [{"kind": "a"}, {"kind": "a", "kept": {"text": "1e400", "n": [0, %s]}}]}'
        refused = await http.post(url, content=sent % number)
        taken = await http.post(url, content=sent % "1e300")
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "events", 1, "kept", "n", 1]
    assert (taken.status_code, taken.json()) == (202, {"accepted": 2})


async def test_declared_errors(serve: Any) -> None:
    async with serve(router()) as http:
        taken = await http.post("/api/v1/books", json={"title": "taken"})
        bad = await http.post("/api/v1/books", json={"title": "bad"})
    assert (taken.status_code, taken.json()["code"]) == (409, "kit.name_taken")
    assert bad.status_code == 422
    assert bad.json()["detail"] == [
        {"type": "value_error", "loc": ["body", "chapters", 0, "title"], "msg": "must not be bad", "input": "bad"}
    ]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "offset=-1", "offset=1000001", "limit=x"])
async def test_pages_are_bounded(serve: Any, query: str) -> None:
    async with serve(router()) as http:
        assert (await http.get("/api/v1/books?limit=500&offset=3")).json() == [500, 3]
        answer = await http.get(f"/api/v1/books?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", query.split("=")[0]]


async def test_a_keyset_walks_the_whole_list(serve: Any) -> None:
    seen: list[int] = []
    token: str | None = ""
    async with serve(router()) as http:
        while token is not None:
            answer = await http.get(
                "/api/v1/books/keyset", params={"page_size": 3} | ({"page_token": token} if token else {})
            )
            seen += answer.json()["items"]
            token = answer.json()["next_page_token"]
    assert seen == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "token",
    ["x", "!!!", encode_token(["a", "b"]), encode_token([1]), encode_token([True, "b"]), "W10", "ä", "a" * 1025],
)
async def test_a_foreign_token_is_422(serve: Any, token: str) -> None:
    async with serve(router()) as http:
        answer = await http.get("/api/v1/books/keyset", params={"page_token": token})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "page_token"]


def test_a_token_keeps_its_values() -> None:
    values = ["2026-01-01T00:00:00Z", 7, None, "ü"]
    assert decode_token(encode_token(values)) == values


def test_openapi(make_service: Any) -> None:
    service = make_service(router(), hot_routes=[HOT], operations={"books.list_books": PUBLIC})
    document = openapi_document(service)
    assert (
        document
        == create_app(make_service(router(), hot_routes=[HOT], operations={"books.list_books": PUBLIC})).openapi()
    )
    create = document["paths"]["/api/v1/books"]["post"]
    assert create["operationId"] == "books.create"
    assert "kit.name_taken" in create["responses"]["409"]["description"]
    assert create["security"] == [{"bearer": []}, {"cookie": []}]
    assert "401" in create["responses"]
    assert document["paths"]["/api/v1/books"]["get"]["security"] == []
    hot = document["paths"]["/api/v1/boxes/{box_id}/events"]["post"]
    assert hot["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Batch"}
    assert hot["responses"]["202"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Accepted"}
    assert hot["description"] == "Records events."
    assert {"Batch", "Event", "Accepted", "Book", "Problem", "InvalidRequest"} <= document["components"][
        "schemas"
    ].keys()
    assert "/livez" not in document["paths"]
    assert {"401", "403", "409", "413", "422", "503"} <= create["responses"].keys()
    assert {"401", "403", "404", "413", "422", "503"} <= hot["responses"].keys()
    listing = document["paths"]["/api/v1/books"]["get"]["responses"]
    assert {"422", "503"} <= listing.keys()
    assert not {"401", "403", "404", "413", "429"} & listing.keys()
    assert "application/problem+json" in create["responses"]["422"]["content"]
    assert create["parameters"] == [{"$ref": "#/components/parameters/IdempotencyKey"}]
    assert "IdempotencyKey" not in str(hot)
    for reference in _references(document):
        _, components, kind, name = reference.split("/")
        assert name in document[components][kind], reference


def test_a_rate_limit_is_declared(make_service: Any) -> None:
    made = APIRouter(prefix="/api/v1/slow", tags=["slow"])

    @made.get("", dependencies=[Depends(RateLimit("slow.get", per_minute=5))])
    async def get() -> int:
        return 1

    operation = openapi_document(make_service(made))["paths"]["/api/v1/slow"]["get"]
    assert operation["responses"]["429"] == {"$ref": "#/components/responses/RateLimited"}


def test_a_dependency_that_ends_after_the_answer_is_refused(make_service: Any) -> None:
    async def late() -> Any:
        yield 1

    def with_dependency(dependency: Any) -> APIRouter:
        made = APIRouter(prefix="/api/v1/late", tags=["late"])

        @made.get("")
        async def get(value: int = dependency) -> int:
            return value

        return made

    create_app(make_service(with_dependency(Depends(late, scope="function"))))
    with pytest.raises(ValueError, match=r"late\.get: the dependency late yields"):
        create_app(make_service(with_dependency(Depends(late))))


def _references(value: Any) -> Any:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref":
                yield item
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
