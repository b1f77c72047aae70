"""Filters, grants and redaction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring_service.event_streams.filter_rules import BadFilter, Filters, from_query, grants_of, subscribed
from monitoring_service.event_streams.frame_rules import Frame
from monitoring_service.event_streams.redaction_rules import (
    REDACTED,
    TEXT_MAX,
    is_secret_name,
    public_text,
    public_value,
)


def frame(event_type: str = "A", entity_type: str = "task", entity_id: str = "1", project: str = "p") -> Frame:
    return Frame(event_type, entity_type, entity_id, project, "task:read", dict)


NAMES = st.sampled_from(["A", "B", "C"])
CHOICE = st.none() | st.frozensets(NAMES, min_size=1)


@given(CHOICE, CHOICE, CHOICE, NAMES, NAMES, NAMES, NAMES)
def test_and_across_keys_or_inside(
    types: frozenset[str] | None,
    kinds: frozenset[str] | None,
    ids: frozenset[str] | None,
    event_type: str,
    entity_type: str,
    entity_id: str,
    project: str,
) -> None:
    wanted = (
        (types is None or event_type in types)
        and (kinds is None or entity_type in kinds)
        and (ids is None or bool({entity_id, project} & ids))
    )
    assert Filters(types, kinds, ids).match(frame(event_type, entity_type, entity_id, project)) is wanted


def test_an_event_without_a_project_matches_no_empty_id() -> None:
    assert not Filters(entity_ids=frozenset({""})).match(frame(project=""))


def test_query_lists_are_trimmed() -> None:
    assert from_query({"event_types": " A , ,B", "entity_ids": ""}) == Filters(event_types=frozenset({"A", "B"}))
    with pytest.raises(BadFilter):
        from_query({"entity_ids": ",".join("x" * 2 + str(number) for number in range(201))})
    with pytest.raises(BadFilter):
        from_query({"entity_ids": "x" * 201})


def test_a_subscribe_frame_replaces_the_keys_it_names() -> None:
    before = Filters(event_types=frozenset({"A"}), entity_ids=frozenset({"1"}))
    changed = before.changed(subscribed({"type": "subscribe", "event_types": ["B"]}))
    assert changed == Filters(event_types=frozenset({"B"}), entity_ids=frozenset({"1"}))
    assert changed.changed(subscribed({"entity_ids": None})) == Filters(event_types=frozenset({"B"}))
    for bad in ("A", [1], {"a": 1}, 5, [None]):
        with pytest.raises(BadFilter):
            subscribed({"event_types": bad})


def test_grants_leave_out_where_nothing_may_be_read() -> None:
    found = grants_of(["a", "b"], lambda permission, place: place == "a" and permission == "task:read")
    assert found == {"a": frozenset({"task:read"})}


@pytest.mark.parametrize(
    "name", ["token", "GITHUB_TOKEN", "accessToken", "api_key", "apikey", "client_secret", "password", "Authorization"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert public_value({name: "abc", "nested": [{name: {"a": "b"}}]}) == {name: REDACTED, "nested": [{name: REDACTED}]}


@pytest.mark.parametrize("name", ["input_tokens", "session_id", "tool_use_id", "key", "monkey", "turns", "secretary"])
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret_name(name)
    assert public_value({name: "abc"}) == {name: "abc"}


@pytest.mark.parametrize(
    "secret",
    [
        "ghp_" + "a1B2" * 9,
        "sk-" + "a1B2" * 8,
        "AKIA" + "A1B2" * 4,
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0." + "c2ln" * 8,
        "-----BEGIN EC PRIVATE " + "KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----",
    ],
)
def test_secrets_in_text(secret: str) -> None:
    assert public_text(f"before {secret} after") == f"before {REDACTED} after"
    assert secret not in public_text("x" * (TEXT_MAX - 10) + " " + secret)


def test_credentials_in_addresses_and_headers() -> None:
    assert public_text("git clone https://me:pw@example.com/r") == f"git clone https://{REDACTED}@example.com/r"
    assert public_text("Authorization: Bearer abcdefghij0123456789") == f"Authorization: Bearer {REDACTED}"
    assert public_text("task-0123456789abcdefghijklmnop") == "task-0123456789abcdefghijklmnop"


def test_values_are_bounded() -> None:
    assert public_value({"transcript_b64": "x", "a": 1}) == {"a": 1}
    assert len(public_value("x" * 50_000)) == TEXT_MAX + 1
    assert len(public_value(list(range(900)))) == 500
    deep: list[object] = []
    for _ in range(40):
        deep = [deep]
    assert "…" in str(public_value(deep))


def test_a_bad_filter_names_its_key() -> None:
    for key in ("event_types", "entity_types", "entity_ids"):
        with pytest.raises(BadFilter) as error:
            from_query({key: "x" * 201})
        assert error.value.key == key
