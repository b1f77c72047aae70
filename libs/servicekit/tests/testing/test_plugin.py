"""The pytest plugin: hosted services, stubs of peers, the closed network, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from hypothesis import HealthCheck, settings

from omoios.identity.events.v1.events_pb2 import OrganizationCreated
from omoios.workflow.v1 import workflow_pb2 as pb
from omoios.workflow.v1.workflow_pb2_grpc import WorkflowServiceServicer, WorkflowServiceStub
from servicekit.auth import Access, AccessTable, CurrentUser
from servicekit.db import Database
from servicekit.errors import AppError, ErrorSpec, Kind
from servicekit.events import Bus, Resources
from servicekit.host import Service
from servicekit.ids import new_id
from servicekit.rpc import RpcChannels
from servicekit.settings import ServiceSettings
from servicekit.testing.network import OutsideNetwork
from servicekit.testing.profiles import examples

MIGRATIONS = Path(__file__).parent.parent / "db" / "migrations_fixture"
THING_NOT_FOUND = ErrorSpec("billing.thing_not_found", Kind.NOT_FOUND, "There is no such thing.")


def build(settings: ServiceSettings) -> Service:
    db = Database(settings)
    router = APIRouter(prefix="/api/v1/things", tags=["things"])

    @router.post("/{organization_id}", status_code=201)
    async def make(organization_id: str, principal: CurrentUser) -> dict[str, str]:
        principal.require("billing:write", organization_id, missing=THING_NOT_FOUND)
        async with db.uow() as tx:
            await (await tx.connection()).execute("INSERT INTO things (id, name) VALUES ('1', $1)", organization_id)
            tx.emit(
                OrganizationCreated(organization_id=organization_id),
                aggregate_id=organization_id,
                version=1,
                organization_id=organization_id,
            )
        return {"id": "1"}

    return Service(
        name="billing",
        settings=settings,
        access=AccessTable(operations={"things.make": Access("billing:write")}, rpcs={}),
        db=db,
        bus=Bus(settings),
        resources=Resources(db),
        routers=[router],
    )


@pytest.fixture
async def billing(service_host: Any, database: Any) -> Any:
    return await service_host(build, "billing", database_url=database("kit", migrations=MIGRATIONS).url)


async def test_a_hosted_service_trusts_the_test_tokens(
    billing: Any, signing: Any, assert_problem: Any, outbox_runner: Any
) -> None:
    organization = new_id()
    owner = await signing.user(new_id(), organization, role="owner")
    viewer = await signing.user(new_id(), organization, role="viewer")
    stranger = await signing.user(new_id(), new_id(), role="owner")

    async def post(token: str | None) -> Any:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await billing.http.post(f"/api/v1/things/{organization}", headers=headers)

    assert_problem(await post(None), 401, "auth.unauthenticated")
    assert_problem(await post(viewer), 403, "auth.forbidden")
    assert_problem(await post(stranger), 404, "billing.thing_not_found")
    assert (await post(owner)).status_code == 201
    with pytest.raises(AssertionError, match="201 instead of 404"):
        assert_problem(await post_again(billing, owner), 404, "billing.thing_not_found")
    await outbox_runner(billing.service)
    async with billing.service.db.reader() as tx:
        assert await (await tx.connection()).fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL") == 0


async def post_again(billing: Any, token: str) -> Any:
    async with billing.service.db.uow() as tx:
        await (await tx.connection()).execute("DELETE FROM things")
    organization = (await _organizations(billing))[0]
    return await billing.http.post(f"/api/v1/things/{organization}", headers={"Authorization": f"Bearer {token}"})


async def _organizations(billing: Any) -> list[str]:
    async with billing.service.db.reader() as tx:
        rows = await (await tx.connection()).fetch("SELECT aggregate_id FROM outbox")
    return [row[0] for row in rows]


async def test_a_stub_answers_and_refuses_like_a_peer(rpc_stub: Any) -> None:
    class Workflow(WorkflowServiceServicer):
        async def ResolveResources(self, request: Any, context: Any) -> Any:
            if not request.references:
                raise THING_NOT_FOUND(thing="1")
            return pb.ResolveResourcesResponse()

    target = await rpc_stub(Workflow())
    channels = RpcChannels(ServiceSettings(env="test", rpc_targets={"workflow": target}))
    stub: Any = WorkflowServiceStub(channels.channel("workflow"))
    reference = pb.ResourceReference(resource_type="task", resource_id="1")
    assert await stub.ResolveResources(pb.ResolveResourcesRequest(references=[reference])) is not None
    with pytest.raises(AppError) as raised:
        await stub.ResolveResources(pb.ResolveResourcesRequest())
    await channels.close()
    assert (raised.value.code, raised.value.kind, raised.value.meta["thing"]) == (
        "billing.thing_not_found",
        Kind.NOT_FOUND,
        "1",
    )


def test_databases_are_apart_and_come_from_the_migrations(database: Any) -> None:
    first, second = database("kit", migrations=MIGRATIONS), database("kit", migrations=MIGRATIONS)
    assert first.name != second.name
    assert first.url != second.url


def test_other_machines_cannot_be_reached() -> None:
    with pytest.raises(OutsideNetwork), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))
    with pytest.raises(OutsideNetwork):
        socket.getaddrinfo("example.org", 443)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.socket() as inside:
            inside.connect(listener.getsockname())


_INNER = """
import time

def test_inner(postgres, nats_server, redis_server, test_run):
    print("RUN", test_run.directory, flush=True)
    for file in test_run.directory.glob("*.pid"):
        print("PID", file.read_text(), flush=True)
    print("READY", flush=True)
    {body}
"""


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_a_run_leaves_neither_processes_nor_files(tmp_path: Path, ended_by: signal.Signals) -> None:
    (tmp_path / "test_inner.py").write_text(_INNER.format(body="time.sleep(60)"))
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMOIOS_", "PYTEST_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "servicekit.testing.plugin", "test_inner.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore SIGINT, and so would all that comes of it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if "READY" in line:
            break
    pids = [int(line.split()[1]) for line in lines if line.startswith("PID")]
    folder = Path(next(line.split("RUN ")[1] for line in lines if "RUN " in line))
    assert len(pids) == 3
    process.send_signal(ended_by)
    process.stdout.read()
    process.wait(20)
    process.stdout.close()
    deadline = time.monotonic() + 10
    while folder.exists() or any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{folder} or one of {pids} is still there"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_run_has_a_profile_whose_verdict_is_not_a_matter_of_speed(request: pytest.FixtureRequest) -> None:
    assert settings.get_profile("ci").derandomize, "a run that is repeated makes the same examples"
    for name in ("ci", "long"):
        profile = settings.get_profile(name)
        assert (profile.deadline, profile.database, profile.print_blob) == (None, None, True)
        assert HealthCheck.too_slow in profile.suppress_health_check
    chosen = settings.get_profile(request.config.getoption("--hypothesis-profile") or "ci")
    assert examples(30) == 30 * chosen.max_examples // 100 == 30 * settings().max_examples // 100


@pytest.mark.parametrize(("name", "expected"), [("ci", 3), ("long", 60)])
def test_a_profile_is_chosen_by_the_command(tmp_path: Path, name: str, expected: int) -> None:
    planted = "from servicekit.testing.profiles import examples\n\ndef test_it():\n    assert examples(3) == {}\n"
    (tmp_path / "test_it.py").write_text(planted.format(expected))
    options = ["-q", "-n0", "-p", "no:cacheprovider", "-p", "servicekit.testing.plugin", f"--hypothesis-profile={name}"]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", str(tmp_path), "--rootdir", str(tmp_path), *options],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout
