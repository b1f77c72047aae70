"""Traefik's routers: one per rule, and those that are stronger than the rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gateway_edge.pending import Operation
from gateway_edge.routes import EDGE, Limit, Routes, Rule, is_parameter

# Priorities. Rules of routes.yaml lie between FALLBACK and LIMITED: 10,000 per segment and 100 per literal one.
FALLBACK = 1
LIMITED = 10_000_000
PENDING = 20_000_000
TOO_LARGE = 30_000_000


def routers(
    routes: Routes, environment: str, not_built: Sequence[Operation], built: Sequence[Operation]
) -> dict[str, Any]:
    """Every router by name; Traefik tries them by falling priority."""
    active = routes.active(environment)
    found: dict[str, Any] = {}
    for rule in active:
        found[rule.name] = {
            "rule": expression_of(rule),
            "priority": priority_of(rule),
            "service": rule.owner,
            "middlewares": _chain(rule, _whole_rule_limits(rule, routes.limits)),
        }
    found.update(_operation_limit_routers(routes, active))
    found.update(pending_routers(routes, environment, not_built, built))
    if routes.body_limit_bytes:
        found["too-large"] = _too_large_router(routes)
    found["fallback"] = {
        "rule": "PathPrefix(`/`)",
        "priority": FALLBACK,
        "service": EDGE,
        "middlewares": ["remove-headers", "error-pages", "retry"],
    }
    return found


def expression_of(rule: Rule) -> str:
    """The Traefik rule that matches what ``rule.matches`` does: segment borders count, parameters are one segment."""
    if not any(is_parameter(segment) for segment in rule.segments):
        exact = f"Path(`{rule.path}`)"
        return exact if rule.exact else f"{exact} || PathPrefix(`{rule.path.rstrip('/')}/`)"
    literal = rule.path[: rule.path.index("{")]
    pattern = "/" + "/".join("[^/]+" if is_parameter(s) else re.escape(s).replace(r"\-", "-") for s in rule.segments)
    return f"PathPrefix(`{literal}`) && PathRegexp(`^{pattern}{'$' if rule.exact else '(?:/|$)'}`)"


def priority_of(rule: Rule) -> int:
    """The rule's rank as one number."""
    segments, literals, exact = rule.rank
    return 10 + segments * 10_000 + literals * 100 + exact


def pending_routers(
    routes: Routes, environment: str, not_built: Sequence[Operation], built: Sequence[Operation]
) -> dict[str, Any]:
    """Routers to the edge for operations that no service has yet, one per rule that owns some.

    One rule per operation would be tried one after the other for every request; here a request that is of another group
    costs one prefix comparison.
    """
    grouped: dict[str, list[Operation]] = {}
    for operation in not_built:
        rule = routes.rule_of(operation.path, environment)
        if rule is not None and rule.owner != EDGE:
            grouped.setdefault(rule.name, []).append(operation)
    routers = {}
    by_name = {rule.name: rule for rule in routes.rules}
    for name, operations in grouped.items():
        rule = by_name[name]
        literal = rule.path.split("{")[0].rstrip("/")
        alternatives = []
        for method in sorted({operation.method for operation in operations}):
            mine = [operation for operation in operations if operation.method == method]
            others = [other for other in built if any(operation.shadows(other) for operation in mine)]
            clause = f"({_method(method)}) && PathRegexp(`{_any_of(mine)}`)"
            if others:
                clause += f" && !PathRegexp(`{_any_of(others)}`)"
            alternatives.append(f"({clause})")
        routers[f"not-built-{name}"] = {
            "rule": f"PathPrefix(`{literal}`) && ({' || '.join(alternatives)})",
            "priority": PENDING + priority_of(rule),
            "service": EDGE,
            "middlewares": ["remove-headers", "error-pages", "retry"],
        }
    return routers


def _chain(rule: Rule, limits: Sequence[str] = ()) -> list[str]:
    if rule.owner == EDGE:
        return ["remove-headers", *limits, "error-pages", "retry"]
    if rule.stream:
        return ["remove-headers", *limits, "retry-unsent"]
    return ["remove-headers", *limits, "error-pages", "retry"]


def _whole_rule_limits(rule: Rule, limits: Iterable[Limit]) -> list[str]:
    return [f"limit-{limit.name}" for limit in limits if rule.name in limit.rules and not limit.operations]


def limit_routers(routes: Routes) -> dict[str, Any]:
    """What Traefik asks itself for each limit: a token is taken, or the edge says what a client is told."""
    return {
        f"count-{limit.name}": {
            "rule": f"Path(`/{limit.name}`)",
            "entryPoints": ["limits"],
            "service": "ping@internal",
            "middlewares": [f"refusal-{limit.name}", f"bucket-{limit.name}"],
        }
        for limit in routes.limits
    }


def _operation_limit_routers(routes: Routes, active: Sequence[Rule]) -> dict[str, Any]:
    by_name = {rule.name: rule for rule in active}
    routers = {}
    for limit in routes.limits:
        for name in limit.rules:
            if not limit.operations or name not in by_name:
                continue
            rule = by_name[name]
            mine = [(method, path) for method, path in limit.operations if rule.matches(path)]
            clauses = [f"(({_method(method)}) && Path(`{path}`))" for method, path in mine]
            routers[f"{name}-{limit.name}"] = {
                "rule": " || ".join(clauses),
                "priority": LIMITED + priority_of(rule),
                "service": rule.owner,
                "middlewares": _chain(rule, [*_whole_rule_limits(rule, routes.limits), f"limit-{limit.name}"]),
            }
    return routers


def _too_large_router(routes: Routes) -> dict[str, Any]:
    digits = len(str(routes.body_limit_bytes + 1))
    if routes.body_limit_bytes != 10 ** (digits - 1) - 1:
        raise ValueError("the body limit is recognised by its number of digits: it must be 9…9")
    rules = {rule.name: rule for rule in routes.rules}
    exempt = " && ".join(f"!PathPrefix(`{rules[name].path}/`)" for name in routes.body_limit_exempt)
    return {
        "rule": f"HeaderRegexp(`Content-Length`, `^[0-9]{{{digits},}}$`)" + (f" && {exempt}" if exempt else ""),
        "priority": TOO_LARGE,
        "service": EDGE,
        "middlewares": ["remove-headers", "too-large-page", "refuse-body"],
    }


def _method(method: str) -> str:
    return "Method(`GET`) || Method(`HEAD`)" if method == "GET" else f"Method(`{method}`)"


def _any_of(operations: Iterable[Operation]) -> str:
    return "^(?:" + "|".join(sorted({operation.expression for operation in operations})) + ")$"
