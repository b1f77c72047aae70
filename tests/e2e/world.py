"""What the journeys do as a client does: through the gateway only, with real runners beside it."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from omoios_local.client import StackClient
from omoios_local.mailbox import Mailbox

PASSWORD = "Walk-the-Whole-Way-1!"
# Ceilings are generous: the machine may be busy with something else.
WORK_CEILING_S = 120.0
SOON_S = 30.0
_NUMBERS = itertools.count(1)

Frame = Mapping[str, Any]


def eventually(check: Callable[[], Any], what: str, ceiling_s: float = SOON_S, pause_s: float = 0.2) -> Any:
    """The first true answer of `check`."""
    deadline = time.monotonic() + ceiling_s
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {ceiling_s:g} s: {what}"
        time.sleep(pause_s)
    return found


@dataclass
class Person:
    """A signed-in user."""

    http: httpx2.Client
    email: str
    user_id: str
    token: str
    refresh_token: str

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.http.request(method, f"/api/v1{path}", json=body, params=query or None, headers=headers)

    def ok(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The document of an answer that must be a success."""
        answer = self.call(method, path, body, **query)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def get(self, path: str, **query: Any) -> Any:
        return self.ok("GET", path, **query)

    def post(self, path: str, body: Any = None) -> Any:
        return self.ok("POST", path, body)


@dataclass
class Tenant:
    """An organization, its owner, and a project on a repository of its own."""

    owner: Person
    organization_id: str
    project_id: str
    repository: Path


@dataclass
class Runner:
    """A runner process of one tenant."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """As by a power cut: the process and everything in its sandboxes."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass
