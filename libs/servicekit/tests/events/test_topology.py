"""Topology: written from declarations, applied until it is true, and nothing else."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from nats.js.api import ConsumerConfig

from omoios.identity.events.v1.events_pb2 import OrganizationCreated, UserRegistered
from servicekit.events import Consumers, Permanent, dlq, tail
from servicekit.events.topology import Durable, Plan, apply, event_map, plan_of


def group_of(name: str, *types: Any) -> Consumers:
    group = Consumers(name)

    @group.on(*types)
    async def handler(_tx: Any, _event: Any) -> None:
        raise Permanent("told to fail")

    return group


async def test_the_plan_names_streams_durables_and_subjects(kit: Any) -> None:
    billing = await kit.party("billing")
    billing.groups = [group_of("accounts", UserRegistered, OrganizationCreated)]
    plan = plan_of([billing.service])
    assert set(plan.streams) == {"IDENTITY", "WORKFLOW", "AGENTS", "MONITORING", "BILLING", "VCS", "DLQ"}
    assert plan.streams["IDENTITY"].durables["billing-accounts-identity"].filter_subjects == [
        "identity.organization.created.v1",
        "identity.user.registered.v1",
    ]
    # The kit's own consumer of memberships and revocations.
    assert "billing-access-identity" in plan.streams["IDENTITY"].durables
    assert plan.server == {"sync_interval": "always"}
    assert plan.streams["IDENTITY"].allow_atomic
    assert Plan.parse(plan.text()) == plan
    with pytest.raises(TypeError):
        Plan.parse(plan.text().replace("max_age_s", "max_aeg_s"))


async def test_applying_makes_changes_and_removes_until_it_is_true(kit: Any) -> None:
    billing = await kit.party("billing")
    billing.groups = [group_of("accounts", UserRegistered)]
    plan = plan_of([billing.service])
    small = {name: replace(stream, max_bytes=64 * 1024**2) for name, stream in plan.streams.items()}
    plan = Plan(small)
    assert len(await apply(kit.js, plan)) == 7 + 2
    assert await apply(kit.js, plan) == []

    await kit.js.add_consumer("BILLING", ConsumerConfig(durable_name="left-over", name="left-over"))
    identity = small["IDENTITY"]
    changed = replace(identity.durables["billing-accounts-identity"], max_ack_pending=7)
    small["IDENTITY"] = replace(
        identity, max_age_s=3600.0, durables=identity.durables | {"billing-accounts-identity": changed}
    )
    assert sorted(await apply(kit.js, Plan(small))) == [
        "durable billing-accounts-identity changed",
        "durable left-over removed",
        "stream IDENTITY changed",
    ]
    info = await kit.js.consumer_info("IDENTITY", "billing-accounts-identity")
    assert info.config.max_ack_pending == 7


async def test_a_stream_that_outlives_the_inboxes_is_refused(kit: Any) -> None:
    billing = await kit.party("billing")
    plan = await kit.topology(billing)
    for days in (0, 8):
        plan.streams["IDENTITY"] = replace(plan.streams["IDENTITY"], max_age_s=days * 86_400.0)
        with pytest.raises(ValueError, match="stream IDENTITY: max_age_s"):
            await apply(kit.js, plan)


async def test_a_durable_keeps_its_place_when_its_filter_grows(kit: Any) -> None:
    identity, billing = await kit.party("identity"), await kit.party("billing")
    seen: list[str] = []
    group = Consumers("accounts")

    @group.on(UserRegistered)
    async def registered(_tx: Any, event: Any) -> None:
        seen.append(event.aggregate_id)

    billing.groups = [group]
    await kit.topology(billing)
    async with identity.working(), billing.working():
        async with identity.db.uow() as tx:
            tx.emit(UserRegistered(), aggregate_id="u-1")
        await kit.until(lambda: seen)

        @group.on(OrganizationCreated)
        async def created(_tx: Any, event: Any) -> None:
            seen.append(event.aggregate_id)

        await kit.topology(billing)
        async with identity.db.uow() as tx:
            tx.emit(OrganizationCreated(), aggregate_id="o-1", organization_id="o-1")
        await kit.until(lambda: len(seen) == 2)
    assert seen == ["u-1", "o-1"]


async def test_the_map_names_who_makes_something_of_what(kit: Any) -> None:
    billing = await kit.party("billing")
    log = Consumers("log")
    log.on_any("identity", lambda _tx, _event: asyncio.sleep(0), uses=["identity.organization.created.v1"])
    billing.groups = [group_of("accounts", UserRegistered), log]
    billing.bus.subscribe_live("workflow.tasks.ready.v1", lambda _event: None)
    found = event_map([billing.service])
    assert found["identity.user.registered.v1"][1] == ["billing.accounts"]
    assert found["identity.membership.changed.v1"][1] == ["billing.access"]
    assert found["identity.user.updated.v1"][1] == []
    assert found["identity.organization.created.v1"][1] == ["billing.log"]
    assert found["workflow.tasks.ready.v1"][1] == ["billing (live)"]


def test_declarations_that_contradict_each_other_are_refused() -> None:
    group = group_of("accounts", UserRegistered)
    with pytest.raises(ValueError, match="has a handler for"):
        group_of_again(group)
    with pytest.raises(ValueError, match="at least one"):
        group.on()(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="has no option"):
        group.on(Timestamp)(None)  # type: ignore[arg-type]


def group_of_again(group: Consumers) -> None:
    @group.on(UserRegistered)
    async def again(_tx: Any, _event: Any) -> None:
        return None


async def test_the_commands_list_replay_and_follow(kit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    identity, billing = await kit.party("identity"), await kit.party("billing")
    billing.groups = [group_of("accounts", UserRegistered)]
    await kit.topology(billing)
    lines: list[str] = []
    following = asyncio.create_task(tail.follow(["identity.>"], kit.nats_url, {}, lines.append))
    await asyncio.sleep(0.2)
    async with identity.working(), billing.working():
        async with identity.db.uow() as tx:
            event_id = tx.emit(UserRegistered(user_id="u-1", email="a@b.c"), aggregate_id="u-1", version=3)
        await kit.until(lambda: lines)

        async def listed(*arguments: str) -> list[Any]:
            options = argparse_of(*arguments)
            await dlq.run(options, kit.nats_url, {})
            return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]

        await kit.until(lambda: has_dead(kit, 1))
        (letter,) = await listed("list")
        assert (letter["event_id"], letter["durable"]) == (event_id, "billing-accounts-identity")
        assert (letter["reason"], letter["body"]) == ("told to fail", {"user_id": "u-1", "email": "a@b.c"})
        assert await listed("list", "--durable", "monitoring-*") == []
        assert len(await listed("replay", "--subject", "identity.user.*")) == 1
        # It fails again and becomes another dead letter.
        await kit.until(lambda: has_dead(kit, 1))
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    first = json.loads(lines[0])
    assert (first["id"], first["type"]) == (event_id, "identity.user.registered.v1")
    assert (first["aggregate"], first["version"], first["body"]["user_id"]) == ("user:u-1", 3, "u-1")


def argparse_of(*arguments: str) -> Any:
    return dlq.parser().parse_args(arguments)


async def has_dead(kit: Any, count: int) -> bool:
    return bool((await kit.js.stream_info("DLQ")).state.messages == count)


def test_limits_are_those_that_the_loop_reads() -> None:
    durable = Durable(["x"])
    assert durable.max_deliver >= len(durable.backoff_s)
