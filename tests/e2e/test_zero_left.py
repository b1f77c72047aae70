"""After everything that the journeys did, kills included: nothing is left lying. Runs last by its name."""

from __future__ import annotations

from typing import Any

from tests.e2e.world import World, eventually


def test_no_dead_letter_and_an_empty_outbox(world: World) -> None:
    def rest() -> Any:
        found = world.status()
        open_rows = {name: row.get("pending") for name, row in found["outbox"].items() if row.get("pending") != 0}
        lag = [row for row in found["consumers"] if row["pending"] or row["unacknowledged"]]
        return found if not open_rows and not lag else None

    found = eventually(rest, "outboxes are empty and durables have no lag", 90, 1.0)
    assert set(found["outbox"]) == {"identity", "workflow", "agents", "monitoring", "billing", "vcs"}
    assert found["dead_letters"] == 0
    assert found["running"]
