"""What the most frequent operations ask of the database: few statements, and none that is compiled for each request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy.event
from sqlalchemy.engine.interfaces import CacheStats


@contextmanager
def statements(flow: Any) -> Iterator[list[tuple[str, CacheStats, Any]]]:
    """(text, how its compiled form was found, parameters) of what SQLAlchemy sends meanwhile."""
    seen: list[tuple[str, CacheStats, Any]] = []

    def note(_connection: Any, _cursor: Any, text: str, parameters: Any, context: Any, _many: bool) -> None:
        seen.append((text, context.cache_hit, parameters))

    engine = flow.db.engine.sync_engine
    sqlalchemy.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", note)


async def test_lists_and_boards_are_compiled_once(flow: Any) -> None:
    project = await flow.project()
    await flow.call("POST", "/tickets", json={"title": "One", "project_id": project["id"]})
    paths = ["/tickets?limit=20", f"/tickets?project_id={project['id']}&status=analyzing", "/tasks"]
    paths += ["/board/view", f"/board/view?project_id={project['id']}"]
    for path in paths:
        await flow.call("GET", path)
    with statements(flow) as seen:
        for path in paths:
            await flow.call("GET", path)
    assert len(seen) >= len(paths)
    assert [text for text, found, _ in seen if found is not CacheStats.CACHE_HIT] == []


@contextmanager
def raw_statements(flow: Any) -> Iterator[list[str]]:
    """What goes to the database meanwhile without SQLAlchemy."""
    seen: list[str] = []

    def note(record: Any) -> None:
        seen.append(record.query.strip())

    def out(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.driver_connection.add_query_logger(note)

    def back(connection: Any, _record: Any) -> None:
        connection.driver_connection.remove_query_logger(note)

    engine = flow.db.engine.sync_engine
    sqlalchemy.event.listen(engine, "checkout", out)
    sqlalchemy.event.listen(engine, "checkin", back)
    try:
        yield seen
    finally:
        sqlalchemy.event.remove(engine, "checkout", out)
        sqlalchemy.event.remove(engine, "checkin", back)


async def test_a_ticket_is_made_with_five_statements(flow: Any) -> None:
    project = await flow.project()
    await flow.call("POST", "/tickets", json={"title": "One", "project_id": project["id"]})
    with statements(flow) as seen, raw_statements(flow) as raw:
        made = await flow.call("POST", "/tickets", json={"title": "Two", "project_id": project["id"]})
    # Project and duplicates.
    assert [text.split()[0] for text, _, _ in seen] == ["SELECT", "SELECT"]
    assert {found for _, found, _ in seen} == {CacheStats.CACHE_HIT}
    inserts = [text.split()[2] for text in raw if not text.startswith(("BEGIN", "COMMIT"))]
    assert inserts == ["tickets", "tasks", "outbox"], raw
    rows = await flow.sql(f"SELECT status, title FROM tasks WHERE ticket_id = '{made['id']}'")
    assert [(row["status"], row["title"]) for row in rows] == [("pending", "analyze_requirements: Two")]


async def test_lists_and_boards_are_read_from_an_index_in_their_order(flow: Any) -> None:
    project = await flow.project()
    await flow.call("POST", "/tickets", json={"title": "One", "project_id": project["id"]})
    expected = {
        "/tickets?limit=20": "ix_tickets_organization_id_created_at_id",
        f"/board/view?project_id={project['id']}": "ix_tickets_project_id_phase_id_created_at_id",
        "/tasks": "ix_tasks_organization_id_created_at_id",
    }
    connection = await flow.db.connect("explain")
    # A table of one row is read at once; what counts is whether the index can serve at all, and in its order.
    for kind in ("seqscan", "bitmapscan", "sort"):
        await connection.execute(f"SET enable_{kind} = off")
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    for path, index in expected.items():
        with statements(flow) as seen:
            await flow.call("GET", path)
        ((statement, parameters),) = [(text, values) for text, _, values in seen if "LATERAL" in text]
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *parameters))
        assert f"Backward using {index}" in plan, plan
    await connection.close()
