"""What a stream drops before a durable has handled it goes to that durable again from the outbox."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from omoios.identity.events.v1.events_pb2 import OrganizationCreated, UserRegistered
from servicekit.events import Consumers
from servicekit.events.readers import Place, Reader, judge
from servicekit.events.topology import apply

EVENTS = 300


def group_of(name: str, kind: Any, seen: list[str]) -> Consumers:
    group = Consumers(name)

    @group.on(kind)
    async def handle(_tx: Any, event: Any) -> None:
        seen.append(event.aggregate_id)

    return group


async def small_stream(kit: Any, *parties: Any) -> None:
    """Room for about a fifth of what `fill` says."""
    plan = await kit.topology(*parties)
    plan.streams["IDENTITY"] = replace(plan.streams["IDENTITY"], max_bytes=64 * 1024)
    await apply(kit.js, plan)


async def fill(party: Any, prefix: str = "u", step: int = 25, between: Any = None) -> list[str]:
    """Say `EVENTS` things, a part that the stream has room for at once; `between` them a condition is waited for."""
    names = [f"{prefix}-{number}" for number in range(EVENTS)]
    for start in range(0, EVENTS, step):
        async with party.db.uow() as tx:
            for name in names[start : start + step]:
                tx.emit(UserRegistered(user_id=name, email="x" * 700), aggregate_id=name, version=1)
        if between is not None:
            await party.until(between)
    return names


async def readers(party: Any) -> dict[str, Any]:
    rows = await party.fetch("SELECT durable, handled_seq, lost_from IS NOT NULL FROM stream_readers")
    return {durable: (handled, lost) for durable, handled, lost in rows}


async def published(party: Any) -> bool:
    return bool(await party.pending() == 0)


async def drained(kit: Any, durable: str) -> bool:
    info = await kit.js.consumer_info("IDENTITY", durable)
    return bool(info.num_pending == 0 and info.num_ack_pending == 0)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.events.relay.LOOK_S", 0.0)
    monkeypatch.setattr("servicekit.events.relay.POLL_S", 0.05)


async def test_what_a_full_stream_dropped_reaches_the_durable_that_was_down(kit: Any) -> None:
    identity, billing, vcs = await kit.party("identity"), await kit.party("billing"), await kit.party("vcs")
    late: list[str] = []
    live: list[str] = []
    other: list[str] = []
    billing.groups = [group_of("late", UserRegistered, late), group_of("other", OrganizationCreated, other)]
    vcs.groups = [group_of("live", UserRegistered, live)]
    await small_stream(kit, billing, vcs)
    async with vcs.working():
        async with identity.working():
            await kit.until(lambda: readers(identity))

            async def followed() -> bool:
                """Whether those who lose nothing are known to have kept up."""
                last = (await kit.js.stream_info("IDENTITY")).state.last_seq
                noted = await readers(identity)
                kept_up = [noted[name][0] >= last for name in ("vcs-live-identity", "billing-other-identity")]
                return await published(identity) and all(kept_up)

            names = await fill(identity, between=followed)
            assert (await kit.js.stream_info("IDENTITY")).state.messages < EVENTS / 2

            async def noted() -> bool:
                return bool((await readers(identity))["billing-late-identity"][1])

            await kit.until(noted)
            # Nobody else has lost anything, also the one that is down but waits for other subjects.
            assert [name for name, (_, lost) in (await readers(identity)).items() if lost] == ["billing-late-identity"]
        # The note outlives the relay that made it, and the server's own memory of the durable's place.
        async with identity.working():
            async with billing.working():

                async def mended() -> bool:
                    return not (await readers(identity))["billing-late-identity"][1]

                await kit.until(mended, timeout_s=30)
            await kit.until(lambda: drained(kit, "vcs-live-identity"))
    assert sorted(late) == sorted(names)
    assert sorted(live) == sorted(names)
    assert other == []


async def test_copies_that_are_dropped_themselves_are_sent_once_more(kit: Any) -> None:
    identity, billing = await kit.party("identity"), await kit.party("billing")
    late: list[str] = []
    billing.groups = [group_of("late", UserRegistered, late)]
    await small_stream(kit, billing)
    async with identity.working():
        await kit.until(lambda: readers(identity))
        names = await fill(identity)

        async def noted() -> bool:
            return bool((await readers(identity))["billing-late-identity"][1])

        await kit.until(noted)
        # What is published after the purge would be waiting work, before which nothing is sent again.
        await kit.until(lambda: published(identity))
        # It looks as if it had caught up, so that copies are sent although nobody takes them.
        await kit.js.purge_stream("IDENTITY")

        async def sent() -> bool:
            row = await identity.fetch("SELECT sent_seq FROM stream_readers")
            return bool(row[0][0])

        await kit.until(sent)
        names += await fill(identity, "v")
        await kit.until(lambda: published(identity))
        async with billing.working():
            await kit.until(lambda: set(late) == set(names), timeout_s=30)

            async def mended() -> bool:
                return not (await readers(identity))["billing-late-identity"][1]

            await kit.until(mended, timeout_s=30)
    assert sorted(late) == sorted(names)


NOW = datetime(2026, 1, 1, tzinfo=UTC)
MADE = NOW - timedelta(days=9)
LAST = NOW - timedelta(seconds=5)
KNOWN = Reader("d", MADE, 40, LAST)


@pytest.mark.parametrize(
    ("before", "place", "first", "last", "handled", "lost_from"),
    [
        pytest.param(None, Place(0, 0), 1, 0, 0, None, id="an empty stream"),
        pytest.param(None, Place(0, 7), 1, 7, 0, None, id="a durable that has not begun"),
        pytest.param(None, Place(10, 0), 900, 950, 950, None, id="one that waits for nothing, though far behind"),
        pytest.param(None, Place(10, 3), 900, 950, 899, MADE, id="one that was never looked at, and has work"),
        pytest.param(KNOWN, Place(40, 9), 41, 60, 40, None, id="the next one is there still"),
        pytest.param(KNOWN, Place(40, 9), 42, 60, 41, LAST, id="the next one is gone"),
        pytest.param(KNOWN, Place(899, 9), 900, 950, 899, LAST, id="the server moved it on"),
        pytest.param(KNOWN, Place(899, 0), 900, 950, 950, LAST, id="and nothing of its own is left"),
        pytest.param(KNOWN, Place(50, 9), 45, 60, 50, LAST, id="it went on, whether before or after the drop"),
        pytest.param(
            replace(KNOWN, stream_created=MADE - timedelta(days=1)),
            Place(0, 9),
            1,
            20,
            0,
            None,
            id="a stream made anew",
        ),
    ],
)
def test_a_loss_is_what_was_dropped_beyond_what_was_handled(
    before: Reader | None, place: Place, first: int, last: int, handled: int, lost_from: datetime | None
) -> None:
    found = judge(before, "d", place, created=MADE, first=first, last=last, now=NOW)
    assert (found.handled_seq, found.lost_from) == (handled, lost_from)
    assert (found.lost_to == NOW) is (lost_from is not None)


def test_where_nothing_is_said_nothing_is_written() -> None:
    rest = {"created": MADE, "first": 1, "last": 40}
    assert judge(KNOWN, "d", Place(40, 0), now=NOW, **rest) is KNOWN  # type: ignore[arg-type]
    later = judge(KNOWN, "d", Place(40, 0), now=NOW + timedelta(hours=1), **rest)  # type: ignore[arg-type]
    assert (later.handled_seq, later.handled_at) == (40, NOW + timedelta(hours=1))


def test_a_loss_that_grows_is_sent_again_from_its_beginning() -> None:
    open_loss = replace(KNOWN, lost_from=MADE, lost_to=LAST, sent_seq=77)
    grown = judge(open_loss, "d", Place(40, 9), created=MADE, first=50, last=60, now=NOW)
    assert (grown.lost_from, grown.lost_to, grown.sent_seq) == (MADE, NOW, None)
    same = judge(open_loss, "d", Place(40, 9), created=MADE, first=41, last=60, now=NOW)
    assert (same.lost_to, same.sent_seq) == (LAST, 77)
