"""Jobs: their rhythm, their failures, and one leader over several instances."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from servicekit import context, leader, telemetry
from servicekit.db import Database
from servicekit.db.hint import CommitHint
from servicekit.jobs import Job, JobRunner
from servicekit.leader import LeaderLocks, LeadershipLost
from servicekit.testing.postgres import TestDatabase


@contextlib.asynccontextmanager
async def running(*jobs: Job, db: Database | None = None, grace_s: float = 2.0) -> AsyncIterator[JobRunner]:
    runner = JobRunner(jobs, LeaderLocks(db) if db is not None else None, grace_s=grace_s)
    await runner.start()
    try:
        yield runner
    finally:
        await runner.close()


async def until(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            result = condition()
            if await result if isinstance(result, Awaitable) else result:
                return
            await asyncio.sleep(0.01)


async def test_runs_follow_each_other_and_never_overlap() -> None:
    active = 0
    overlaps = 0
    starts: list[float] = []

    async def work() -> None:
        nonlocal active, overlaps
        overlaps += active
        active += 1
        starts.append(time.monotonic())
        assert context.correlation_id.get()
        assert context.origin_subject.get() == "job:tick"
        await asyncio.sleep(0.08)
        active -= 1

    async with running(Job("tick", every_s=0.02, run=work)):
        await until(lambda: len(starts) >= 4)
    assert overlaps == 0
    assert all(later - earlier >= 0.09 for earlier, later in itertools.pairwise(starts))
    count = len(starts)
    await asyncio.sleep(0.1)
    assert len(starts) == count


async def test_failures_back_off_and_are_counted() -> None:
    starts: list[float] = []

    async def work() -> None:
        starts.append(time.monotonic())
        if len(starts) < 10:
            raise RuntimeError("no")

    async with running(Job("flaky", every_s=0.02, run=work, jitter=0.0, max_backoff_s=0.2)):
        await until(lambda: len(starts) >= 15, 60.0)
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert pauses[0] >= 0.04
    assert pauses[1] >= 0.08
    assert pauses[2] >= 0.16
    # Without its ceiling the ninth would be 10 s long.
    assert all(0.2 <= pause < 5 for pause in pauses[3:9])
    assert min(pauses[9:]) < 0.15
    sample = telemetry.REGISTRY.get_sample_value
    assert sample("job_runs_total", {"job": "flaky", "outcome": "failed"}) == 9
    assert (sample("job_runs_total", {"job": "flaky", "outcome": "ok"}) or 0) >= 1
    assert sample("job_last_success_timestamp_seconds", {"job": "flaky"}) == pytest.approx(time.time(), abs=5)


async def test_a_run_that_takes_too_long_is_cancelled() -> None:
    outcomes: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise

    async with running(Job("endless", every_s=0.01, run=work, timeout_s=0.05)):
        await until(lambda: len(outcomes) >= 2)


async def test_closing_waits_for_the_run_and_then_cancels_it() -> None:
    done: list[str] = []

    async def short() -> None:
        done.append("short started")
        await asyncio.sleep(0.2)
        done.append("short finished")

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            done.append("long cancelled")
            raise

    started = time.monotonic()
    async with running(Job("short", 60, short, jitter=0), Job("long", 60, long, jitter=0), grace_s=2.0):
        await until(lambda: bool(done))
    assert done == ["short started", "short finished", "long cancelled"]
    assert 2.0 <= time.monotonic() - started < 30


async def test_one_leader_and_a_successor(kit_database: TestDatabase) -> None:
    ran: list[str] = []

    def job(name: str) -> Job:
        async def work() -> None:
            ran.append(name)

        return Job("sweep", every_s=0.02, run=work, leader=True)

    async with (
        kit_database.opened() as first_db,
        kit_database.opened() as second_db,
        running(job("second"), db=second_db) as second,
    ):
        await until(lambda: ran.count("second") >= 3)
        async with running(job("first"), db=first_db):
            await asyncio.sleep(0.3)
            assert "first" not in ran
            await second.close()
            count = ran.count("second")
            await until(lambda: ran.count("first") >= 3)
            assert ran.count("second") == count


async def test_a_leader_that_loses_its_connection_stops_its_work(db: Database) -> None:
    started = asyncio.Event()
    locks = LeaderLocks(db, "leader-a")
    rival = LeaderLocks(db, "leader-b")

    async def work() -> None:
        started.set()
        await asyncio.sleep(30)

    assert await locks.hold("sweep")
    assert await locks.hold("sweep")
    assert not await rival.hold("sweep")
    guarded = asyncio.create_task(locks.guarded("sweep", work()))
    await asyncio.wait_for(started.wait(), 5)
    await _terminate(db, "leader-a")
    with pytest.raises(LeadershipLost):
        await asyncio.wait_for(guarded, 5)
    assert not locks.held("sweep")
    await until(lambda: rival.hold("sweep"))
    assert not await locks.hold("sweep")
    await rival.close()
    await until(lambda: locks.hold("sweep"))
    await locks.close()


async def test_a_frozen_leader_is_replaced(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that pings no more stands for one that is stopped: PostgreSQL ends its session."""
    monkeypatch.setattr(leader, "PING_S", 60.0)
    monkeypatch.setattr(leader, "IDLE_LIMIT_S", 1)
    frozen, rival = LeaderLocks(db, "frozen"), LeaderLocks(db, "rival")
    assert await frozen.hold("sweep")
    monkeypatch.setattr(leader, "IDLE_LIMIT_S", 30)
    assert not await rival.hold("sweep")
    await until(lambda: rival.hold("sweep"))
    await rival.close()
    await frozen.close()


async def test_a_ping_keeps_the_lead(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "PING_S", 0.2)
    monkeypatch.setattr(leader, "IDLE_LIMIT_S", 1)
    locks = LeaderLocks(db)
    assert await locks.hold("sweep")
    await asyncio.sleep(1.6)
    assert locks.held("sweep")
    await locks.close()


async def _terminate(db: Database, purpose: str) -> None:
    async with db.reader() as tx:
        connection = await tx.connection()
        ended = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE $1",
            f"%:{purpose}:%",
        )
    assert ended == 1


def test_bad_jobs() -> None:
    async def work() -> None:
        return None

    with pytest.raises(ValueError, match="every_s"):
        Job("x", every_s=0, run=work)
    with pytest.raises(ValueError, match="jitter"):
        Job("x", every_s=1, run=work, jitter=1.5)
    jobs: Any = [Job("x", every_s=1, run=work), Job("x", every_s=1, run=work)]
    with pytest.raises(ValueError, match="one name"):
        JobRunner(jobs, None)
    with pytest.raises(ValueError, match="needs a database"):
        JobRunner([Job("x", every_s=1, run=work, leader=True)], None)


class TestWaking:
    """A hint ends the pause: of this process, of another one, and never of a job that fails."""

    @staticmethod
    @contextlib.asynccontextmanager
    async def waiting(db: Database, wake: CommitHint, runs: list[float], **options: Any) -> AsyncIterator[None]:
        async def work() -> None:
            runs.append(time.monotonic())
            if options.get("fails"):
                raise RuntimeError("no")

        job = Job("slow", every_s=3600.0, run=work, jitter=0, leader=options.get("leader", False), wake=wake)
        runner = JobRunner([job], LeaderLocks(db), database=db)
        await runner.start()
        try:
            await until(lambda: len(runs) >= 1)
            yield
        finally:
            async with asyncio.timeout(5):
                await runner.close()

    async def test_a_commit_of_this_process_wakes_it(self, kit_database: TestDatabase) -> None:
        async with kit_database.opened() as db:
            hint, runs = db.hint("test_work"), list[float]()
            async with self.waiting(db, hint, runs):
                await settle(runs)
                before = len(runs)
                async with db.uow() as tx:
                    tx.on_commit(hint.committed)
                    await (await tx.connection()).execute("SELECT 1")
                    assert len(runs) == before, "not before the commit"
                await until(lambda: len(runs) == before + 1)

    async def test_a_commit_of_another_process_wakes_the_leader(self, kit_database: TestDatabase) -> None:
        async with kit_database.opened() as here, kit_database.opened() as there:
            leader, follower = list[float](), list[float]()
            async with self.waiting(here, here.hint("test_work"), leader, leader=True):
                runner = JobRunner(
                    [
                        Job(
                            "slow",
                            every_s=3600.0,
                            run=lambda: asyncio.sleep(0, follower.append(0.0)),
                            leader=True,
                            wake=there.hint("test_work"),
                        )
                    ],
                    LeaderLocks(there),
                    database=there,
                )
                await runner.start()
                await settle(leader)
                before = len(leader)
                async with asyncio.timeout(30):
                    while len(leader) == before:
                        # Hints are lost until the connection listens.
                        there.hint("test_work").committed()
                        await asyncio.sleep(0.1)
                assert follower == []
                await runner.close()

    async def test_a_job_that_fails_is_not_woken(self, kit_database: TestDatabase) -> None:
        async with kit_database.opened() as db:
            hint, runs = db.hint("test_work"), list[float]()
            async with self.waiting(db, hint, runs, fails=True):
                for _ in range(5):
                    hint.committed()
                    await asyncio.sleep(0.05)
                assert len(runs) == 1


async def settle(runs: list[float]) -> None:
    """Wait until nothing runs any more of what the listening connection wakes at its start."""
    async with asyncio.timeout(30):
        before = -1
        while before != len(runs):
            before = len(runs)
            await asyncio.sleep(0.5)
