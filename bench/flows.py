"""What runs behind the requests: relay and consumers, live frames, claims, plans."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from bench.figures import Figure, at_least, at_most
from bench.http import load
from bench.load import Plan, Request
from bench.processes import share, used
from bench.stack import Stack, module
from omoios.agents.events.v1 import events_pb2 as agents
from servicekit.ids import new_id
from workflow_service.dag import rules as dag

CEILING_S = 60.0
SUBJECT = "agents.sandbox.events_recorded.v1"
_WAITING = "SELECT count(*) FROM outbox WHERE published_at IS NULL AND event_id = ANY($1::uuid[])"
_PUBLISHED = """
SELECT extract(epoch FROM min(published_at))::float8, extract(epoch FROM max(published_at))::float8,
       count(*) FILTER (WHERE published_at = (SELECT min(published_at) FROM outbox WHERE event_id = ANY($1::uuid[])))
FROM outbox WHERE event_id = ANY($1::uuid[])
"""
_LOGGED = """
SELECT count(*), extract(epoch FROM min(logged_at))::float8, extract(epoch FROM max(logged_at))::float8
FROM event_log WHERE event_id = ANY($1::uuid[])
"""
CLAIMERS = 200
TASKS = 10_000


def relay(stack: Stack) -> Iterator[Figure]:
    """Rows that lie in the outbox, until the last one is in monitoring's log; first one fact a message, then packed."""
    for name, messages, facts in (("one fact a message", 10_000, 1), ("500 facts a message", 200, 500)):
        rows = _rows(stack, messages, facts)
        ids = [row[0] for row in rows]
        watch = stack.watch()
        stack.sql("agents", lambda c, rows=rows: _insert(c, rows))  # type: ignore[misc]
        before = watch.look()
        until = time.monotonic() + CEILING_S
        logged = (0, 0.0, 0.0)
        while logged[0] < messages:
            if time.monotonic() > until:
                raise RuntimeError(f"only {logged[0]} of {messages} messages were logged within {CEILING_S:g} s")
            time.sleep(0.1)
            logged = stack.sql("monitoring", lambda c, ids=ids: c.fetchrow(_LOGGED, ids))  # type: ignore[misc]
        after = watch.look()
        begun, done, first = stack.sql("agents", lambda c, ids=ids: c.fetchrow(_PUBLISHED, ids))  # type: ignore[misc]
        ours = share(before, after)
        cpu = {key: value * 1e6 / (messages * facts) for key, value in used(before, after).items()}
        group = f"outbox → JetStream → log, {name}"
        sent = (messages - first) * facts / max(done - begun, 1e-6) / ours
        through = (messages - first) * facts / max(logged[2] - begun, 1e-6) / ours
        yield Figure(group, "relay", sent, "facts/s", at_least(15_000), f"agents {cpu['agents']:.1f} µs CPU/fact")
        note = f"monitoring {cpu['monitoring']:.1f}, NATS {cpu['nats']:.1f} µs CPU/fact"
        yield Figure(group, "relay and log together", through, "facts/s", at_least(15_000), note)


def _rows(stack: Stack, messages: int, facts: int) -> list[tuple[Any, ...]]:
    now = datetime.now(UTC)
    content = json.dumps({"tool": "Edit", "file": "src/module_042.py", "added": 12, "removed": 3}).encode()
    rows = []
    for number in range(messages):
        events = [
            agents.SandboxEvent(event_id=new_id(), sequence=n, event_type="agent.tool_use", data_json=content)
            for n in range(1, facts + 1)
        ]
        body = agents.SandboxEventsRecorded(sandbox_id="bench-relay", task_id="bench-task", events=events)
        payload = body.SerializeToString()
        organization = stack.queue.organization_id
        rows.append((new_id(), SUBJECT, "sandbox", "bench-relay", number, organization, None, None, None, now, payload))
    return rows


async def _insert(connection: Any, rows: Sequence[tuple[Any, ...]]) -> None:
    columns = ["event_id", "subject", "aggregate_type", "aggregate_id", "version", "organization_id", "correlation_id"]
    columns += ["causation_id", "traceparent", "occurred_at", "payload"]
    await connection.copy_records_to_table("outbox", records=rows, columns=columns)


