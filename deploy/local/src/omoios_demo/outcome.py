"""What came of the job: read back through the public API and from git, checked, and shown."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from omoios_demo import repository as repositories
from omoios_demo.api import Api
from omoios_demo.errors import DemoError
from omoios_demo.job import Done
from omoios_demo.live import LiveEvents
from omoios_demo.progress import merged_by_themselves, state_of
from omoios_demo.screen import Screen, Step
from omoios_local import observe
from omoios_local.client import StackClient

QUIET_CEILING_S = 30.0


@dataclass(frozen=True)
class Merged:
    """One merge on the spec's branch. `work`: the commit of the attempt; the rest is what the service linked to it."""

    sha: str
    work: str
    title: str
    ticket_id: str
    ticket: str
    files: int
    insertions: int


@dataclass(frozen=True)
class Outcome:
    """Everything that the report shows."""

    merged: Sequence[Merged]
    board: Mapping[str, Any]
    graph: Mapping[str, Any]
    costs: Mapping[str, Any]
    reservation: Mapping[str, Any]
    dead_letters: int
    pending_rows: int


def collect(api: Api, client: StackClient, done: Done, live: LiveEvents) -> Outcome:
    """Read everything back. Raises DemoError where something is not as it has to be."""
    project_id = str(done.project["id"])
    merged = _merged(api, done)
    board = api.get("/board/view", project_id=project_id)
    graph = api.get(f"/graph/dependency-graph/project/{project_id}")
    costs = api.get(f"/billing/account/{done.organization_id}/costs/summary")
    reservation = _settled(live, done)
    dead_letters, pending = _quiet(client)
    found = Outcome(merged, board, graph, costs, reservation, dead_letters, pending)
    problems = _problems(done, found)
    if problems:
        raise DemoError("the result is not what it has to be:\n" + "\n".join(f"  {text}" for text in problems))
    return found


def _merged(api: Api, done: Done) -> list[Merged]:
    """The merges on the spec's branch, oldest first, each with the ticket that the service linked its commit to."""
    branch = str(done.spec["target_branch"])
    url = f"{api.url}/api/v1/git/{done.project['id']}.git"
    # A call that renews the token first, so that git has one that lasts.
    api.get("/auth/me")
    where = f"--git-dir={done.repository.path}"
    # An earlier run may have pushed the branch: its commits are the repository's own, not this execution's.
    known = repositories.git(where, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}").strip()
    repositories.fetch_merged(done.repository, url, branch, api.token or "")
    base = known or str(done.project["head_sha"])
    log = repositories.git(where, "log", "--first-parent", "--reverse", "--format=%H %P", f"{base}..{branch}")
    tickets = {ticket["id"]: ticket["title"] for column in _columns(api, done) for ticket in column["tickets"]}
    found = []
    for line in log.splitlines():
        sha, *parents = line.split()
        work = parents[1] if len(parents) > 1 else sha
        linked = api.get(f"/commits/{work}")
        found.append(
            Merged(
                sha,
                work,
                str(linked["commit_message"]).splitlines()[0],
                linked["ticket_id"],
                tickets.get(linked["ticket_id"], linked["ticket_id"]),
                linked["files_changed"] or 0,
                linked["insertions"] or 0,
            )
        )
    return found


def _columns(api: Api, done: Done) -> list[Mapping[str, Any]]:
    return list(api.get("/board/view", project_id=done.project["id"])["columns"])


def _settled(live: LiveEvents, done: Done) -> Mapping[str, Any]:
    for frame in live.kept:
        payload = frame.get("payload") or {}
        if frame["event_type"] == "billing.reservation.settled" and payload.get("execution_id") == done.execution_id:
            return dict(payload)
    raise DemoError(f"nobody said that the reservation of execution {done.execution_id} was settled")


def _quiet(client: StackClient) -> tuple[int, int]:
    """Dead letters, and outbox rows not yet published once the stack has come to rest."""
    deadline = time.monotonic() + QUIET_CEILING_S
    while True:
        figures = observe.collect(client)
        pending = sum(int(found.get("pending", 0)) for found in figures.outbox.values())
        if pending == 0 or time.monotonic() > deadline:
            return int(figures.dead_letters or 0), pending
        time.sleep(0.5)


