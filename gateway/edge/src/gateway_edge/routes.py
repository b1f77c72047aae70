"""The public path rules: which service owns which path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from gateway_edge.layout import ROUTES

SERVICES = ("identity", "workflow", "agents", "monitoring", "billing", "vcs")
EDGE = "edge"
OWNERS = (*SERVICES, EDGE)


class RouteError(ValueError):
    """The rules contradict themselves, or a file of rules cannot be read as such."""


def segments_of(path: str) -> tuple[str, ...]:
    """``/api/v1/tasks/`` → ``("api", "v1", "tasks")``. Empty segments do not count."""
    return tuple(part for part in path.split("/") if part)


def is_parameter(segment: str) -> bool:
    """Whether a segment of a rule stands for any one segment of a path: ``{task_id}``."""
    return segment.startswith("{") and segment.endswith("}")


@dataclass(frozen=True)
class Rule:
    """One path, everything below it unless ``exact``, and its owner."""

    name: str
    path: str
    owner: str
    exact: bool = False
    stream: bool = False
    absent_in: tuple[str, ...] = ()

    @cached_property
    def segments(self) -> tuple[str, ...]:
        return segments_of(self.path)

    @property
    def rank(self) -> tuple[int, int, int]:
        """Larger wins: more segments, then more literal ones, then the exact rule."""
        literals = sum(not is_parameter(segment) for segment in self.segments)
        return len(self.segments), literals, int(self.exact)

    def matches(self, path: str) -> bool:
        """Whether the rule applies to a request path (without its query)."""
        wanted, given = self.segments, segments_of(path)
        if len(given) < len(wanted) or (self.exact and (len(given) > len(wanted) or path.rstrip("/") != path != "/")):
            return False
        return all(is_parameter(w) or w == g for w, g in zip(wanted, given, strict=False))

    def meets(self, other: Rule) -> bool:
        """Whether some path of this rule's own length matches both rules, when neither outranks the other."""
        if len(self.segments) != len(other.segments):
            return False
        pairs = zip(self.segments, other.segments, strict=True)
        return all(a == b or is_parameter(a) or is_parameter(b) for a, b in pairs)


@dataclass(frozen=True)
class Bucket:
    """A token bucket: ``burst`` tokens, refilled with ``average`` per ``period`` (a Go duration such as ``1m``)."""

    average: int
    period: str
    burst: int

    @property
    def refill_s(self) -> int:
        """Seconds until one more token is there, rounded up."""
        unit = {"s": 1, "m": 60, "h": 3600}[self.period[-1]]
        return -(-int(self.period[:-1]) * unit // self.average)


@dataclass(frozen=True)
class Limit:
    """A coarse rate limit by client address, on whole rules or on some operations of them."""

    name: str
    rules: tuple[str, ...]
    buckets: Mapping[str, Bucket]
    operations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Routes:
    """Everything ``routes.yaml`` says; consistent once it is made."""

    rules: tuple[Rule, ...]
    limits: tuple[Limit, ...] = ()
    removed_request_headers: tuple[str, ...] = ()
    body_limit_bytes: int = 0
    body_limit_exempt: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise RouteError(f"rule names given twice: {', '.join(twice)}")
        for rule in self.rules:
            if rule.owner not in OWNERS:
                raise RouteError(f"rule {rule.name}: {rule.owner} is no service")
            if not rule.path.startswith("/") or (rule.path != "/" and rule.path.endswith("/")):
                raise RouteError(f"rule {rule.name}: {rule.path} must start with a slash and not end with one")
        if problems := list(ambiguities(self.rules)):
            raise RouteError("; ".join(problems))
        referenced = {name for limit in self.limits for name in limit.rules} | set(self.body_limit_exempt)
        if unknown := sorted(referenced - set(names)):
            raise RouteError(f"rules named but not defined: {', '.join(unknown)}")

    def active(self, environment: str) -> tuple[Rule, ...]:
        """The rules of an environment, the winning ones first."""
        rules = [rule for rule in self.rules if environment not in rule.absent_in]
        return tuple(sorted(rules, key=lambda rule: (rule.rank, rule.name), reverse=True))

    def rule_of(self, path: str, environment: str = "local") -> Rule | None:
        """The rule that decides about a path; None when nothing is there."""
        return next((rule for rule in self.active(environment) if rule.matches(path)), None)

    def owner_of(self, path: str, environment: str = "local") -> str | None:
        """The service that answers a path; None when nothing is there."""
        rule = self.rule_of(path, environment)
        return None if rule is None else rule.owner


def ambiguities(rules: Iterable[Rule]) -> Iterable[str]:
    """Pairs of rules of which neither outranks the other although both match one path, as sentences."""
    listed = list(rules)
    for index, first in enumerate(listed):
        for second in listed[index + 1 :]:
            if first.rank == second.rank and first.meets(second):
                yield f"{first.name} ({first.path}) and {second.name} ({second.path}) match the same paths"


def parse(document: Mapping[str, Any]) -> Routes:
    """Rules from the parsed YAML. Raises RouteError for what is ambiguous, unknown or misspelt."""
    try:
        rules = tuple(Rule(**{**entry, "absent_in": tuple(entry.get("absent_in", ()))}) for entry in document["rules"])
        limits = tuple(_limit(entry) for entry in document.get("limits", ()))
        body = document.get("body_limit", {})
    except (KeyError, TypeError) as error:
        raise RouteError(f"the rules cannot be read: {error}") from error
    return Routes(
        rules=rules,
        limits=limits,
        removed_request_headers=tuple(document.get("removed_request_headers", ())),
        body_limit_bytes=int(body.get("bytes", 0)),
        body_limit_exempt=tuple(body.get("exempt", ())),
    )


def _limit(entry: Mapping[str, Any]) -> Limit:
    operations = []
    for line in entry.get("operations", ()):
        method, _, path = line.partition(" ")
        operations.append((method, path))
    buckets = {profile: Bucket(**entry[profile]) for profile in ("contract", "loose")}
    return Limit(entry["name"], tuple(entry["rules"]), buckets, tuple(operations))


@lru_cache(maxsize=8)
def load(path: Path = ROUTES) -> Routes:
    """The rules of a file, read once."""
    return parse(yaml.safe_load(path.read_text(encoding="utf-8")))
