"""After everything that the callers did: nothing is left lying. Runs last by its name."""

from __future__ import annotations

from tests.e2e.world import World, nothing_left


def test_no_dead_letter_and_an_empty_outbox(world: World) -> None:
    nothing_left(world)
