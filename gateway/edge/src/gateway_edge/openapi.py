"""One OpenAPI document of the whole system, merged from those of the six services.

``python -m gateway_edge.openapi write`` makes ``gateway/openapi.json``; ``check`` fails when it is not what the
services say now.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from gateway_edge import __version__
from gateway_edge.layout import OPENAPI
from gateway_edge.pending import Operation
from gateway_edge.routes import EDGE, SERVICES, Routes, load

Document = Mapping[str, Any]

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# Every process answers these on its own port; the gateway does not let them through.
INTERNAL_PATHS = ("/livez", "/readyz", "/metrics", "/health", "/openapi.json", "/docs", "/redoc", "/")
TITLE = "OmoiOS"


class MergeError(ValueError):
    """Two services claim the same thing, or one declares a path that the gateway gives to another."""


def merge(documents: Mapping[str, Document], routes: Routes, environment: str = "local") -> dict[str, Any]:
    """The documents of services (name → document) and the edge as one.

    Components get the service's name before theirs (``identity_UserResponse``) and references follow; security schemes
    that are equal everywhere keep their name. Raises MergeError for an operation or operation id declared twice and for
    a path that is not routed to the service that declares it.
    """
    paths: dict[str, dict[str, Any]] = {}
    components: dict[str, dict[str, Any]] = {}
    tags: dict[str, dict[str, Any]] = {}
    groups = []
    owners_of_ids: dict[str, str] = {}
    shared = _shared_security_schemes(documents)
    for service in sorted(documents):
        document = _prefixed(documents[service], service, shared)
        used: dict[str, None] = {}
        for path, item in document.get("paths", {}).items():
            if service != EDGE and path in INTERNAL_PATHS:
                continue
            owner = routes.owner_of(path, environment)
            if owner != service:
                raise MergeError(f"{service} declares {path}, which the gateway gives to {owner or 'nobody'}")
            for method, operation in item.items():
                if method in METHODS:
                    identifier = operation.get("operationId", f"{method} {path}")
                    if identifier in owners_of_ids:
                        raise MergeError(f"operation id {identifier}: both {owners_of_ids[identifier]} and {service}")
                    owners_of_ids[identifier] = service
                    used.update(dict.fromkeys(operation.get("tags", ())))
            if path in paths:
                raise MergeError(f"{path} is declared twice")
            paths[path] = item
        for kind, entries in document.get("components", {}).items():
            components.setdefault(kind, {}).update(entries)
        for tag in document.get("tags", ()):
            tags.setdefault(tag["name"], tag)
        if used:
            groups.append({"name": service, "tags": list(used)})
    merged: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": __version__, "description": "Turns a spec into merged code."},
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {kind: dict(sorted(entries.items())) for kind, entries in sorted(components.items())},
    }
    if tags:
        merged["tags"] = [tags[name] for name in sorted(tags)]
    if groups:
        merged["x-tagGroups"] = groups
    return merged


def operations_of(document: Document) -> Iterator[Operation]:
    """The operations that a document declares."""
    for path, item in document.get("paths", {}).items():
        for method in item:
            if method in METHODS:
                yield Operation(method.upper(), path)


def committed_operations(path: Path = OPENAPI) -> list[Operation]:
    """The operations of the committed document; none while there is no such file."""
    if not path.exists():
        return []
    return list(operations_of(json.loads(path.read_text(encoding="utf-8"))))


def _shared_security_schemes(documents: Mapping[str, Document]) -> set[str]:
    seen: dict[str, list[Any]] = {}
    for document in documents.values():
        for name, scheme in document.get("components", {}).get("securitySchemes", {}).items():
            seen.setdefault(name, []).append(scheme)
    return {name for name, schemes in seen.items() if all(scheme == schemes[0] for scheme in schemes)}


def _prefixed(document: Document, service: str, shared: set[str]) -> dict[str, Any]:
    """A copy whose component names, and every reference to them, start with the service's name."""
    prefix = "#/components/"

    def new_name(kind: str, name: str) -> str:
        return name if kind == "securitySchemes" and name in shared else f"{service}_{name}"

    def moved(reference: str) -> str:
        if not reference.startswith(prefix):
            return reference
        kind, name, *rest = reference[len(prefix) :].split("/")
        return prefix + "/".join([kind, new_name(kind, name), *rest])

    def walk(value: Any, inside: str = "") -> Any:
        if isinstance(value, list):
            return [walk(item, inside) for item in value]
        if not isinstance(value, Mapping):
            return value
        result: dict[str, Any] = {}
        for key, item in value.items():
            if key == "$ref" and isinstance(item, str):
                result[key] = moved(item)
            elif key == "mapping" and inside == "discriminator":
                result[key] = {name: moved(target) for name, target in item.items()}
            elif key == "security" and isinstance(item, list) and inside != "properties":
                result[key] = [{new_name("securitySchemes", n): s for n, s in entry.items()} for entry in item]
            else:
                result[key] = walk(item, key)
        return result

    copy = cast("dict[str, Any]", walk(document))
    copy["components"] = {
        kind: {new_name(kind, name): entry for name, entry in entries.items()}
        for kind, entries in copy.get("components", {}).items()
    }
    return copy


def service_documents(services: Iterable[str] = SERVICES) -> dict[str, Document]:
    """The documents of the services that are in this environment, made without starting any of them."""
    from servicekit.describe import describe
    from servicekit.http.openapi import openapi_document

    return {service.name: openapi_document(service) for service in describe(services)}


def current() -> dict[str, Any]:
    """The merged document of what is in this environment now, the edge included."""
    from gateway_edge.app import document as edge_document

    return merge({**service_documents(), EDGE: edge_document()}, load())


def dumps(document: Document) -> str:
    """The text that is committed: stable, one line per value."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the committed document, or fails when it differs from what the services say."""
    parser = argparse.ArgumentParser(prog="python -m gateway_edge.openapi", description=main.__doc__)
    parser.add_argument("action", choices=("write", "check"))
    parser.add_argument("--file", type=Path, default=OPENAPI)
    given = parser.parse_args(arguments)
    text = dumps(current())
    if given.action == "write":
        given.file.write_text(text, encoding="utf-8")
        return 0
    if not given.file.exists() or given.file.read_text(encoding="utf-8") != text:
        remedy = "run: python -m gateway_edge.openapi write"
        sys.stderr.write(f"{given.file.name} is not what the services declare; {remedy}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
