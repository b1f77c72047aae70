"""Bodies and addresses that no use case could store are refused with 422, never with a 500."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from servicekit.http import body_limit
from servicekit.http.body import too_deep

JSON = {"content-type": "application/json"}


class Item(BaseModel):
    name: str
    count: int = 0
    password: str = ""
    extra: Any = None


def router() -> APIRouter:
    made = APIRouter(prefix="/api/v1/items", tags=["items"])

    @made.post("")
    async def create(body: Item) -> Item:
        return body

    @made.post("/large")
    @body_limit(3_000_000)
    async def create_large(body: Item) -> int:
        return len(body.name)

    @made.get("/{item_id}")
    async def get(item_id: str, q: str = "") -> dict[str, str]:
        return {"id": item_id, "q": q}

    return made


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        (b'{"name": "a\\u0000b"}', ["body", "name"], "string_nul"),
        (b'{"name": "a", "extra": {"list": ["x", "\\u0000"]}}', ["body", "extra", "list", 1], "string_nul"),
        (b'{"name": "\xff"}', ["body", 10], "json_invalid"),
        (b'{"name": "\\ud800"}', ["body", 0], "json_invalid"),
        (b'{"name": "a", "count": NaN}', ["body", 23], "json_invalid"),
        (b'{"name": "a", "count": ' + b"9" * 5000 + b"}", ["body", "count"], "number_range"),
        (b'{"name": "a", "extra": [1, 1e999]}', ["body", "extra", 1], "number_range"),
        (b'{"name": "a", "extra": ' + b"[" * 64 + b"]" * 64 + b"}", ["body"], "json_too_deep"),
        (b"[" * 100_000, ["body"], "json_too_deep"),
        (b'{"name": ', ["body", 0], "json_invalid"),
        (b"", ["body"], "missing"),
        (b'{"count": "x"}', ["body", "name"], "missing"),
    ],
)
async def test_unusable_json_names_its_place(serve: Any, body: bytes, loc: list[Any], kind: str) -> None:
    async with serve(router()) as http:
        answer = await http.post("/api/v1/items", content=body, headers=JSON)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert found["code"] == "request.invalid"
    assert found["request_id"] == answer.headers["x-request-id"]
    first = found["detail"][0]
    assert (first["loc"], first["type"]) == (loc, kind)
    assert {"type", "loc", "msg", "input"} <= first.keys()


@given(
    st.recursive(
        st.none() | st.text(alphabet='[]{}"\\\\a', max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='"\\\\[{', max_size=3), inner, max_size=2)
        ),
        max_leaves=12,
    ),
    st.integers(min_value=1, max_value=70),
    st.booleans(),
)
def test_depth_is_counted_exactly(document: Any, wrap: int, alternate: bool) -> None:
    def depth(value: Any) -> int:
        if isinstance(value, dict):
            value = list(value.values())
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    for level in range(wrap):
        document = {"]": document, "b": "[" * 70} if alternate and level % 2 else ["]", document]
    assert too_deep(json.dumps(document).encode()) is (depth(document) > 64)


async def test_what_is_just_allowed_passes(serve: Any) -> None:
    nested: Any = "x"
    for _ in range(63):
        nested = [nested]
    async with serve(router()) as http:
        body = {"name": "\\u0000 as text \U0001f600", "count": 10**30, "extra": nested}
        answer = await http.post("/api/v1/items", json=body)
    assert answer.status_code == 200
    assert answer.json()["count"] == 10**30
    assert answer.json()["name"] == body["name"]


async def test_refused_input_is_bounded_and_without_secrets(serve: Any) -> None:
    async with serve(router()) as http:
        answer = await http.post(
            "/api/v1/items", json={"name": {"x": "y" * 100_000}, "password": 17, "count": "z" * 9999}
        )
        missing = await http.post("/api/v1/items", json={"password": "hunter2", "count": 10**40})
    assert answer.status_code == missing.status_code == 422
    assert len(answer.content) < 3_000
    assert b"hunter2" not in missing.content
    by_place = {tuple(item["loc"]): item for item in answer.json()["detail"]}
    assert by_place["body", "password"]["input"] == "[redacted]"


@pytest.mark.parametrize(
    ("path", "loc"),
    [
        ("/api/v1/items/a%00b", ["path", "item_id"]),
        ("/api/v1/items/a?q=x%00y", ["query", "q"]),
        ("/api/v1/items/a?other=%00", ["query", "other"]),
    ],
)
async def test_nul_in_the_address_is_refused(serve: Any, path: str, loc: list[str]) -> None:
    async with serve(router()) as http:
        answer = await http.get(path)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == loc


async def test_a_body_above_the_limit_is_413_and_a_route_may_raise_it(serve: Any) -> None:
    body = b'{"name": "' + b"x" * 1_100_000 + b'"}'

    async def chunks() -> Any:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    async with serve(router()) as http:
        declared = await http.post("/api/v1/items", content=body, headers=JSON)
        streamed = await http.post("/api/v1/items", content=chunks(), headers=JSON)
        large = await http.post("/api/v1/items/large", content=body, headers=JSON)
        too_large = await http.post("/api/v1/items/large", content=b"x" * 3_000_001, headers=JSON)
    assert declared.status_code == streamed.status_code == too_large.status_code == 413
    assert declared.json()["code"] == "request.too_large"
    assert streamed.headers["content-type"] == "application/problem+json"
    assert (large.status_code, large.json()) == (200, 1_100_000)


async def test_a_form_with_nul_is_refused(serve: Any) -> None:
    from fastapi import Form

    made = APIRouter(prefix="/api/v1/forms", tags=["forms"])

    @made.post("")
    async def submit(title: str = Form()) -> str:
        return title

    async with serve(made) as http:
        good = await http.post("/api/v1/forms", data={"title": "a"})
        bad: httpx2.Response = await http.post("/api/v1/forms", data={"title": "a\x00"})
    assert good.json() == "a"
    assert (bad.status_code, bad.json()["detail"][0]["loc"]) == (422, ["body", "title"])
