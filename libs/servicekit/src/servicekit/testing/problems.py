"""Assertions on error answers."""

from __future__ import annotations

from typing import Any


def assert_problem(response: Any, status: int, code: str, **members: object) -> dict[str, Any]:
    """Assert that an HTTP answer is the error `code` with `status` and these members; return its body."""
    assert response.status_code == status, f"{response.status_code} instead of {status}: {response.text}"
    body: dict[str, Any] = response.json()
    assert body.get("code") == code, f"{body.get('code')} instead of {code}: {response.text}"
    assert body.get("request_id"), f"no request_id: {response.text}"
    assert "detail" in body, f"no detail: {response.text}"
    kind = response.headers["content-type"].partition(";")[0]
    if isinstance(body["detail"], str):
        assert kind == "application/problem+json", kind
        assert body["status"] == status
        assert body["title"]
    else:
        assert kind == "application/json", kind
    for name, value in members.items():
        assert body.get(name) == value, f"{name} is {body.get(name)!r} instead of {value!r}"
    return body
