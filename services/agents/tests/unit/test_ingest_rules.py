"""Placing events, packing them, and the micro-batcher that hands them on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_service.ingest import rules
from agents_service.ingest.batching_service import MicroBatcher
from agents_service.ingest.rules import IncomingEvent, StreamState
from servicekit.errors import AppError
from servicekit.ids import new_id


def stream(**values: Any) -> StreamState:
    names = ("sandbox", "organization", "agent", "task", "ticket", "project", "spec", "execution", "phase")
    base: dict[str, Any] = {f"{name}_id": "x" for name in names}
    base |= {"attempt": 1, "is_open": True, "close_reason": None, "last_sequence": 0, "greatest_event_id": None}
    return StreamState(**(base | values))


def event(event_id: str | None = None, kind: str = "agent.output", data: str = "{}") -> IncomingEvent:
    return IncomingEvent(event_id or new_id(), kind, data, "agent", True)


@given(st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=12))
def test_each_id_gets_one_position_whatever_is_repeated(batches: list[list[int]]) -> None:
    ids = [new_id() for _ in range(31)]
    stored: dict[str, int] = {}
    last, greatest = 0, None
    for batch in batches:
        state = stream(last_sequence=last, greatest_event_id=greatest)
        events = [event(ids[number]) for number in batch]
        asked = rules.to_look_up(state, events)
        # Only what is looked up can be known, so that nothing stored may be missing from it.
        assert {item.event_id for item in events if item.event_id in stored} <= set(asked)
        receipt = rules.place(state, events, {key: stored[key] for key in asked if key in stored})
        assert receipt.accepted + receipt.duplicates == len(events)
        for sequence, placed in state.placed:
            assert placed.event_id not in stored
            stored[placed.event_id] = sequence
        last, greatest = state.last_sequence, state.greatest_event_id
    assert sorted(stored.values()) == list(range(1, len(stored) + 1))
    assert set(stored) == {ids[number] for batch in batches for number in batch}


@given(st.lists(st.integers(2, 100_000), max_size=40))
def test_packs_keep_the_order_and_stay_small(sizes: list[int]) -> None:
    placed = [(number, event(data="x" * size)) for number, size in enumerate(sizes, 1)]
    runs = rules.packs(placed)
    assert [item for run in runs for item in run] == placed
    for run in runs:
        assert len(run) == 1 or sum(len(item.data) for _, item in run) <= rules.PACK_BYTES
    assert len(rules.packs([(n, event()) for n in range(1_001)])) == 3


def test_packs_count_bytes_and_not_characters() -> None:
    placed = [(number, event(data="字" * 33_000)) for number in range(1, 13)]
    runs = rules.packs(placed)
    assert [item for run in runs for item in run] == placed
    assert max(sum(len(item.data.encode()) for _, item in run) for run in runs) <= rules.PACK_BYTES


def test_fencing() -> None:
    assert rules.refusal(stream(), 1) is None
    assert rules.refusal(stream(), None) is None
    for state, attempt, code in (
        (stream(), 2, "agents.attempt_superseded"),
        (stream(is_open=False, close_reason="lost"), 1, "agents.attempt_superseded"),
        (stream(is_open=False, close_reason="completed"), 1, "agents.sandbox_ended"),
        (stream(is_open=False, close_reason="cancelled"), None, "agents.sandbox_ended"),
    ):
        refused = rules.refusal(state, attempt)
        assert refused is not None
        assert refused.code == code


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8), max_size=6))
def test_a_transcript_leaves_and_the_rest_stays(document: dict[str, Any]) -> None:
    document = {**document, "session_id": "s", "transcript_b64": "QQ=="}
    rest, transcript = rules.split_transcript("agent.completed", json.dumps(document).encode())
    assert transcript is not None
    assert transcript.transcript_b64 == "QQ=="
    assert json.loads(rest) == {key: value for key, value in document.items() if key != "transcript_b64"}
    assert rules.split_transcript("agent.output", b"{}") == (b"{}", None)


@pytest.mark.parametrize(
    ("cost", "micro_usd"),
    [("0.25", 250_000), ("1e-9", 1), ("3", 3_000_000), ("1e99", 0), ("-1", 0), ("true", 0), ('"1"', 0), ("NaN", 0)],
)
def test_a_reported_cost_is_usage_without_tokens(cost: str, micro_usd: int) -> None:
    usage = rules.model_usage("agent.completed", f'{{"cost_usd": {cost}}}')
    assert (usage.reported_micro_usd if usage else 0) == micro_usd


def test_model_usage_counts_whole_numbers_only() -> None:
    assert rules.model_usage("agent.completed", '{"input_tokens": null}') is None
    assert rules.model_usage("agent.completed", '{"input_tokens": true, "output_tokens": -1}') is None
    usage = rules.model_usage("agent.completed", '{"input_tokens": 2, "output_tokens": 1.5}')
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (2, 0)
    assert rules.model_usage("agent.output", '{"input_tokens": 2}') is None


async def test_a_batcher_joins_isolates_and_bounds() -> None:
    written: list[list[int]] = []

    async def write(items: Sequence[int]) -> list[int | Exception]:
        written.append(list(items))
        await asyncio.sleep(0.01)
        if 13 in items and len(items) == 1:
            raise RuntimeError("whole")
        return [ValueError("one") if item == 7 else item * 2 for item in items]

    batcher: MicroBatcher[int, int] = MicroBatcher(write, max_weight=50, linger_s=0.002, writers=2, max_pending=150)
    results = await asyncio.gather(*(batcher.submit(n, 1) for n in range(100)), return_exceptions=True)
    assert isinstance(results[7], ValueError)
    assert [result for n, result in enumerate(results) if n != 7] == [n * 2 for n in range(100) if n != 7]
    assert len(written) <= 4
    assert all(len(batch) <= 50 for batch in written)
    with pytest.raises(RuntimeError, match="whole"):
        await batcher.submit(13, 1)
    waiting = [asyncio.ensure_future(batcher.submit(1, 100)) for _ in range(3)]
    with pytest.raises(AppError) as caught:
        await asyncio.gather(*(asyncio.ensure_future(batcher.submit(1, 100)) for _ in range(8)))
    assert caught.value.code == "agents.ingest_busy"
    await asyncio.gather(*waiting)
    left = asyncio.ensure_future(batcher.submit(3, 1))
    await asyncio.sleep(0)
    await batcher.close()
    assert left.result() == 6


async def test_a_caller_that_leaves_does_not_undo_its_write() -> None:
    written: list[int] = []

    async def write(items: Sequence[int]) -> list[int | Exception]:
        await asyncio.sleep(0.02)
        written.extend(items)
        return list(items)

    batcher: MicroBatcher[int, int] = MicroBatcher(write, max_weight=10, linger_s=0.001, max_pending=10)
    gone = asyncio.ensure_future(batcher.submit(1, 1))
    stays = asyncio.ensure_future(batcher.submit(2, 1))
    await asyncio.sleep(0.005)
    gone.cancel()
    assert await stays == 2
    assert written == [1, 2]
