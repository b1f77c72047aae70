"""Every served operation: its place in the merged OpenAPI document, its access entry, its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from servicekit.auth import PUBLIC, Access
from servicekit.describe import describe
from tests.e2e.access import recipes
from tests.e2e.access.recipe import PLACE, Recipe, filled, places

DOCUMENT = Path(__file__).resolve().parents[3] / "gateway" / "openapi.json"
METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True)
class Operation:
    """One operation with all that is known of it."""

    id: str
    method: str
    template: str
    document: Mapping[str, Any]
    service: str
    access: Access
    recipe: Recipe

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    @property
    def parameters(self) -> list[str]:
        """Names of the path's parameters."""
        return PLACE.findall(self.template)

    @property
    def places(self) -> set[str]:
        """Names of the rows that a call needs."""
        path = {name: self.recipe.path.get(name, f"{{{name}}}") for name in self.parameters}
        return places(path) | places(self.recipe.query) | places(self.recipe.body) | self.recipe.needs

    def address(self, rows: Mapping[str, str]) -> str:
        """The path with rows in it."""
        own = {name: filled(self.recipe.path.get(name, f"{{{name}}}"), rows) for name in self.parameters}
        return PLACE.sub(lambda found: own[found[1]], self.template)


@cache
def document() -> dict[str, Any]:
    """The merged OpenAPI document."""
    found: dict[str, Any] = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    return found


@cache
def access_entries() -> dict[str, tuple[str, Access]]:
    """Operation id → (service, access entry); those of the edge are public."""
    found = {
        operation: (service.name, entry)
        for service in describe()
        for operation, entry in service.access.operations.items()
    }
    return found | {"system.root": ("edge", PUBLIC), "system.health": ("edge", PUBLIC)}


def missing() -> list[str]:
    """What has to be added before every served operation can be called as everybody."""
    found = []
    served = set()
    for template, item in document()["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            operation = item[method]["operationId"]
            served.add(operation)
            if operation not in access_entries():
                found.append(f"{operation} ({method.upper()} {template}) has no entry in the access table of a service")
            if operation not in recipes.RECIPES:
                found.append(
                    f"{operation} ({method.upper()} {template}) has no recipe: add one to tests/e2e/access/recipes, "
                    "as tests/e2e/access/README.md says"
                )
            elif _of_platform(operation) and recipes.RECIPES[operation].by != "super_admin":
                found.append(f"the recipe {operation} is not by super_admin, for whom alone the operation is")
    found += [f"the recipe {name} belongs to no served operation" for name in recipes.RECIPES if name not in served]
    return found


def _of_platform(operation: str) -> bool:
    return operation in access_entries() and access_entries()[operation][1].platform


@cache
def operations() -> list[Operation]:
    """All operations that have an access entry and a recipe."""
    found = []
    for template, item in document()["paths"].items():
        for method in METHODS:
            name = item.get(method, {}).get("operationId")
            if name in access_entries() and name in recipes.RECIPES:
                service, entry = access_entries()[name]
                found.append(
                    Operation(name, method.upper(), template, item[method], service, entry, recipes.RECIPES[name])
                )
    return found
