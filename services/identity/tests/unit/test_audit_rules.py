"""The audit chain finds every change."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from identity_service.audit import rules

KEY = b"k" * 32
START = datetime(2026, 1, 1, tzinfo=UTC)


def chain_of(length: int) -> tuple[list[rules.Entry], rules.Head]:
    """(sealed entries, head) of a chain."""
    entries = [
        rules.Entry(
            id=f"entry-{number}",
            action="member.added",
            actor_type="user",
            actor_id="ada",
            subject_id="bob",
            organization_id="org",
            address=None,
            details={"number": number, "text": "ü"},
            created_at=START + timedelta(seconds=number),
        )
        for number in range(length)
    ]
    heads = rules.seal(KEY, rules.Head(), entries)
    sealed = [
        replace(entry, position=head.position, digest=head.digest) for entry, head in zip(entries, heads, strict=True)
    ]
    return sealed, heads[-1]


def verdict(entries: list[rules.Entry], head: rules.Head, key: bytes = KEY) -> rules.Break | None:
    reached = rules.follow(key, rules.Head(), sorted(entries, key=lambda entry: entry.position or 0))
    return reached if isinstance(reached, rules.Break) else rules.compare(reached, head)


def test_a_whole_chain_holds_also_when_sealed_in_pieces() -> None:
    entries, head = chain_of(7)
    assert verdict(entries, head) is None
    unsealed = [replace(entry, position=None, digest=None) for entry in entries]
    first = rules.seal(KEY, rules.Head(), unsealed[:3])
    assert rules.seal(KEY, first[-1], unsealed[3:])[-1] == head


@given(
    st.integers(1, 12).flatmap(lambda length: st.tuples(st.just(length), st.integers(0, length - 1))),
    st.sampled_from(
        ["id", "action", "actor_type", "actor_id", "subject_id", "organization_id", "address", "details", "created_at"]
    ),
)
def test_an_edit_of_any_field_is_found_where_it_is(place: tuple[int, int], field: str) -> None:
    length, index = place
    entries, head = chain_of(length)
    changed = {"details": {"number": -1}, "created_at": START - timedelta(microseconds=1)}.get(field, "other")
    entries[index] = replace(entries[index], **{field: changed})
    broken = verdict(entries, head)
    assert broken is not None
    assert (broken.position, broken.entry_id) == (index + 1, entries[index].id)


@given(st.integers(1, 12).flatmap(lambda length: st.tuples(st.just(length), st.integers(0, length - 1))))
def test_a_deletion_is_found_also_at_the_end(place: tuple[int, int]) -> None:
    length, index = place
    entries, head = chain_of(length)
    del entries[index]
    broken = verdict(entries, head)
    assert broken is not None
    assert (broken.position, broken.entry_id) == (index + 1, None)


@given(st.permutations(range(6)))
def test_another_order_is_found(order: list[int]) -> None:
    entries, head = chain_of(6)
    moved = [replace(entries[source], position=place + 1) for place, source in enumerate(order)]
    broken = verdict(moved, head)
    if order == list(range(6)):
        assert broken is None
    else:
        first = next(place for place, source in enumerate(order) if place != source)
        assert broken is not None
        assert (broken.position, broken.entry_id) == (first + 1, moved[first].id)


def test_a_forged_chain_needs_the_key_and_the_head() -> None:
    entries, head = chain_of(3)
    assert verdict(entries, head, key=b"other" * 8) is not None
    assert verdict(entries, rules.Head(2, entries[1].digest or b"")) is not None
    longer, _ = chain_of(4)
    assert verdict(longer, head) is not None
