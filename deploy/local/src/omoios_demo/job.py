"""The main job, step by step: from a repository and a plan to merged commits."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from omoios_demo import account as accounts
from omoios_demo import repository as repositories
from omoios_demo import sandbox_tools
from omoios_demo.api import Api
from omoios_demo.errors import DemoError
from omoios_demo.live import LiveEvents
from omoios_demo.progress import Progress, merged_by_themselves, still_open
from omoios_demo.repository import Repository
from omoios_demo.screen import Screen
from omoios_local.client import StackClient
from omoios_local.environment import RUNNER_PREFIX
from omoios_local.mailbox import Mailbox
from omoios_local.state import repository_root

RUNNERS = 2
SLOTS = 2
MIRROR_CEILING_S = 300.0
JOIN_CEILING_S = 60.0
POLL_S = 0.7
ENDED = ("completed", "failed", "cancelled")
DEFAULT_PLAN = repository_root() / "examples" / "repository-report.md"


@dataclass(frozen=True)
class Options:
    """What the person asked for. `ceiling_s`: how long the agents may work."""

    source: str
    plan: Path
    push: bool
    ceiling_s: float


@dataclass
class Done:
    """What the job left behind, for the report."""

    repository: Repository
    project: Mapping[str, Any]
    organization_id: str
    spec: Mapping[str, Any]
    execution_id: str
    tasks: list[Mapping[str, Any]] = field(default_factory=list)
    work_s: float = 0.0


class Job:
    """One run of the demo against one stack."""

    def __init__(self, client: StackClient, screen: Screen, options: Options) -> None:
        self.client = client
        self.screen = screen
        self.options = options
        self.live: LiveEvents | None = None
        self._api: Api | None = None
        self._progress: Progress | None = None

    @property
    def api(self) -> Api:
        assert self._api is not None
        return self._api

    @property
    def progress(self) -> Progress:
        assert self._progress is not None
        return self._progress

    def run(self) -> Done:
        """Everything up to the end of the execution. Raises DemoError, ControlError, StateError."""
        plan = self._plan()
        self._start_stack()
        repository = self._prepare_repository()
        account = self._enter()
        project = self._create_project(account, repository)
        spec = self._create_spec(project, plan)
        self._start_runners(account)
        self.live = LiveEvents(self.api.url, self._token, str(project["id"]), self.progress.event)
        with self.live:
            if not self.live.wait_connected(20):
                raise DemoError(f"the event stream does not open: {self.live.last_error}")
            execution_id = self._execute(spec)
            done = Done(repository, project, account.organization_id, spec, execution_id)
            done.work_s = self._watch(done)
            # What follows the last task, such as billing's settlement, is still told.
            self._settle(done)
        return done

    def _plan(self) -> str:
        try:
            return self.options.plan.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DemoError(f"the plan {self.options.plan} cannot be read: {error}") from error

    def _start_stack(self) -> None:
        with self.screen.step("stack", "starting PostgreSQL, NATS, Redis, six services and the gateway") as step:
            self.client.up()
            url = self.client.stack().environments.public_url
            self._api = Api(url)
            self._progress = Progress(self._api, self.screen)
            running = sum(1 for unit in self.client.status() if unit.get("pid"))
            step.done(f"{running} processes are ready; the gateway listens on {url}")

    def _prepare_repository(self) -> Repository:
        with self.screen.step("repository", f"cloning {repositories.without_credentials(self.options.source)}") as step:
            found = repositories.prepare(self.options.source, self.client.state.repositories)
            if self.options.push and found.origin is None:
                raise DemoError(f"{found.name} was {found.how}: there is nothing to push to")
            step.done(f"{found.name}, branch {found.branch}, {found.commits} commits, {found.how}")
        return found

    def _enter(self) -> accounts.Account:
        with self.screen.step("account", "signing in") as step:
            found, new = accounts.enter(self.api, self.client.state.secrets, Mailbox(self.client.state.mail))
            how = "registered" if new else "signed in as"
            step.done(f"{how} {found.email}, organization {found.organization}")
        return found

    def _create_project(self, account: accounts.Account, repository: Repository) -> Mapping[str, Any]:
        with self.screen.step("project", "creating a project on the repository and mirroring it") as step:
            now = datetime.now().astimezone()
            project = self.api.post(
                "/projects",
                {
                    "organization_id": account.organization_id,
                    "name": f"{repository.name} {now:%Y-%m-%d %H:%M:%S}",
                    "repository_url": str(repository.path),
                },
            )
            deadline = time.monotonic() + MIRROR_CEILING_S
            while project["repository_state"] != "ready":
                if project["repository_state"] == "failed":
                    raise DemoError(f"the repository cannot be mirrored: {project['repository_error']}")
                if time.monotonic() > deadline:
                    raise DemoError(f"the mirror is not ready after {MIRROR_CEILING_S:g} s")
                time.sleep(0.3)
                project = self.api.get(f"/projects/{project['id']}")
            head = str(project["head_sha"])[:10]
            step.done(f"{project['name']}, mirrored at {project['default_branch']} {head}")
        return dict(project)

    def _create_spec(self, project: Mapping[str, Any], plan: str) -> Mapping[str, Any]:
        with self.screen.step("spec", f"reading the plan {self.options.plan.name}") as step:
            spec = self.api.post("/specs", {"project_id": project["id"], "engine": "plan", "plan": plan})
            counts = f"{len(spec['requirements'])} requirements, {spec['linked_tickets']} tickets"
            step.done(f"{spec['title']}: {counts}, {len(spec['tasks'])} tasks")
        self.progress.show(spec, [])
        return dict(spec)

    def _start_runners(self, account: accounts.Account) -> None:
        with self.screen.step("runners", f"starting {RUNNERS} runners with {SLOTS} slots each") as step:
            tools = sandbox_tools.prepare(self.client.state.directory / "tools")
            for name in [name for name in os.environ if name.startswith(RUNNER_PREFIX)]:
                del os.environ[name]
            os.environ |= {
                f"{RUNNER_PREFIX}NAME": "demo",
                f"{RUNNER_PREFIX}TOKEN_FILE": str(accounts.runner_key_file(self.client.state.secrets, account)),
                f"{RUNNER_PREFIX}ORGANIZATION": account.organization_id,
                f"{RUNNER_PREFIX}SLOTS": str(SLOTS),
                f"{RUNNER_PREFIX}TOOLS": str(tools),
                f"{RUNNER_PREFIX}PATH": "/usr/local/bin:/usr/bin:/bin",
            }
            # Runners of an earlier run may work for another organization: the settings are theirs from their start on.
            if any(unit["part"] == "runner" for unit in self.client.status()):
                self.client.stop(["runner"])
            began = datetime.now().astimezone()
            self.client.up(instances={"runner": RUNNERS})
            deadline = time.monotonic() + JOIN_CEILING_S
            while (joined := self._joined(account, began)) < RUNNERS:
                if time.monotonic() > deadline:
                    raise DemoError(f"{joined} of {RUNNERS} runners joined within {JOIN_CEILING_S:g} s")
                time.sleep(0.3)
            step.done(f"{RUNNERS} runners joined over the public API, {RUNNERS * SLOTS} tasks at once")

    def _joined(self, account: accounts.Account, since: datetime) -> int:
        agents = self.api.get("/agents", organization_id=account.organization_id, limit=20)
        # The clocks are one machine's; a second covers what is lost in rounding.
        return sum(1 for agent in agents if (since - datetime.fromisoformat(agent["created_at"])).total_seconds() < 1)

    def _execute(self, spec: Mapping[str, Any]) -> str:
        with self.screen.step("execute", "reserving at billing and starting the execution") as step:
            begun = self.api.post(f"/specs/{spec['id']}/execute")
            step.done(f"{begun['message']}, execution {begun['execution_id']}")
        return str(begun["execution_id"])

    def _watch(self, done: Done) -> float:
        """Follow the execution to its end; returns its seconds. Raises DemoError when it did not complete."""
        began = time.monotonic()
        with self.screen.step("work", "agents work in their sandboxes, branches are merged as they finish") as step:
            while True:
                spec = self.api.get(f"/specs/{done.spec['id']}")
                done.spec, done.tasks = spec, self.progress.tasks(spec)
                self.progress.show(spec, done.tasks)
                if spec["execution_status"] in ENDED:
                    break
                if time.monotonic() - began > self.options.ceiling_s:
                    raise DemoError(
                        f"not done after {self.options.ceiling_s:g} s; open: {', '.join(still_open(done.tasks))}"
                    )
                time.sleep(POLL_S)
            took_s = time.monotonic() - began
            done.tasks = [self.api.get(f"/tasks/{task['id']}") for task in done.tasks]
            if spec["execution_status"] != "completed":
                raise DemoError(f"the execution {spec['execution_status']}:\n{self.progress.why(done.tasks)}")
            retried = sum(1 for task in done.tasks if task["retry_count"])
            merged = len(merged_by_themselves(done.tasks))
            step.done(f"{len(done.tasks)} tasks done, {retried} after a retry, {merged} branches merged")
        return took_s

    def _settle(self, done: Done) -> None:
        with self.screen.step("billing", "waiting for the reservation to be settled") as step:
            assert self.live is not None
            deadline = time.monotonic() + 30
            while not self.live.counts["billing.reservation.settled"]:
                if time.monotonic() > deadline:
                    raise DemoError(f"the reservation of execution {done.execution_id} was not settled within 30 s")
                time.sleep(0.1)
            step.done("the reservation was settled")

    def _token(self) -> str:
        return self.api.token or ""


def logs_hint(client: StackClient) -> str:
    """Where to look when something went wrong."""
    offset = f"OMOIOS_PORT_OFFSET={client.offset} " if client.offset else ""
    return f"logs: {client.state.logs} ({offset}make logs part=workflow); state of the stack: {offset}make status"
