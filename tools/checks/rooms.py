"""The house rules inside a service: what each file of a room may import and do.

Enforced here: the import table of `roles.py`; rooms form a DAG; SQL only in store, tables and replica; a store writes
its own tables only; rules neither await nor touch the outside; transactions only in service; async endpoints and
dependencies only; no BaseHTTPMiddleware anywhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.checks.roles import (
    LIBRARIES,
    PLAIN_MODULES,
    ROLES,
    TOP_MODULES,
    TRANSACTIONS,
    TRANSACTIONS_TOP,
    UNNAMED,
    Role,
)
from tools.checks.source import Finding, dotted, files, imports, parse, relative

SQL_TEXT = re.compile(
    r"^\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\s|TRUNCATE\s|LISTEN\s|NOTIFY\s|SET\s+LOCAL\s)"
)
SQL_WRITE = re.compile(r"\b(?:INSERT\s+INTO|DELETE\s+FROM|UPDATE)\s+(?:ONLY\s+)?([a-z_][a-z0-9_]*)", re.DOTALL)
SUBPROCESS_CALLS = re.compile(r"^(asyncio\.create_subprocess_\w+|os\.(system|popen|exec\w*|spawn\w*|fork))$")
ENDPOINT_DECORATORS = {"get", "post", "put", "patch", "delete", "head", "options", "api_route", "websocket", "route"}
KIT_TABLES = {"outbox", "inbox", "stream_readers", "idempotency_keys"}
KIT_TABLES |= {"replica_resources", "replica_memberships", "replica_revocations"}


@dataclass(frozen=True)
class Module:
    path: Path
    name: str  # Dotted name, such as workflow_service.tickets.store.
    room: str | None  # None at the service's top.
    role: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name if self.path.stem == "__init__" else self.name.rpartition(".")[0]

    @property
    def may(self) -> Role:
        return ROLES[self.role] if self.room else TOP_MODULES.get(self.role, Role())


def role_of(parts: tuple[str, ...]) -> str:
    """Role of a file from its path below the room: `service.py`, `claims_service.py`, `routes/members.py`."""
    for part in parts:
        for role in ROLES:
            if part == role or part.startswith(f"{role}_") or part.endswith(f"_{role}"):
                return role
    return UNNAMED


def modules(root: Path) -> dict[str, Module]:
    found = {}
    for path in files(root, ".py"):
        parts = path.relative_to(root).with_suffix("").parts
        if len(parts) < 5 or parts[0] != "services" or parts[2] != "src" or not parts[3].endswith("_service"):
            continue
        inside = parts[4:]
        name = ".".join(parts[3:] if inside[-1] != "__init__" else parts[3:-1])
        room = inside[0] if len(inside) > 1 else None
        role = inside[0] if room is None else role_of(inside[1:])
        found[name] = Module(path, name, room, role, parse(path))
    return found


def check(root: Path) -> list[Finding]:
    tree = modules(root)
    findings = [*_room_cycles(root, tree), *_middleware(root)]
    table_rooms = _table_rooms(tree)
    for module in tree.values():
        where = relative(root, module.path)
        findings += [Finding(where, line, text) for line, text in _module(module, tree, table_rooms)]
    return sorted(set(findings))


def _module(module: Module, tree: dict[str, Module], table_rooms: dict[str, str]) -> Iterator[tuple[int, str]]:
    if module.room is None and module.role not in TOP_MODULES:
        yield 1, f"no such file at a service's top: only {', '.join(sorted(TOP_MODULES))} and rooms"
        return
    yield from _imports(module, tree)
    yield from _transactions(module)
    yield from _sql(module, tree, table_rooms)
    if module.room and module.role == "rules":
        yield from _purity(module)
    if module.room and module.role == "routes":
        yield from _async_only(module)
    if not (module.room and module.role == "adapters"):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and SUBPROCESS_CALLS.match(dotted(node.func) or ""):
                yield node.lineno, "processes are started in adapters only"


def _targets(module: Module, tree: dict[str, Module]) -> Iterator[tuple[int, str, Module]]:
    """(line, imported name or empty, module) of each import of a module of the same service."""
    for line, source, name in imports(module.tree, module.package):
        full = f"{source}.{name}" if name else source
        target = tree.get(full) or tree.get(source)
        if target and target.name.split(".")[0] == module.name.split(".")[0]:
            yield line, (name or "") if target.name == source else "", target


def _imports(module: Module, tree: dict[str, Module]) -> Iterator[tuple[int, str]]:
    may, here = module.may, module.role if module.room else f"{module.role}.py"
    for line, source, name in imports(module.tree, module.package):
        top = source.split(".")[0]
        full = f"{source}.{name}" if name else source
        if top == "servicekit":
            part = [*source.split("."), name or ""][1]
            if part and ((may.kit is not None and part not in may.kit) or part in may.forbidden_kit):
                yield line, f"{here} must not import servicekit.{part}"
        elif top.endswith("_service") and top != module.name.split(".")[0]:
            yield line, f"a service never imports another: {top}"
        elif not full.startswith(PLAIN_MODULES):
            for group, names in LIBRARIES.items():
                if top in names and group not in may.allows and "*" not in may.allows:
                    yield line, f"{here} must not import {top} ({_place(group)})"
    for line, _, target in _targets(module, tree):
        if target is module or "*" in may.top | may.lower:
            continue
        if target.room is None:
            if target.role not in may.top and target.role != "__init__":
                yield line, f"{here} must not import the service's {target.role}.py"
        elif target.room == module.room:
            if target.role not in may.own and target.path.stem != "__init__":
                yield line, f"{here} must not import {target.role} of its room"
        elif target.role not in may.lower and target.path.stem != "__init__":
            yield line, f"{here} must not import {target.role} of room {target.room}"


def _place(group: str) -> str:
    return {
        "sql": "SQL lives in store, tables and replica",
        "http": "HTTP lives in routes",
        "grpc": "gRPC lives in rpc and clients",
        "contracts": "contracts are met in rpc, consumers, jobs, service, events and clients",
        "vendor": "an outside thing is touched in adapters only",
        "io": "pure files do no I/O",
    }[group]


def _transactions(module: Module) -> Iterator[tuple[int, str]]:
    if module.role in (TRANSACTIONS if module.room else TRANSACTIONS_TOP):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"uow", "reader"}:
            if dotted(node.func) == "csv.reader":
                continue
            yield node.lineno, f"transactions are opened in service only: .{node.func.attr}()"


def _table_rooms(tree: dict[str, Module]) -> dict[str, str]:
    """`<service package>.<table name>` → room that owns the table."""
    owners = {}
    for module in tree.values():
        if module.room and module.role == "tables":
            for node in ast.walk(module.tree):
                name = None
                if isinstance(node, ast.Assign) and any(dotted(t) == "__tablename__" for t in node.targets):
                    name = node.value
                elif isinstance(node, ast.Call) and (dotted(node.func) or "").split(".")[-1] == "Table" and node.args:
                    name = node.args[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    owners[f"{module.name.split('.')[0]}.{name.value}"] = module.room
    return owners


def _texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String literals that are not docstrings; an f-string comes as one text with its values left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "_" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            yield node.lineno, node.value


def _sql(module: Module, tree: dict[str, Module], table_rooms: dict[str, str]) -> Iterator[tuple[int, str]]:
    holds_sql = module.role in ({"store", "tables"} if module.room else {"replica"})
    if not holds_sql:
        for line, text in _texts(module.tree):
            if SQL_TEXT.match(text):
                yield line, "SQL text outside store, tables and replica"
        return
    if not module.room or module.role != "store":
        return
    foreign = {
        name: target.room
        for _, name, target in _targets(module, tree)
        if target.role == "tables" and target.room not in (module.room, None) and name
    }
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Call)
            and node.args
            and (dotted(node.func) or "").split(".")[-1] in {"insert", "update", "delete"}
        ):
            written = (dotted(node.args[0]) or "").split(".")[0]
            if written in foreign:
                yield node.lineno, f"a store writes its own tables only: {written} belongs to room {foreign[written]}"
    service = module.name.split(".")[0]
    for line, text in _texts(module.tree):
        for table in SQL_WRITE.findall(text):
            owner = table_rooms.get(f"{service}.{table}")
            if owner and owner != module.room and table not in KIT_TABLES:
                yield line, f"a store writes its own tables only: {table} belongs to room {owner}"


def _purity(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith):
            yield node.lineno, "rules are plain decisions: no async code"
        elif isinstance(node, ast.Call):
            called = dotted(node.func) or ""
            if called in {"open", "input", "print"} or called.endswith((".utcnow", "datetime.now", "date.today")):
                yield (
                    node.lineno,
                    f"rules are plain decisions: {called}() reads or writes the outside; take it as an argument",
                )


def _async_only(module: Module) -> Iterator[tuple[int, str]]:
    depended = {
        dotted(node.args[0])
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and (dotted(node.func) or "").split(".")[-1] == "Depends" and node.args
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef):
            routed = any(
                isinstance(d, ast.Call) and isinstance(d.func, ast.Attribute) and d.func.attr in ENDPOINT_DECORATORS
                for d in node.decorator_list
            )
            if routed or node.name in depended:
                yield (
                    node.lineno,
                    f"{node.name} must be async: a sync endpoint or dependency costs a thread hop per request",
                )


def _room_cycles(root: Path, tree: dict[str, Module]) -> Iterator[Finding]:
    edges: dict[tuple[str, str], dict[str, tuple[Path, int]]] = {}
    for module in tree.values():
        if module.room:
            service = module.name.split(".")[0]
            for line, _, target in _targets(module, tree):
                if target.room and target.room != module.room:
                    edges.setdefault((service, module.room), {}).setdefault(target.room, (module.path, line))
    for (service, room), lower in sorted(edges.items()):
        for name, (path, line) in sorted(lower.items()):
            back = _path_between(edges, service, name, room)
            if back:
                yield Finding(relative(root, path), line, f"rooms form a cycle: {' → '.join([room, *back])}")


def _path_between(
    edges: dict[tuple[str, str], dict[str, tuple[Path, int]]], service: str, start: str, goal: str
) -> list[str] | None:
    waiting, seen = [[start]], {start}
    while waiting:
        path = waiting.pop(0)
        if path[-1] == goal:
            return path
        for following in sorted(edges.get((service, path[-1]), {})):
            if following not in seen:
                seen.add(following)
                waiting.append([*path, following])
    return None


def _middleware(root: Path) -> Iterator[Finding]:
    for path in files(root, ".py"):
        where = relative(root, path)
        if where.startswith(("libs/contracts/", "tools/")) or "/tests/" in where:
            continue
        for node in ast.walk(parse(path)):
            if (isinstance(node, ast.Name) and node.id == "BaseHTTPMiddleware") or (
                isinstance(node, ast.ImportFrom) and any(alias.name == "BaseHTTPMiddleware" for alias in node.names)
            ):
                yield Finding(where, node.lineno, "BaseHTTPMiddleware is banned: write the middleware as plain ASGI")
