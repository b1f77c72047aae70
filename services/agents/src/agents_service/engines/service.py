"""Engines: what does the work of an attempt inside its sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agents_service.engines import adapters, rules
from agents_service.engines.rules import CommandOutcome, Confinement, Outcome, WorkPlan

Report = Callable[[str, dict[str, Any]], Awaitable[None]]
"""`await report(event_type, event_data)`; waits while too much is unsent."""


@dataclass(slots=True)
class Job:
    """One attempt as an engine sees it. `timeout_s` bounds all of its commands together."""

    plan: WorkPlan
    confinement: Confinement
    environment: Mapping[str, str]
    timeout_s: float
    report: Report
    current: adapters.Process | None = None
    stop_reason: str | None = None
    interrupted: bool = False
    began: float = field(default_factory=time.monotonic)

    async def stop(self, reason: str) -> None:
        """End the work: the running command with everything it started, and no command after it."""
        self.stop_reason = self.stop_reason or reason
        if self.current is not None:
            await self.current.stop()

    async def interrupt(self) -> None:
        """End the running command only."""
        if self.current is not None:
            self.interrupted = True
            await self.current.stop()


class Engine(Protocol):
    """Does the work of an attempt and says how it went; what it runs, it reports."""

    async def run(self, job: Job) -> Outcome:
        """Work until done, failed or stopped."""
        ...


class CommandEngine:
    """Runs the task's commands in order, each in a shell, until one fails."""

    async def run(self, job: Job) -> Outcome:
        """Every line of output is an event."""
        done: list[CommandOutcome] = []
        for index, command in enumerate(job.plan.commands):
            outcome = await run_command(job, index, command, ["/bin/sh", "-c", command])
            done.append(outcome)
            if outcome.exit_code != 0 or outcome.stopped is not None or job.stop_reason is not None:
                break
        error = rules.error_of(done)
        return Outcome(error is None, job.plan.engine, tuple(done), error)


class CliEngine:
    """Drives a coding CLI by its command template; the prompt is a file beside the work tree."""

    async def run(self, job: Job) -> Outcome:
        """The CLI's output is reported as the command engine's is."""
        prompt = f"{job.confinement.home}/prompt.md"
        await asyncio.to_thread(
            adapters.write_prompt, prompt, job.plan.prompt, job.confinement.uid, job.confinement.gid
        )
        command = rules.fill_template(job.plan.template, prompt, job.confinement.workdir)
        outcome = await run_command(job, 0, command, ["/bin/sh", "-c", command])
        error = rules.error_of([outcome])
        return Outcome(error is None, job.plan.engine, (outcome,), error)


ENGINES: Mapping[str, Engine] = {"command": CommandEngine(), "cli": CliEngine()}


async def work(job: Job) -> Outcome:
    """Run the engine that the plan asks for."""
    if job.plan.error is not None:
        return Outcome(False, job.plan.engine, error=job.plan.error, permanent=True)
    return await ENGINES[job.plan.engine].run(job)


async def run_command(job: Job, index: int, command: str, argv: list[str]) -> CommandOutcome:
    """Run one command, reporting its start, each line of its output, and its end."""
    await job.report("agent.tool_use", {"tool": "Bash", "input": {"command": rules.shown(command)}, "index": index})
    began = time.monotonic()
    left_s = job.timeout_s - (began - job.began)
    if job.stop_reason is not None or left_s <= 0:
        return CommandOutcome(command, -15, 0, job.stop_reason or "Timed out")
    job.interrupted = False
    process = await adapters.start(argv, job.environment, job.confinement)
    job.current = process

    async def line(stream: str, text: bytes) -> None:
        for piece, continued in rules.split_line(text):
            data: dict[str, Any] = {"line": piece, "stream": stream, "index": index}
            if continued:
                data["continued"] = True
            await job.report("agent.output", data)

    stopped: str | None = None
    reading = asyncio.ensure_future(process.output(line))
    try:
        if job.stop_reason is not None:
            await process.stop()
        done, _ = await asyncio.wait([reading], timeout=left_s)
        if not done:
            stopped = f"Timed out after {job.timeout_s:g} s"
            await process.stop()
        exit_code = await reading
    finally:
        job.current = None
        if not reading.done():
            await process.stop()
            reading.cancel()
    if job.stop_reason is not None:
        stopped = job.stop_reason
    elif job.interrupted and stopped is None:
        stopped = "Interrupted by a message"
    outcome = CommandOutcome(command, exit_code, round((time.monotonic() - began) * 1000), stopped)
    await job.report(
        "agent.tool_completed",
        {
            "tool": "Bash",
            "tool_input": {"command": rules.shown(command)},
            "tool_response": outcome.as_dict(),
            "index": index,
        },
    )
    return outcome


async def why_no_bubblewrap(uid: int | None, *, network: bool) -> str | None:
    """Why commands of this user id cannot be wrapped; None when they can."""
    return await adapters.why_no_bubblewrap(uid, network=network)
