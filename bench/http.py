"""HTTP operations: processor time of each, at the service's port and through the gateway, beside the bare route."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from bench.figures import Figure, Target, at_least, at_most
from bench.load import Plan, Request
from bench.processes import Watch, alone, share, used
from bench.stack import LARGE, PASSWORD, SMALL, Stack, Tenant, module
from omoios_local.embedded.process import exchange, free_port

SECONDS = 1.2
ROUNDS = 2
"""Bare route, service and gateway take turns; the cheapest round counts, for noise only ever adds."""
LATENCY_SECONDS = 2.0
LEAST = 200
"""Requests on which a figure of processor time rests at least, on a machine that is very busy, too."""
EVENTS_OF_A_BATCH = 100


@dataclass(frozen=True)
class Operation:
    """One operation and what it is compared with."""

    name: str
    service: str
    requests: list[Request]
    bare: str
    """Name of the bare route."""
    connections: int
    events: int = 1
    """Items of one request; figures are per item."""
    cpu: Target | None = None
    rate: Target | None = None
    ratio: Target | None = None
    gateway_rate: Target | None = None
    lone: str = ""
    """A smaller bare route, reported beside the first."""
    least: int = LEAST
    threads: int = 1
    """Processors that the service's process can use for it at once."""


@dataclass
class Outcome:
    """One run of the load generator: items per second as if nothing else ran, processor time per item."""

    rate: float
    seconds: float
    cpu_us: dict[str, float]
    p50_ms: float
    p99_ms: float
    count: int
    refused: int


@dataclass
class Bare:
    """The process of the bare route."""

    port: int
    process: subprocess.Popen[str]
    requests: dict[str, Request] = field(default_factory=dict)


def load(watch: Watch, plan: Plan, threads: int = 1, *, shedding: bool = False) -> Outcome:
    """Run a plan in a process of its own. Raises RuntimeError when an answer was not a success.

    `threads`: processors that one process of ours can use at once. `shedding`: 503 is an answer, not counted.
    """
    process = module("bench.load")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(plan.text() + "\n")
    process.stdin.flush()
    looks = []
    for expected in ("begin", "end"):
        line = process.stdout.readline().strip()
        if line != expected:
            raise RuntimeError(f"the load generator said {line!r}")
        looks.append(watch.look())
        if expected == "begin":
            process.stdin.write("go\n")
            process.stdin.close()
    document = json.loads(process.stdout.readline())
    process.wait(10)
    statuses = {int(status): count for status, count in document["statuses"].items()}
    good = sum(count for status, count in statuses.items() if 200 <= status < 300)
    refused = statuses.get(503, 0) if shedding else 0
    if not good or good + refused < sum(statuses.values()):
        raise RuntimeError(f"{plan.requests[0].path} at port {plan.port}: answers {statuses or 'none'}")
    items = good * plan.events
    cpu = {name: seconds * 1e6 / items for name, seconds in used(*looks).items()}
    return Outcome(
        rate=alone(
            items / document["seconds"], share(*looks), (cpu[name] / threads for name in cpu if name != "postgres")
        ),
        seconds=document["seconds"],
        cpu_us=cpu,
        p50_ms=document["p50_ms"],
        p99_ms=document["p99_ms"],
        count=items,
        refused=refused,
    )