def _problems(done: Done, found: Outcome) -> list[str]:
    """What is wrong; empty when all is well."""
    problems = [f"task {task['title']} is {state_of(task)}" for task in done.tasks if state_of(task) != "completed"]
    branch = str(done.spec["target_branch"])
    for task in merged_by_themselves(done.tasks):
        if task["head_sha"] and not repositories.contains(done.repository, branch, task["head_sha"]):
            problems.append(f"the work of {task['title']} is not on {branch}")
    if found.dead_letters:
        problems.append(f"{found.dead_letters} dead letters (make dlq)")
    if found.pending_rows:
        problems.append(f"{found.pending_rows} outbox rows are not published")
    cards = sum(column["current_count"] for column in found.board["columns"])
    if cards < 1:
        problems.append("the board is empty")
    if not found.graph["metadata"]["critical_path"] and found.graph["edges"]:
        problems.append("the graph has no critical path")
    return problems


def show(
    console: Console, screen: Screen, api: Api, done: Done, found: Outcome, live: LiveEvents, key_file: Path
) -> None:
    """The report. `key_file` holds an API key of the demo's user, with which the links can be opened."""
    spec, project = done.spec, done.project
    console.print()
    _heading(console, f"Branch {spec['target_branch']}, {len(found.merged)} merges in the order of their dependencies")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("merge", "commit", "files", "lines", "task", "ticket"):
        table.add_column(heading, justify="right" if heading in ("files", "lines") else "left")
    for merge in found.merged:
        lines = f"+{merge.insertions}"
        table.add_row(merge.sha[:10], merge.work[:10], str(merge.files), lines, merge.title, merge.ticket)
    console.print(table)
    _heading(console, "Tasks")
    for task in done.tasks:
        commands = (task["result"] or {}).get("commands") or []
        codes = ", ".join(str(command["exit_code"]) for command in commands) or "none"
        attempts = f"{task['attempt']} attempt(s), {task['retry_count']} retried"
        console.print(f"  {task['title']}: {task['status']}, {attempts}, exit codes {codes}", highlight=False)
    _heading(console, "Board")
    for column in found.board["columns"]:
        if column["current_count"]:
            titles = ", ".join(ticket["title"] for ticket in column["tickets"])
            console.print(f"  {column['name']}: {column['current_count']} ({titles})", highlight=False)
    graph = found.graph
    labels = {node["id"]: node["label"] for node in graph["nodes"]}
    _heading(console, "Graph")
    figures = graph["metadata"]
    console.print(
        f"  {figures['total_tasks']} tasks, {figures['total_edges']} edges, critical path of"
        f" {figures['critical_path_length']}: " + " → ".join(labels.get(key, key) for key in figures["critical_path"]),
        highlight=False,
    )
    _heading(console, "Events and costs")
    common = ", ".join(f"{number} {name}" for name, number in live.counts.most_common(6))
    console.print(f"  {live.total} live events over the WebSocket: {common}, …", highlight=False)
    console.print(
        f"  cost of the organization so far: {found.costs['total_cost']:.6f} USD in "
        f"{found.costs['record_count']} records",
        highlight=False,
    )
    reserved, spent = (int(found.reservation.get(name) or 0) for name in ("reserved_micro_usd", "spent_micro_usd"))
    console.print(
        f"  reservation settled: {reserved / 1e6:.6f} USD reserved, {spent / 1e6:.6f} USD spent; "
        f"{found.dead_letters} dead letters, {found.pending_rows} unpublished outbox rows",
        highlight=False,
    )
    _heading(console, "Links")
    for name, path in (
        ("documentation", "/docs"),
        ("board", f"/api/v1/board/view?project_id={project['id']}"),
        ("graph", f"/api/v1/graph/dependency-graph/project/{project['id']}"),
        ("spec", f"/api/v1/specs/{spec['id']}"),
    ):
        console.print(f"  {name:<14}{api.url}{path}", highlight=False, soft_wrap=True)
    console.print(
        f'  all but the first want: -H "Authorization: Bearer $(cat {key_file})"', highlight=False, soft_wrap=True
    )
    _heading(console, "Timings")
    console.print("  " + ", ".join(_timing(step) for step in screen.steps if step.took_s is not None), highlight=False)


def _timing(step: Step) -> str:
    return f"{step.name} {step.took_s:.1f} s"


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, "bold"))
