"""After everything that the journeys did, kills included: nothing is left lying. Runs last by its name."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.access.databases import Databases
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


DURABLE = "billing-ledger-identity"
TOPOLOGY = Path(__file__).parents[2] / "deploy" / "nats" / "topology.yaml"
# Refuses the account of one organization, as a bug or a full disk would.
FAULT = (
    "CREATE FUNCTION e2e_refuse() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'the ledger is broken'; END $$",
    "CREATE TRIGGER e2e_refuse BEFORE UPDATE ON billing_accounts FOR EACH ROW"
    " WHEN (NEW.billing_email = '{email}') EXECUTE FUNCTION e2e_refuse()",
)
MENDED = "DROP FUNCTION e2e_refuse() CASCADE"


def command(*arguments: str, environment: dict[str, str] | None = None) -> list[Any]:
    """The JSON lines that a command of the operator prints."""
    given = [sys.executable, "-m", *arguments]
    done = subprocess.run(given, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def letters(*, replay: bool = False) -> list[Any]:
    """The dead letters of the durable, as `make dlq` or `make dlq-replay` prints them."""
    return command("omoios_local", "dlq-replay" if replay else "dlq", "--durable", DURABLE)


@pytest.fixture
def databases(world: World) -> Iterator[Databases]:
    """The services' databases."""
    found = Databases(world.client.stack().environments)
    yield found
    found.close()


def test_a_replayed_dead_letter_has_its_effect_once(world: World, databases: Databases) -> None:
    """The journey that may leave the stack changed: its durable gives up at once, not after a quarter of an hour."""
    plan = yaml.safe_load(TOPOLOGY.read_text(encoding="utf-8"))
    (durable,) = [one["durables"][DURABLE] for one in plan["streams"].values() if DURABLE in one["durables"]]
    durable["max_deliver"] = 1
    file = world.directory / "impatient.yaml"
    file.write_text(yaml.safe_dump(plan), encoding="utf-8")
    tool = {"PATH": os.environ["PATH"]} | dict(world.client.stack().environments.tool("topology"))
    command("servicekit.events.topology", "apply", "--file", str(file), environment=tool)
    world.client.restart("billing")

    owner, mark = world.register(), secrets.token_hex(4)
    email = f"broken-{mark}@example.com"
    for statement in FAULT:
        databases.rows("billing", statement.format(email=email))
    broken = owner.post("/organizations", {"name": "Broken", "slug": f"broken-{mark}", "billing_email": email})["id"]
    sound = owner.post("/organizations", {"name": "Sound", "slug": f"sound-{mark}"})["id"]

    def effects(organization: str) -> tuple[int, int]:
        """Accounts, and postings of the month's allowance."""
        accounts = databases.rows("billing", "SELECT 1 FROM billing_accounts WHERE organization_id = $1", organization)
        postings = databases.rows(
            "billing",
            "SELECT DISTINCT posting_id FROM ledger_entries WHERE organization_id = $1 AND reason = 'allowance'",
            organization,
        )
        return len(accounts), len(postings)

    (letter,) = eventually(letters, "the event is a dead letter", 60, 0.5)
    assert letter["body"]["organization_id"] == broken
    assert "the ledger is broken" in letter["reason"]
    eventually(lambda: effects(sound) == (1, 1), "its neighbour goes on", 60)
    assert effects(broken) == (0, 0)

    databases.rows("billing", MENDED)
    assert [one["event_id"] for one in letters(replay=True)] == [letter["event_id"]]
    eventually(lambda: effects(broken) == (1, 1), "the replayed event has its effect", 60)
    assert letters() == []
    assert letters(replay=True) == []
    assert effects(broken) == (1, 1)
