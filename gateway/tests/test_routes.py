"""Every path has exactly one owner."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from gateway_edge.pending import Operation
from gateway_edge.routes import EDGE, RouteError, Routes, Rule, load, parse

ROOT = Path(__file__).resolve().parents[2]

# The catalogue of route groups, each with the paths it is also answered at.
CATALOGUE = {
    "identity": "auth oauth auth/oauth users auth/me organizations onboarding credentials invitations",
    "workflow": "projects specs tickets tasks phases configs tickets/t1/gate-status tickets/t1/phase-transition board "
    "graph results report_results submit_result submit_result_validation workflows/w1/results tasks/t1/results "
    "public settings debug/tasks debug/tickets debug/phase-progression",
    "agents": "agents agent-events sandboxes collaboration mcp memory reasoning explore specs/s1/events preview "
    "prototype debug/agents",
    "monitoring": "monitor guardian watchdog diagnostic quality validation alerts events ws/events debug/event-bus "
    "debug/health",
    "billing": "billing costs analytics",
    "vcs": "commits github github/repos branch-workflow projects/p1/github/connect projects/p1/github/sync "
    "webhooks/github git/p1.git/info/refs",
}
UNVERSIONED = {
    "/.well-known/jwks.json": "identity",
    "/api/mcp/servers": "agents",
    "/mcp": "agents",
    "/api/validation/status": "monitoring",
    "/ingest/batch/": "billing",
    "/": EDGE,
    "/health": EDGE,
    "/openapi.json": EDGE,
    "/docs": EDGE,
    "/docs/assets/swagger-ui.css": EDGE,
    "/redoc": EDGE,
}


def sample(path: str) -> str:
    """A template with its parameters filled in."""
    return re.sub(r"\{[^/}]*\}", "x1", path)


def test_the_catalogue_has_its_owners() -> None:
    routes = load()
    for owner, groups in CATALOGUE.items():
        for group in groups.split():
            assert routes.owner_of(f"/api/v1/{group}") == owner, group
            assert routes.owner_of(f"/api/v1/{group}/more") == owner, group
    for path, owner in UNVERSIONED.items():
        assert routes.owner_of(path) == owner, path


def test_every_operation_has_exactly_one_owner(operations: list[Operation]) -> None:
    routes = load()
    assert len(operations) == 373
    for operation in operations:
        path = sample(operation.path)
        matching = [rule for rule in routes.active("local") if rule.matches(path)]
        assert matching, f"{operation} has no owner"
        best = max(rule.rank for rule in matching)
        assert len({rule.owner for rule in matching if rule.rank == best}) == 1, operation


def test_every_call_of_the_web_client_reaches_a_service() -> None:
    routes = load()
    with (ROOT / "tests/contract/frontend-calls.csv").open(encoding="utf-8") as file:
        calls = list(csv.DictReader(file))
    assert len(calls) > 200
    for call in calls:
        assert routes.owner_of(sample(call["path_template"])) not in (None, EDGE), call


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/api/v1/agentsx", None),
        ("/api/v1/agents-of/x", None),
        ("/api/v1", None),
        ("/api/v2/agents", None),
        ("/health/x", None),
        ("/health/", None),
        ("/.well-known/jwks.json/x", None),
        ("/docs-of", None),
        ("/readyz", None),
        ("/metrics", None),
        ("/api/v1/specs/s1", "workflow"),
        ("/api/v1/specs/s1/events", "agents"),
        ("/api/v1/specs/s1/events/e1", "agents"),
        ("/api/v1/specs/s1/eventsx", "workflow"),
        ("/api/v1/specs/events", "workflow"),
        ("/api/v1/projects/p1/github", "vcs"),
        ("/api/v1/projects/p1/githubx", "workflow"),
        ("/api/v1/projects/github/p1", "workflow"),
        ("/api/v1/github/repos-diagnostic", "vcs"),
        ("/api/v1/debug", None),
        ("/api/v1/debug/tasksx", None),
        ("/api/v1/ws", None),
    ],
)
def test_borders_and_lengths_decide(path: str, owner: str | None) -> None:
    assert load().owner_of(path) == owner


def test_debug_does_not_exist_in_production(operations: list[Operation]) -> None:
    routes = load()
    debug = [operation for operation in operations if operation.path.startswith("/api/v1/debug")]
    assert len(debug) == 11
    for operation in debug:
        assert routes.owner_of(sample(operation.path), "local") is not None
        assert routes.owner_of(sample(operation.path), "production") is None


def test_the_longer_rule_wins_whatever_the_order() -> None:
    short, long = Rule("short", "/a", "identity"), Rule("long", "/a/{x}/b", "vcs")
    for rules in ((short, long), (long, short)):
        assert Routes(rules).owner_of("/a/1/b/c") == "vcs"
        assert Routes(rules).owner_of("/a/1/c") == "identity"


def test_a_literal_segment_wins_over_a_parameter() -> None:
    routes = Routes((Rule("any", "/a/{x}/b", "vcs"), Rule("one", "/a/me/b", "identity")))
    assert routes.owner_of("/a/me/b") == "identity"
    assert routes.owner_of("/a/you/b") == "vcs"


@pytest.mark.parametrize(
    "rules",
    [
        (Rule("one", "/a/b", "identity"), Rule("two", "/a/b", "vcs")),
        (Rule("one", "/a/{x}", "identity"), Rule("two", "/a/{y}", "vcs")),
        (Rule("one", "/a/{x}/c", "identity"), Rule("two", "/a/b/{y}", "vcs")),
        (Rule("one", "/a/b", "identity", exact=True), Rule("two", "/a/b", "vcs", exact=True)),
    ],
)
def test_ambiguous_rules_are_refused(rules: tuple[Rule, Rule]) -> None:
    with pytest.raises(RouteError, match="match the same paths"):
        Routes(rules)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"rules": [{"name": "a", "path": "/a", "owner": "nobody"}]}, "no service"),
        ({"rules": [{"name": "a", "path": "a", "owner": "vcs"}]}, "must start with a slash"),
        ({"rules": [{"name": "a", "path": "/a/", "owner": "vcs"}]}, "not end with one"),
        ({"rules": [{"name": "a", "path": "/a", "ownr": "vcs"}]}, "cannot be read"),
        ({"rules": [{"name": "a", "path": "/a", "owner": "vcs"}] * 2}, "given twice"),
        (
            {"rules": [{"name": "a", "path": "/a", "owner": "vcs"}], "body_limit": {"bytes": 9, "exempt": ["b"]}},
            "named but not defined: b",
        ),
    ],
)
def test_misspelt_rules_are_refused(document: dict[str, object], message: str) -> None:
    with pytest.raises(RouteError, match=message):
        parse(document)