def operations(stack: Stack) -> list[Operation]:
    """What is measured."""
    small = stack.small
    twice = at_most(2.0, asserted=True)
    created = {"project_id": small.project_id, "title": "Measured @NUMBER@", "description": "What is to be done"}
    events = [
        Request("POST", f"/api/v1/sandboxes/{name}/events/batch", small.headers, '{"events":[@EVENTS@]}')
        for name in stack.sandboxes
    ]
    single = [
        Request("POST", f"/api/v1/sandboxes/{name}/events", small.headers, "@EVENTS@") for name in stack.sandboxes
    ]
    login = json.dumps({"email": small.email, "password": PASSWORD})
    return [
        Operation("profile read", "identity", [get("/auth/me", small)], "profile", 8, ratio=twice),
        Operation("ticket list, 20 of 1,000", "workflow", [get("/tickets?limit=20", small)], "list", 8, ratio=twice),
        Operation(
            "board view, 1,000 tickets",
            "workflow",
            [get(f"/board/view?project_id={small.project_id}", small)],
            "board",
            4,
            ratio=twice,
        ),
        Operation(
            "ticket create",
            "workflow",
            [Request("POST", "/api/v1/tickets", small.headers, json.dumps(created))],
            "create",
            16,
            ratio=twice,
            lone="one insert",
        ),
        Operation(
            "login",
            "identity",
            [Request("POST", "/api/v1/auth/login", {}, login)],
            "profile",
            4,
            least=20,
            # Passwords are hashed in threads without the interpreter's lock.
            threads=2,
            rate=at_least(30, asserted=True),
            gateway_rate=at_least(30, asserted=True),
        ),
        Operation(
            "single event ingest",
            "agents",
            single,
            "one insert",
            64,
            rate=at_least(2500),
            gateway_rate=at_least(1500),
        ),
        Operation(
            "batch ingest, 100 a request",
            "agents",
            events,
            "one insert",
            16,
            EVENTS_OF_A_BATCH,
            cpu=at_most(15),
            rate=at_least(20_000, asserted=True),
            gateway_rate=at_least(50_000),
        ),
    ]


def get(path: str, tenant: Tenant) -> Request:
    """A GET of the public API."""
    return Request("GET", f"/api/v1{path}", tenant.headers)


def start_bare(stack: Stack) -> Bare:
    """Start the bare route and wait until it answers."""
    small = stack.small
    bare = Bare(free_port(), module("bench.bare"))
    assert bare.process.stdin is not None
    databases = {name: stack.database_url(name) for name in ("identity", "workflow")}
    bare.process.stdin.write(json.dumps({"port": bare.port, "databases": databases}))
    bare.process.stdin.close()
    until = time.monotonic() + 60
    while not exchange(bare.port, b"GET /openapi.json HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200"):
        time.sleep(0.05)
        if time.monotonic() > until or bare.process.poll() is not None:
            raise RuntimeError("the bare route does not start")
    body = {
        "organization_id": small.organization_id,
        "project_id": small.project_id,
        "title": "Measured @NUMBER@",
        "description": "What is to be done",
    }
    bare.requests = {
        "profile": Request("GET", f"/me?id={small.user_id}", {}),
        "list": Request("GET", f"/tickets?organization_id={small.organization_id}&limit=20", {}),
        "board": Request("GET", f"/board?project_id={small.project_id}", {}),
        "create": Request("POST", "/tickets", {}, json.dumps(body)),
        "one insert": Request("POST", "/rows", {}, json.dumps(body)),
    }
    return bare


def measure(stack: Stack, chosen: Sequence[Operation]) -> Iterator[Figure]:
    """Each chosen operation beside its bare route."""
    bare = start_bare(stack)
    try:
        watch = stack.watch({"bare": bare.process.pid})
        for operation in chosen:
            yield from _measure(stack, bare, watch, operation)
    finally:
        bare.process.terminate()
        bare.process.wait(10)