def frames(stack: Stack) -> Iterator[Figure]:
    """1,000 events/s in requests of ten, watched by one client through the gateway."""
    seconds = 5.0
    requests = [
        Request("POST", f"/api/v1/sandboxes/{name}/events/batch", stack.small.headers, '{"events":[@EVENTS@]}')
        for name in stack.sandboxes[:100]
    ]
    listener = module("bench.listen")
    assert listener.stdin is not None
    assert listener.stdout is not None
    url = f"ws://127.0.0.1:{stack.gateway_port}/api/v1/ws/events?token={stack.small.token}"
    listener.stdin.write(json.dumps({"url": url, "seconds": seconds, "skip_s": 1.0}))
    listener.stdin.close()
    if listener.stdout.readline().strip() != "listening":
        raise RuntimeError("the event stream does not open")
    plan = Plan(stack.http_port("agents"), requests, 100, seconds, warm_s=1.0, rate=100.0, events=10)
    outcome = load(stack.watch(), plan)
    heard = json.loads(listener.stdout.readline())
    listener.wait(10)
    if not heard["frames"]:
        raise RuntimeError("no frame arrived")
    group = "commit → WebSocket frame at 1,000 events/s, 10 a request"
    rate = outcome.count / plan.seconds
    cpu = {name: outcome.cpu_us[name] * rate / 1e4 for name in ("agents", "monitoring", "nats", "postgres", "gateway")}
    note = f"p50 {heard['p50_ms']:.0f} ms, max {heard['max_ms']:.0f} ms, {rate:.0f} events/s sent"
    yield Figure(group, "p99", heard["p99_ms"], "ms", at_most(100), note)
    note = ", ".join(f"{name} {value:.0f} %" for name, value in cpu.items())
    yield Figure(group, "processors", sum(cpu.values()), "% of a core", None, note)


def claims(stack: Stack) -> Iterator[Figure]:
    """Tasks handed out to 200 claimers, one at a time."""
    # Without a limit of tasks of a project, which would end the run after five.
    environment = {**stack.environment("workflow"), "OMOIOS_PROJECT_CONCURRENCY": "-1"}
    process = module("bench.claims", environment)
    assert process.stdin is not None
    assert process.stdout is not None
    given = {"organization_id": stack.queue.organization_id, "claimers": CLAIMERS, "seconds": 3.0}
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    watch = stack.watch()
    looks = []
    for expected in ("begin", "end"):
        if process.stdout.readline().strip() != expected:
            raise RuntimeError("the claimers do not start")
        looks.append(watch.look())
    found = json.loads(process.stdout.readline())
    process.wait(10)
    group = "claims, 200 claimers at the store"
    rate = found["claims"] / found["seconds"] / share(*looks)
    note = f"{found['cpu_s'] * 1e6 / found['claims']:.0f} µs CPU/claim, {found['claims']} claims"
    yield Figure(group, "rate", rate, "claims/s", at_least(2000), note)
    yield Figure(group, "handed out twice", found["twice"], "tasks", at_most(0, asserted=True))


def plan(_stack: Stack | None) -> Iterator[Figure]:
    """The critical path of 10,000 tasks in 100 layers, three dependencies each."""
    nodes = [f"task-{number:05d}" for number in range(TASKS)]
    edges = [
        (nodes[(layer - 1) * 100 + (place * 7 + step * 31) % 100], nodes[layer * 100 + place])
        for layer in range(1, TASKS // 100)
        for place in range(100)
        for step in range(3)
    ]
    times = []
    for _ in range(7):
        began = time.process_time()
        path = dag.critical_path(nodes, edges)
        times.append((time.process_time() - began) * 1000)
        assert len(path) == TASKS // 100, "the longest chain has one task of each layer"
    note = f"{len(edges)} dependencies"
    yield Figure("plan of 10,000 tasks", "critical path", min(times), "ms CPU", at_most(10), note)