class World:
    """The running stack and everybody in it."""

    client: StackClient
    http: httpx2.Client
    directory: Path
    runners: list[Runner] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.client.stack().environments.public_url

    def register(self, *, confirmed: bool = True) -> Person:
        """A new user who has signed in, his address confirmed or not."""
        email = f"e2e-{next(_NUMBERS)}-{secrets.token_hex(3)}@example.com"
        answer = self.http.post("/api/v1/auth/register", json={"email": email, "password": PASSWORD, "full_name": "E"})
        assert answer.status_code == 201, answer.text
        person = Person(self.http, email, answer.json()["id"], "", "")
        if confirmed:
            token = self.secret(email, "/verify-email")
            answer = self.http.post("/api/v1/auth/verify-email", json={"token": token})
            assert answer.status_code == 200, answer.text
        self.sign_in(person)
        return person

    def secret(self, email: str, path: str) -> str:
        """The token of the newest mailed link to a path of the web client."""
        return Mailbox(self.client.state.mail).secret(email, path, SOON_S)

    def sign_in(self, person: Person) -> None:
        answer = self.http.post("/api/v1/auth/login", json={"email": person.email, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        # What is not signed here must not be signed by a cookie.
        self.http.cookies.clear()
        person.token, person.refresh_token = answer.json()["access_token"], answer.json()["refresh_token"]

    def tenant(self, files: Mapping[str, str] | None = None) -> Tenant:
        """A new user with an organization and a project on a new repository, which is mirrored."""
        owner = self.register()
        mark = secrets.token_hex(4)
        organization = owner.post("/organizations", {"name": f"Org {mark}", "slug": f"org-{mark}"})
        repository = self.repository(f"repo-{mark}", files or {"README.md": "# A repository\n"})
        project = owner.post(
            "/projects",
            {"organization_id": organization["id"], "name": f"Project {mark}", "repository_url": str(repository)},
        )
        eventually(
            lambda: owner.get(f"/projects/{project['id']}")["repository_state"] == "ready", "the mirror is ready"
        )
        return Tenant(owner, organization["id"], project["id"], repository)

    def repository(self, name: str, files: Mapping[str, str]) -> Path:
        """A git repository with one commit, below a folder that the service may read."""
        path = self.client.state.repositories.resolve() / name
        path.mkdir(parents=True)
        for file, content in files.items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_text(content)
        git(path, "init", "--quiet", "--initial-branch=main")
        git(path, "add", "--all")
        git(path, "commit", "--quiet", "--message", "Begin")
        return path

    def runner(self, tenant: Tenant, slots: int = 2) -> Runner:
        """A runner process for this tenant, joined."""
        number = next(_NUMBERS) + 100
        given = {
            "OMOIOS_RUNNER_NAME": "e2e",
            "OMOIOS_RUNNER_EMAIL": tenant.owner.email,
            "OMOIOS_RUNNER_PASSWORD": PASSWORD,
            "OMOIOS_RUNNER_ORGANIZATION": tenant.organization_id,
            "OMOIOS_RUNNER_SLOTS": str(slots),
            "OMOIOS_RUNNER_PATH": "/usr/local/bin:/usr/bin:/bin",
        }
        environment = self.client.stack().environments.runner(number, given)
        workdir = Path(environment["OMOIOS_RUNNER_WORKDIR"])
        workdir.mkdir(parents=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        log = self.directory / f"runner-{number}.log"
        before = len(tenant.owner.get("/agents", organization_id=tenant.organization_id))
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "agents_service.runners.main"],
                env={**environment, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
                cwd=workdir,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        runner = Runner(process, log)
        self.runners.append(runner)

        def joined() -> bool:
            assert process.poll() is None, log.read_text()
            return len(tenant.owner.get("/agents", organization_id=tenant.organization_id)) > before

        eventually(joined, "the runner joins")
        return runner

    def spec(self, tenant: Tenant, plan: str) -> dict[str, Any]:
        body = {"project_id": tenant.project_id, "engine": "plan", "plan": plan}
        return dict(tenant.owner.post("/specs", body))

    def execute(self, tenant: Tenant, plan: str) -> dict[str, Any]:
        """A spec with this plan, its execution begun."""
        spec = self.spec(tenant, plan)
        begun = tenant.owner.post(f"/specs/{spec['id']}/execute")
        assert begun["status"] == "started", begun
        return spec | {"execution_id": begun["execution_id"]}

    def ended(self, tenant: Tenant, spec: Mapping[str, Any], ceiling_s: float = WORK_CEILING_S) -> dict[str, Any]:
        """The spec once its execution has ended, in whatever way."""

        def end() -> Any:
            found = tenant.owner.get(f"/specs/{spec['id']}")
            return found if found["execution_status"] in ("completed", "failed", "cancelled") else None

        return dict(eventually(end, f"the execution of {spec['title']} ends", ceiling_s, 0.4))

    def tasks(self, tenant: Tenant, spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The plan's tasks by their ids in the plan."""
        found = tenant.owner.get(f"/specs/{spec['id']}")["tasks"]
        return {task["local_id"]: tenant.owner.get(f"/tasks/{task['task_id']}") for task in found}

    def merged(self, tenant: Tenant, spec: Mapping[str, Any]) -> Path:
        """A checkout of the branch into which the spec's work was merged, fetched with the owner's token."""
        target = self.directory / f"checkout-{next(_NUMBERS)}"
        url = f"{self.url}/api/v1/git/{tenant.project_id}.git"
        header = f"http.extraHeader=Authorization: Bearer {tenant.owner.token}"
        branch = tenant.owner.get(f"/specs/{spec['id']}")["target_branch"]
        git(self.directory, "-c", header, "clone", "--quiet", "--branch", branch, url, str(target))
        return target

    def status(self) -> dict[str, Any]:
        """What `status --json` says."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "omoios_local", "--port-offset", str(self.client.offset), "status", "--json"],
            env={**os.environ, "OMOIOS_STATE_DIR": str(self.client.state.directory)},
            capture_output=True,
            timeout=60,
            check=True,
        )
        return dict(json.loads(done.stdout))


def nothing_left(world: World) -> None:
    """After everything that was done, kills included: no dead letter, empty outboxes, consumers without lag."""

    def rest() -> Any:
        found = world.status()
        open_rows = {name: row.get("pending") for name, row in found["outbox"].items() if row.get("pending") != 0}
        lag = [row for row in found["consumers"] if row["pending"] or row["unacknowledged"]]
        return found if not open_rows and not lag else None

    found = eventually(rest, "outboxes are empty and durables have no lag", 90, 1.0)
    assert set(found["outbox"]) == {"identity", "workflow", "agents", "monitoring", "billing", "vcs"}
    assert found["dead_letters"] == 0
    assert found["running"]


def git(path: Path, *arguments: str) -> str:
    """The output of git, without anything of the machine's configuration."""
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_TERMINAL_PROMPT": "0",
    }
    done = subprocess.run(["git", *arguments], cwd=path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout
