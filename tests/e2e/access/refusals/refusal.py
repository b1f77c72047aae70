"""A valid call that the state of things refuses, written as data."""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e.access.recipe import Recipe, places


@dataclass(frozen=True, slots=True)
class Refusal:
    """`recipe` is called by `recipe.by`, or with the token in the row `token`, and answered with `code`."""

    operation: str
    code: str
    recipe: Recipe
    token: str | None = None
    status: int = 409

    @property
    def name(self) -> str:
        return f"{self.operation}: {self.code}"

    @property
    def further(self) -> set[str]:
        """Rows besides those that the call itself names."""
        return places(self.token) if self.token is not None else set()
