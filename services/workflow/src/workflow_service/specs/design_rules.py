"""The normal form of a design: text, with diagrams made from objects."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_RELATIONS = {"one-to-one": "||--||", "one-to-many": "||--o{", "many-to-many": "}o--o{"}


def normalised(design: Mapping[str, Any]) -> dict[str, Any]:
    """Objects become fenced Mermaid, `path` fills a missing endpoint, `purpose` a missing description."""
    items = []
    for item in design.get("api_spec") or ():
        filled = dict(item)
        filled["endpoint"] = filled.get("endpoint") or filled.get("path")
        filled["description"] = filled.get("description") or filled.get("purpose")
        items.append(filled)
    return {
        "architecture": _text(design.get("architecture"), _flowchart),
        "data_model": _text(design.get("data_model"), _er_diagram),
        "api_spec": items,
    }


def _text(value: Any, render: Any) -> str | None:
    if isinstance(value, Mapping):
        return render(value) if value else None
    return value or None


def _fenced(lines: Iterable[str]) -> str:
    return "```mermaid\n" + "\n".join(lines) + "\n```"


def _id(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _names(value: Any) -> list[str]:
    """Names of a list of texts or of objects with a name, or the keys of an object."""
    if isinstance(value, Mapping):
        return [str(key) for key in value]
    found = []
    for item in value if isinstance(value, list) else ():
        name = item.get("name") if isinstance(item, Mapping) else item
        if isinstance(name, str) and name:
            found.append(name)
    return found


def _flowchart(value: Mapping[str, Any]) -> str:
    layers = _names(value.get("layers"))
    others = _names(value.get("components")) + _names(value.get("services"))
    if not layers and not others:
        return f"<!-- {json.dumps(value, default=str)} -->"
    lines = ["flowchart TB"]
    lines += [f'    {_id(name)}["{name}"]' for name in dict.fromkeys(layers + others)]
    lines += [f"    {_id(above)} --> {_id(below)}" for above, below in itertools.pairwise(layers)]
    return _fenced(lines)


def _er_diagram(value: Mapping[str, Any]) -> str:
    tables = value.get("tables") or value.get("entities")
    if isinstance(tables, Mapping):
        tables = [{"name": name, **(body if isinstance(body, Mapping) else {})} for name, body in tables.items()]
    if not isinstance(tables, list) or not _names(tables):
        return f"<!-- {json.dumps(value, default=str)} -->"
    lines = ["erDiagram"]
    for table in tables:
        if isinstance(table, str):
            lines.append(f"    {_id(table)}")
        elif isinstance(table, Mapping) and isinstance(table.get("name"), str):
            lines.append(f"    {_id(table['name'])} {{")
            lines += [f"        {kind} {name}" for kind, name in _fields(table.get("fields") or table.get("columns"))]
            lines.append("    }")
    for relation in value.get("relationships") or ():
        if isinstance(relation, Mapping) and relation.get("from") and relation.get("to"):
            arrow = _RELATIONS.get(str(relation.get("type")), "||--o{")
            lines.append(f"    {_id(str(relation['from']))} {arrow} {_id(str(relation['to']))} : has")
    return _fenced(lines)


def _fields(value: Any) -> list[tuple[str, str]]:
    """(type, name) of fields given as an object, as texts or as objects."""
    if isinstance(value, Mapping):
        return [(_id(str(kind)), _id(str(name))) for name, kind in value.items()]
    found = []
    for item in value if isinstance(value, list) else ():
        if isinstance(item, str):
            found.append(("string", _id(item)))
        elif isinstance(item, Mapping) and item.get("name"):
            found.append((_id(str(item.get("type") or "string")), _id(str(item["name"]))))
    return found
