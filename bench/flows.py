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
from bench.processes import alone, share, used
from bench.stack import Stack, module
from omoios.agents.events.v1 import events_pb2 as agents
from servicekit.db.outbox import CHANNEL
from servicekit.ids import new_id
from workflow_service.dag import rules as dag

CEILING_S = 60.0
SUBJECT = "agents.sandbox.events_recorded.v1"
_PUBLISHED = "SELECT extract(epoch FROM max(published_at))::float8 FROM outbox WHERE event_id = ANY($1::uuid[])"
_LOGGED = """
SELECT count(*), extract(epoch FROM max(logged_at))::float8 FROM event_log WHERE event_id = ANY($1::uuid[])
"""
CLAIMERS = 200
TASKS = 10_000
EVENTS_S = 1_000.0


def relay(stack: Stack) -> Iterator[Figure]:
    """Rows that lie in the outbox, until the last one is in monitoring's log; first one fact a message, then packed."""
    for name, messages, facts in (("one fact a message", 10_000, 1), ("100 facts a message", 1_000, 100)):
        rows = _rows(stack, messages, facts)
        ids = [row[0] for row in rows]
        watch = stack.watch()
        before = watch.look()
        begun = stack.sql("agents", lambda c, rows=rows: _insert(c, rows))  # type: ignore[misc]
        until = time.monotonic() + CEILING_S
        logged = (0, 0.0)
        while logged[0] < messages:
            if time.monotonic() > until:
                raise RuntimeError(f"only {logged[0]} of {messages} messages were logged within {CEILING_S:g} s")
            time.sleep(0.1)
            logged = stack.sql("monitoring", lambda c, ids=ids: c.fetchrow(_LOGGED, ids))  # type: ignore[misc]
        after = watch.look()
        done = stack.sql("agents", lambda c, ids=ids: c.fetchval(_PUBLISHED, ids))  # type: ignore[misc]
        ours = share(before, after)
        cpu = {key: value * 1e6 / (messages * facts) for key, value in used(before, after).items()}
        group = f"outbox → JetStream → log, {name}"
        sent = alone(messages * facts / (done - begun), ours, [cpu["agents"], cpu["nats"]])
        through = alone(messages * facts / (logged[1] - begun), ours, [cpu["agents"], cpu["nats"], cpu["monitoring"]])
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


async def _insert(connection: Any, rows: Sequence[tuple[Any, ...]]) -> float:
    """Commit rows and tell the relay; the database's time afterwards."""
    columns = ["event_id", "subject", "aggregate_type", "aggregate_id", "version", "organization_id", "correlation_id"]
    columns += ["causation_id", "traceparent", "occurred_at", "payload"]
    await connection.copy_records_to_table("outbox", records=rows, columns=columns)
    await connection.execute(f"NOTIFY {CHANNEL}")
    return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))


def frames(stack: Stack) -> Iterator[Figure]:
    """1,000 events/s of 100 sandboxes, watched by one client through the gateway: ten a request, then one."""
    for count, path, body in ((10, "events/batch", '{"events":[@EVENTS@]}'), (1, "events", "@EVENTS@")):
        requests = [
            Request("POST", f"/api/v1/sandboxes/{name}/{path}", stack.small.headers, body)
            for name in stack.sandboxes[:100]
        ]
        yield from _frames(stack, requests, count)


def _frames(stack: Stack, requests: list[Request], count: int) -> Iterator[Figure]:
    seconds = 5.0
    listener = module("bench.listen")
    assert listener.stdin is not None
    assert listener.stdout is not None
    url = f"ws://127.0.0.1:{stack.gateway_port}/api/v1/ws/events?token={stack.small.token}"
    listener.stdin.write(json.dumps({"url": url, "seconds": seconds, "skip_s": 1.0}))
    listener.stdin.close()
    if listener.stdout.readline().strip() != "listening":
        raise RuntimeError("the event stream does not open")
    plan = Plan(stack.http_port("agents"), requests, 100, seconds, warm_s=1.0, rate=EVENTS_S / count, events=count)
    outcome = load(stack.watch(), plan)
    heard = json.loads(listener.stdout.readline())
    listener.wait(10)
    if not heard["frames"]:
        raise RuntimeError("no frame arrived")
    group = f"commit → WebSocket frame at 1,000 events/s, {count} a request"
    rate = outcome.count / outcome.seconds
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
    cpu = found["cpu_s"] * 1e6 / found["claims"]
    rate = alone(found["claims"] / found["seconds"], share(*looks), [cpu])
    note = f"{cpu:.0f} µs CPU/claim, {found['claims']} claims"
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