def _measure(stack: Stack, bare: Bare, watch: Watch, operation: Operation) -> Iterator[Figure]:
    ports = {"service": stack.http_port(operation.service), "gateway": stack.gateway_port}
    bare_plan = Plan(bare.port, [bare.requests[operation.bare]], min(operation.connections, 16), SECONDS, least=LEAST)
    beside: list[float] = []
    lone: list[float] = []
    found: dict[str, list[Outcome]] = {place: [] for place in ports}
    for _ in range(ROUNDS):
        beside.append(load(watch, bare_plan).cpu_us["bare"])
        if operation.lone:
            lone.append(load(watch, replace(bare_plan, requests=[bare.requests[operation.lone]])).cpu_us["bare"])
        for place, port in ports.items():
            plan = Plan(
                port, operation.requests, operation.connections, SECONDS, events=operation.events, least=operation.least
            )
            found[place].append(load(watch, plan, operation.threads))
    reference = min(beside)
    item = "event" if operation.events > 1 or operation.service == "agents" else "request"
    for place, outcomes in found.items():
        best = min(outcomes, key=lambda one: one.cpu_us[operation.service])
        rate = max(one.rate for one in outcomes)
        cpu = best.cpu_us[operation.service]
        at_service = place == "service"
        group = f"{operation.name}, {'at the service' if at_service else 'through the gateway'}"
        gateway = "" if at_service else f", gateway {best.cpu_us['gateway']:.0f} µs"
        note = f"p50 {best.p50_ms:.1f} ms, p99 {best.p99_ms:.1f} ms{gateway}"
        yield Figure(group, "service", cpu, f"µs CPU/{item}", operation.cpu, note)
        yield Figure(
            group,
            f"ratio to the bare route ({operation.bare})",
            cpu * operation.events / reference,
            "×",
            operation.ratio if at_service else None,
            f"bare route {reference:.0f} µs",
        )
        if lone and at_service:
            note = f"bare route {min(lone):.0f} µs"
            yield Figure(group, f"ratio to {operation.lone}", cpu / min(lone), "×", None, note)
        yield Figure(group, "rate", rate, f"{item}s/s", operation.rate if at_service else operation.gateway_rate)


def flat(stack: Stack) -> Iterator[Figure]:
    """Lists and boards of a large and a small organization in turns, two clients at a time."""
    watch = stack.watch()
    port = stack.http_port("workflow")
    for name, path in (("ticket list", "/tickets?limit=20"), ("board view", "/board/view?project_id={}")):
        found: dict[int, list[Outcome]] = {SMALL: [], LARGE: []}
        for _ in range(ROUNDS):
            for size, tenant in ((SMALL, stack.small), (LARGE, stack.large)):
                plan = Plan(port, [get(path.format(tenant.project_id), tenant)], 2, LATENCY_SECONDS)
                found[size].append(load(watch, plan))
        small, large = (min(found[size], key=lambda one: one.p99_ms) for size in (SMALL, LARGE))
        for label in ("p50", "p99"):
            ours, theirs = getattr(large, f"{label}_ms"), getattr(small, f"{label}_ms")
            note = f"{theirs:.1f} ms at 1,000, {ours:.1f} ms at 100,000 tickets"
            yield Figure("as the number of tickets grows", f"{name} {label}", ours / theirs, "×", at_most(1.5), note)


def many_connections(stack: Stack) -> Iterator[Figure]:
    """Ticket create with many more connections than the pool has."""
    watch = stack.watch()
    (operation,) = [one for one in operations(stack) if one.name == "ticket create"]
    port = stack.http_port("workflow")
    few, many = (
        load(watch, Plan(port, operation.requests, count, 3.0, warm_s=1.0), shedding=True) for count in (32, 256)
    )
    note = f"{few.rate:.0f}/s at 32, {many.rate:.0f}/s at 256, p99 {many.p99_ms:.0f} ms, {many.refused} answered 503"
    group, target = "ticket create at 256 connections", at_least(0.7, asserted=True)
    yield Figure(group, "rate against 32 connections", many.rate / few.rate, "×", target, note)


def latency(stack: Stack) -> Iterator[Figure]:
    """Profile reads at a fixed rate through the gateway."""
    plan = Plan(stack.gateway_port, [get("/auth/me", stack.small)], 16, 3.0, rate=500)
    outcome = load(stack.watch(), plan)
    yield Figure("profile read at 500 requests/s, through the gateway", "p99", outcome.p99_ms, "ms", at_most(15))
    yield Figure("profile read at 500 requests/s, through the gateway", "p50", outcome.p50_ms, "ms", at_most(3))
