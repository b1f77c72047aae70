"""Clock work: a function that runs every so many seconds, on one instance or on each."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servicekit import context, telemetry
from servicekit.errors import AppError
from servicekit.ids import new_id
from servicekit.leader import LeaderLocks
from servicekit.logging import get_logger
from servicekit.tasks import cancel

if TYPE_CHECKING:
    from servicekit.db.hint import CommitHint
    from servicekit.ports import DatabasePart

_log = get_logger(__name__)

PING_S = 5.0
"""How often the connection that listens for hints is tried."""
LISTEN_AGAIN_S = 2.0

FOLLOWER_PAUSE_S = 2.0
"""How often an instance that is not the leader asks for the lock; a dead leader's work goes on after this."""


@dataclass(frozen=True, slots=True)
class Job:
    """``run`` every ``every_s`` seconds, never overlapping itself.

    ``leader``: only the instance that holds the advisory lock of this name runs it. ``jitter``: part of ``every_s``
    by which a pause is randomly shortened or lengthened. ``timeout_s``: a longer run is cancelled and counted as
    failed. After a failure the pause doubles with each further one, up to ``max_backoff_s``. ``wake``: a hint of the
    database that ends the pause at once where the last run succeeded; ``every_s`` is then what a lost hint costs.
    """

    name: str
    every_s: float
    run: Callable[[], Awaitable[object]]
    leader: bool = False
    jitter: float = 0.1
    timeout_s: float = 60.0
    max_backoff_s: float = 60.0
    wake: CommitHint | None = None

    def __post_init__(self) -> None:
        if self.every_s <= 0:
            raise ValueError(f"job {self.name}: every_s must be positive")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"job {self.name}: jitter must be in [0, 1)")


class JobRunner:
    """Runs the jobs of a process; a host part.

    ``grace_s``: how long ``close`` lets a running job finish before it is cancelled. ``database``: where hints of other
    processes are listened for; without it jobs are woken by this process only.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        leader: LeaderLocks | None,
        *,
        grace_s: float = 10.0,
        database: DatabasePart | None = None,
    ) -> None:
        names = [job.name for job in jobs]
        if len(set(names)) != len(names):
            raise ValueError(f"two jobs have one name: {sorted(names)}")
        if leader is None and any(job.leader for job in jobs):
            raise ValueError("a leader job needs a database")
        self._jobs = tuple(jobs)
        self._leader = leader
        self._grace_s = grace_s
        self._database = database
        self._stop = asyncio.Event()
        self._wakes = {job.name: asyncio.Event() for job in jobs if job.wake is not None}
        self._listener: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._runs = telemetry.counter("job_runs_total", "Runs of a job.", ("job", "outcome"))
        self._durations = telemetry.histogram("job_duration_seconds", "Duration of a job's runs.", ("job",))
        self._success = telemetry.gauge("job_last_success_timestamp_seconds", "When a job last succeeded.", ("job",))
        self._leads = telemetry.gauge("job_leader", "Whether this instance leads a job.", ("job",))

    async def start(self) -> None:
        """Starts one task for each job; its first run comes at once."""
        self._stop.clear()
        self._tasks = [asyncio.create_task(self._loop(job), name=f"job-{job.name}") for job in self._jobs]
        if self._wakes and self._database is not None:
            self._listener = asyncio.create_task(self._listen(self._database), name="job-wakes")

    async def close(self) -> None:
        """Starts no further run, lets the running ones finish within the grace period, then cancels them."""
        self._stop.set()
        for job in self._jobs:
            if job.wake is not None:
                job.wake.lead_locally(None)
                self._wakes[job.name].set()
        listener, self._listener = self._listener, None
        if listener is not None:
            await cancel([listener])
        tasks, self._tasks = self._tasks, []
        if tasks:
            await asyncio.wait(tasks, timeout=self._grace_s)
            await cancel(tasks)
        if self._leader is not None:
            await self._leader.close()

    async def _loop(self, job: Job) -> None:
        failures = 0
        await self._pause(random.random() * min(job.every_s * job.jitter, 1.0))
        while not self._stop.is_set():
            leads = not job.leader or await self._lead(job)
            if job.wake is not None:
                # Work that another instance leads is announced to it; what comes during a run is seen by the next one.
                job.wake.lead_locally(self._wakes[job.name].set if leads else None)
                self._wakes[job.name].clear()
            if not leads:
                await self._pause(min(job.every_s, FOLLOWER_PAUSE_S) * random.uniform(0.8, 1.2))
                continue
            failures = 0 if await self._run(job) else failures + 1
            pause = job.every_s
            if failures:
                pause = max(pause, min(job.every_s * 2.0 ** min(failures, 20), job.max_backoff_s))
            # Something is wrong after a failure: no hint may turn the retries into a busy loop.
            wake = None if failures else self._wakes.get(job.name)
            await self._pause(pause * random.uniform(1 - job.jitter, 1 + job.jitter), wake)

    async def _pause(self, seconds: float, wake: asyncio.Event | None = None) -> None:
        if self._stop.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await (wake or self._stop).wait()

    async def _listen(self, database: DatabasePart) -> None:
        """Wakes jobs by the hints of other processes, on a connection of its own that is made again when it breaks."""
        while not self._stop.is_set():
            try:
                await self._follow(database)
            except Exception as error:
                _log.info("hints not heard", cause=f"{type(error).__name__}: {error}")
            await self._pause(LISTEN_AGAIN_S * random.uniform(0.8, 1.2))

    async def _follow(self, database: DatabasePart) -> None:
        connection = await database.connect("wakes")
        try:
            for job in self._jobs:
                if job.wake is not None:
                    event = self._wakes[job.name]
                    await connection.add_listener(job.wake.channel, lambda *_, event=event: event.set())
                    # Hints may have been lost until now.
                    event.set()
            while not self._stop.is_set():
                await self._pause(PING_S)
                await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    async def _lead(self, job: Job) -> bool:
        assert self._leader is not None
        try:
            leads = await self._leader.hold(job.name)
        except Exception as error:
            _log.warning("leader lock not asked for", job=job.name, cause=f"{type(error).__name__}: {error}")
            leads = False
        self._leads.labels(job.name).set(leads)
        return leads

    async def _run(self, job: Job) -> bool:
        started = time.perf_counter()
        run_id = new_id()
        outcome = "failed"
        with context.bind(correlation=run_id, causation=f"job:{job.name}", trace="", subject=f"job:{job.name}"):
            try:
                with telemetry.span(f"job {job.name}"):
                    if job.leader and self._leader is not None:
                        await self._leader.guarded(job.name, self._timed(job))
                    else:
                        await self._timed(job)
                outcome = "ok"
            except TimeoutError as error:
                _log.error("job failed", job=job.name, cause=f"longer than {job.timeout_s} s or {error}")
            except AppError as error:
                _log.warning("job failed", job=job.name, code=error.code, cause=error.detail)
            except Exception as error:
                _log.error("job failed", job=job.name, exc_info=error)
            finally:
                self._runs.labels(job.name, outcome).inc()
                self._durations.labels(job.name).observe(time.perf_counter() - started)
        if outcome == "ok":
            self._success.labels(job.name).set_to_current_time()
        return outcome == "ok"

    async def _timed(self, job: Job) -> None:
        async with asyncio.timeout(job.timeout_s):
            await job.run()
