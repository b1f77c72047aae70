"""One attempt in one slot: sandbox, work, commit, push, result."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from agents_service.engines import rules as engine_rules
from agents_service.engines.service import Job, work
from agents_service.runners import rules
from agents_service.runners.adapters import Api, Over, Refused, SandboxApi, Unreachable
from agents_service.runners.git_adapters import GitFailed, Workspace
from agents_service.runners.settings_adapters import RunnerSettings
from agents_service.runners.stream_service import EventStream

_log = logging.getLogger(__name__)

MESSAGE_WAIT_S = 10.0
RELEASE_REASON_MAX = 500
ERROR_MAX = 2_000
"""Characters of a reason that the runner itself gives for a failure."""


class AttemptWork:
    """Works on one claim until it is completed, failed, or over."""

    def __init__(
        self, api: Api, settings: RunnerSettings, claim: Mapping[str, Any], slot: int, *, wrapped: bool
    ) -> None:
        sandbox = claim["sandbox"]
        self.claim = claim
        self.agent_id = api.agent_id
        self.settings = settings
        self.task = claim["task"]
        self.api = SandboxApi(api, sandbox["id"], sandbox["token"])
        self.stream = EventStream(self.api)
        root = os.geteuid() == 0
        uid = rules.sandbox_uid(settings.sandbox_uid_base, os.getpid(), slot) if root else None
        self.folders = Workspace(settings.workdir / f"{os.getpid()}-{sandbox['id']}", uid)
        self.wrapped = wrapped
        self.job: Job | None = None
        self.over: str | None = None
        self.releasing = False

    async def run(self) -> None:
        """The whole attempt; whatever happens, its processes and folders are gone at the end."""
        helpers = [
            asyncio.create_task(self.stream.run()),
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._listen()),
        ]
        try:
            await self._attempt(helpers)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            if not self.settings.keep_folders:
                await asyncio.shield(asyncio.to_thread(self.folders.remove))

    async def _attempt(self, helpers: Sequence[asyncio.Task[None]]) -> None:
        try:
            await asyncio.to_thread(self.folders.make)
        except OSError as error:
            # This machine is at fault, not the task: another runner may do better.
            _log.error("no folder for attempt %s: %s", self.api.sandbox_id, error)
            await self.api.release(f"the runner cannot make a folder: {error}"[:RELEASE_REASON_MAX])
            await asyncio.sleep(rules.BACKOFF_MAX_S)
            return
        try:
            await self._beside(helpers)
        except Over as error:
            _log.info("attempt %s is over: %s", self.api.sandbox_id, error)
        except Refused as error:
            _log.error("attempt %s was refused: %s", self.api.sandbox_id, error)
            await self._give_in(f"The API refused what the runner sent: {error}")
        except Exception as error:
            _log.exception("attempt %s failed in the runner", self.api.sandbox_id)
            await self._give_in(f"The runner failed: {type(error).__name__}: {error}")

    async def _give_in(self, reason: str) -> None:
        """Say that the attempt failed, so that the task does not have to wait for its lease."""
        if self.over is not None or self.releasing:
            return
        body = {"task_id": self.task["id"], "success": False, "error_message": reason[:ERROR_MAX]}
        try:
            await self.api.post("/task-complete", body)
        except (Over, Refused) as error:
            _log.error("the failure of %s was not taken: %s", self.api.sandbox_id, error)

    async def _beside(self, helpers: Sequence[asyncio.Task[None]]) -> None:
        """The work, for as long as no helper fails: it would wait for ever for a stream that nobody sends."""
        work = asyncio.create_task(self._work())
        try:
            waiting: set[asyncio.Task[None]] = {work, *helpers}
            while not work.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for ended in done:
                    ended.result()
        finally:
            if not work.done():
                if self.job is not None:
                    await asyncio.shield(self.job.stop("The runner goes away"))
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def release(self) -> None:
        """Stop and give the task back."""
        self.releasing = True
        if self.job is not None:
            await self.job.stop("The runner goes away")
        await self.api.release("the runner is going away")

    async def _work(self) -> None:
        plan = engine_rules.plan_of(self.task, self.claim.get("context") or {})
        await self.stream.put(
            "agent.started",
            {
                "engine": plan.engine,
                "isolation": "bubblewrap" if self.wrapped else "local",
                "task": self.task["title"],
                "ticket_title": rules.ticket_title(self.claim.get("context")),
            },
        )
        repository = self.claim.get("repository")
        start = ""
        if repository is not None:
            try:
                start = await self._clone(repository)
            except GitFailed as failed:
                await self._hand_in(False, {"engine": plan.engine, "commands": []}, str(failed), "")
                return
        else:
            await asyncio.to_thread(self.folders.hand_over)
        outcome = await self._engine(plan)
        self._check()
        head, error = "", outcome.error
        if outcome.success and repository is not None:
            try:
                message = rules.commit_message(self.task)
                head = await self.folders.commit(message, "OmoiOS agent", start, self._confinement())
                if head:
                    await self.folders.push(repository["clone_url"], repository["branch"], head, self.api.token)
            except GitFailed as failed:
                error = f"The work could not be committed: {failed}"
        self._check()
        branch = repository["branch"] if repository is not None else None
        await self.stream.put("agent.completed", {"success": error is None, "branch_name": branch, "head_sha": head})
        await self._hand_in(error is None, outcome.result(), error, head, permanent=outcome.permanent)

    async def _clone(self, repository: Mapping[str, Any]) -> str:
        wrong = rules.check_repository(repository["clone_url"], repository["branch"], repository["base_sha"])
        if wrong is not None:
            raise GitFailed(wrong)
        return await self.folders.clone(
            repository["clone_url"], repository["branch"], repository["base_sha"], self.api.token
        )

    async def _engine(self, plan: engine_rules.WorkPlan) -> engine_rules.Outcome:
        inherited = dict(os.environ)
        if self.settings.path is not None:
            inherited["PATH"] = self.settings.path
        if self.settings.tools is not None:
            inherited["PATH"] = f"{self.settings.tools}:{inherited.get('PATH', os.defpath)}"
        environment = engine_rules.environment_of(
            inherited,
            plan.environment,
            home=str(self.folders.home),
            tmp=str(self.folders.tmp),
            ids={
                "OMOIOS_TASK_ID": str(self.task["id"]),
                "OMOIOS_SANDBOX_ID": self.api.sandbox_id,
                "OMOIOS_ATTEMPT": str(self.claim["attempt"]),
            },
        )
        self.job = Job(
            plan=plan,
            confinement=self._confinement(),
            environment=environment,
            timeout_s=float(self.claim["limits"]["timeout_s"]),
            report=self.stream.put,
        )
        if self.over is not None or self.releasing:
            raise Over(self.over or "released")
        return await work(self.job)

    def _confinement(self) -> engine_rules.Confinement:
        hidden, hidden_files = self.settings.hidden_from(self.folders.uid)
        return engine_rules.Confinement(
            workdir=str(self.folders.work),
            home=str(self.folders.home),
            uid=self.folders.uid,
            gid=self.folders.uid,
            hidden=hidden,
            hidden_files=hidden_files,
            shown=(str(self.settings.tools),) if self.settings.tools is not None else (),
            bubblewrap=self.wrapped,
            network=self.settings.network,
        )

    async def _hand_in(
        self, success: bool, result: Mapping[str, Any], error: str | None, head: str, *, permanent: bool = False
    ) -> None:
        await self.stream.flush()
        self._check()
        body = {
            "task_id": self.task["id"],
            "success": success,
            "result": dict(result),
            "error_message": error,
            "head_sha": head,
            "permanent": permanent,
        }
        try:
            answer = await self.api.post("/task-complete", body)
        except Refused as refused:
            if not success:
                raise
            body |= {"success": False, "head_sha": "", "error_message": f"The result was refused: {refused}"}
            answer = await self.api.post("/task-complete", body)
        _log.info("task %s: %s", self.task["id"], answer.get("new_status"))

    async def _beat(self) -> None:
        interval_s = float(self.claim["heartbeat_interval_s"])
        while self.over is None:
            await asyncio.sleep(interval_s)
            try:
                answer = await self.api.heartbeat()
            except Over as error:
                await self._end(str(error))
            except (Unreachable, Refused) as error:
                _log.warning("heartbeat of %s: %s", self.api.sandbox_id, error)
            else:
                if answer["state"] != "running":
                    await self._end(str(answer["state"]))

    async def _listen(self) -> None:
        failures = 0
        while self.over is None:
            try:
                messages = await self.api.messages(MESSAGE_WAIT_S)
            except Over:
                return
            except Unreachable:
                await asyncio.sleep(rules.backoff_s(failures))
                failures += 1
                continue
            failures = 0
            for message in messages:
                kind = message["message_type"]
                if kind == "interrupt" and self.job is not None:
                    await self.job.interrupt()
                await self.stream.put(
                    "agent.interrupted" if kind == "interrupt" else "agent.message_injected",
                    {"message_id": message["id"], "message_type": kind, "content": message["content"]},
                )
            if not messages:
                # An older server does not wait; asking at once again would keep both busy.
                await asyncio.sleep(rules.BACKOFF_FIRST_S)

    async def _end(self, why: str) -> None:
        self.over = self.over or why
        self.stream.over = self.stream.over or why
        with contextlib.suppress(asyncio.CancelledError):
            if self.job is not None:
                await self.job.stop(f"The attempt is over ({why})")

    def _check(self) -> None:
        why = self.over or self.stream.over
        if why is not None or self.releasing:
            raise Over(why or "released")
