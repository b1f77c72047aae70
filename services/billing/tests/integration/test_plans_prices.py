"""What an operator changes: prices and plans, by the command line, for all accounts at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing_service import admin
from billing_service.costs import store
from omoios.billing.events.v1 import events_pb2 as events
from omoios.billing.v1 import billing_pb2 as pb
from servicekit.clock import utc_now

from .conftest import Billing, usage

Operator = Callable[..., "asyncio.Future[tuple[int, str, str]]"]


@pytest.fixture
def operator(billing: Billing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    """Runs a command as a process of its own would; answers exit code, output and errors."""
    monkeypatch.setenv("OMOIOS_DATABASE_URL", billing.running.service.settings.database_url)
    monkeypatch.setenv("OMOIOS_PLAN_LIMITS", billing.running.service.settings.plan_limits)

    async def run(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(admin.main, list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run  # type: ignore[return-value]


async def costs(billing: Billing) -> list[tuple[str, int, int]]:
    async with billing.running.service.db.reader() as tx:
        query = "SELECT model, total_micro_usd AS cost, price_version AS version FROM cost_records ORDER BY id"
        rows = await (await tx.connection()).fetch(query)
    return [(row["model"], row["cost"], row["version"]) for row in rows]


async def test_a_new_price_counts_from_now_on_and_records_name_their_version(
    billing: Billing, operator: Operator
) -> None:
    organization = billing.organization()
    tokens = {"kind": "model_tokens", "input_tokens": 1_000_000, "output_tokens": 0}
    haiku = {"provider": "anthropic", "model": "claude-haiku", **tokens}
    await billing.tell(usage(**haiku), organization)
    assert await operator("set-price", "Anthropic", "Claude-Haiku", "500000", "2000000") == (
        0,
        "anthropic claude-haiku version 2: 500000 2000000\n",
        "",
    )
    await billing.tell(usage(**haiku), organization)
    await billing.tell(usage(), organization)
    assert await costs(billing) == [("claude-haiku", 250_000, 1), ("claude-haiku", 500_000, 2), ("sandbox", 280, 1)]
    _, listed, _ = await operator("prices")
    assert "anthropic claude-haiku version 2: 500000 2000000\n" in listed
    assert "omoios sandbox version 1" in listed
    assert "* * version 1" in listed
    assert (await billing.balances(organization))["spent"] == 750_280


async def test_of_two_changes_of_a_price_at_once_the_later_is_told(billing: Billing, operator: Operator) -> None:
    db = billing.running.service.db
    async with db.uow() as tx:
        first = await store.add_price(tx, "anthropic", "claude-haiku", 1, 1)
        assert first is not None
        # A context of its own: in this one a transaction is open.
        second = Context().run(asyncio.ensure_future, operator("set-price", "anthropic", "claude-haiku", "2", "2"))
        # The second change waits for the first one's row until that is committed.
        for _ in range(400):
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid"
            waiting = await (await tx.connection()).fetchval(query)
            if waiting or second.done():
                break
            await asyncio.sleep(0.05)
        assert not second.done(), second.result()
    code, _, told = await second
    assert code != 0
    assert "Another change of this price came first" in told or "billing.price_changed_meanwhile" in told
    _, listed, _ = await operator("prices")
    assert len([line for line in listed.splitlines() if "claude-haiku" in line]) == 1


async def test_seeding_again_changes_no_price(billing: Billing, operator: Operator) -> None:
    await operator("set-price", "omoios", "sandbox", "0", "0")
    for seed in billing.running.service.lifespans:
        async with seed():
            pass
    organization = billing.organization()
    await billing.tell(usage(), organization)
    assert await costs(billing) == [("sandbox", 0, 2)]


async def test_a_changed_plan_counts_at_once_for_accounts_that_exist(billing: Billing, operator: Operator) -> None:
    organization = billing.organization()
    for number in range(5):
        await billing.reserve(f"exec-{number}", organization)
    code, said, _ = await operator("set-plan", "free", "--workflows-limit", "6", "--agents-limit", "3")
    assert (code, said.split(":")[0]) == (0, "free version 2")
    await billing.reserve("exec-6", organization)
    limits = (await billing.call("BatchGetLimits", pb.BatchGetLimitsRequest(organization_ids=[organization]))).limits
    assert [(one.agents_limit, one.workflows_limit) for one in limits] == [(3, 6)]
    headers = await billing.user(organization)
    path = f"/api/v1/billing/account/{organization}/usage-summary"
    assert (await billing.http.get(path, headers=headers)).json()["workflows_limit"] == 6


async def test_why_an_execution_may_start_or_not(billing: Billing, operator: Operator) -> None:
    organization = billing.organization()
    headers = await billing.user(organization)
    await billing.reserve("exec-1", organization)

    async def check() -> tuple[bool, str]:
        url = f"/api/v1/billing/account/{organization}/check-execution"
        answer = (await billing.http.post(url, headers=headers)).json()
        return answer["can_execute"], answer["reason"]

    assert await check() == (True, "free_tier")
    await operator("set-plan", "free", "--workflows-limit", "1")
    assert await check() == (False, "payment_required")
    await operator("move", organization, "pro")
    assert await check() == (True, "subscription_quota")
    await operator("set-plan", "pro", "--workflows-limit", "1")
    assert await check() == (False, "quota_exhausted")
    await operator("move", organization, "enterprise")
    assert await check() == (True, "enterprise_unlimited")
    async with billing.running.service.db.uow() as tx:
        await (await tx.connection()).execute("UPDATE billing_accounts SET status = 'suspended'")
    assert await check() == (False, "account_suspended")


async def month_passes(billing: Billing) -> None:
    async with billing.running.service.db.uow() as tx:
        await (await tx.connection()).execute("UPDATE billing_accounts SET period_ends_at = now()")


TOKENS: dict[str, Any] = {
    "kind": "model_tokens",
    "provider": "anthropic",
    "model": "claude-haiku",
    "sandbox_milliseconds": 0,
}


async def test_changes_of_plan_give_nothing_twice_and_last_month_s_allowance_ends(
    billing: Billing, operator: Operator
) -> None:
    organization = billing.organization()
    await billing.tell(usage(), organization)
    spent = 5_000_000 - (await billing.balances(organization))["available"]
    for _ in range(2):
        assert (await operator("move", organization, "team"))[0] == 0
        assert (await operator("move", organization, "free"))[0] == 0
    assert (await billing.balances(organization))["available"] == 200_000_000 - spent
    account = f"/api/v1/billing/account/{organization}"
    headers = await billing.user(organization)
    assert (await billing.http.get(account, headers=headers)).json()["credit_balance"] == 0
    await month_passes(billing)
    assert (await billing.http.get(account, headers=headers)).json()["credit_balance"] == 0
    assert (await billing.balances(organization))["available"] == 5_000_000


async def test_what_a_new_month_costs_counts_in_it_and_a_debt_is_not_forgiven(billing: Billing) -> None:
    organization = billing.organization()
    await billing.tell(usage(), organization)
    await month_passes(billing)
    await billing.tell(usage(**TOKENS | {"input_tokens": 40_000_000}), organization)
    after = await billing.balances(organization)
    assert after["available"] < 0
    await billing.http.get(f"/api/v1/billing/account/{organization}", headers=await billing.user(organization))
    assert await billing.balances(organization) == after
    await month_passes(billing)
    await billing.http.get(f"/api/v1/billing/account/{organization}", headers=await billing.user(organization))
    assert (await billing.balances(organization))["available"] == after["available"] + 5_000_000


async def test_a_turn_costs_what_its_engine_reports(billing: Billing) -> None:
    organization = billing.organization()
    await billing.tell(usage(**TOKENS | {"input_tokens": 40_000_000, "reported_micro_usd": 1_000_001}), organization)
    assert (await billing.balances(organization))["available"] == 5_000_000 - 1_000_001
    headers = await billing.user(organization)
    (record,) = (await billing.http.get("/api/v1/costs/records", headers=headers)).json()
    assert (record["prompt_cost"], record["completion_cost"], record["total_cost"]) == (0.3, 0.700001, 1.000001)
    assert record["prompt_tokens"] == 40_000_000


async def test_an_account_that_nobody_looked_at_stands_as_one_that_was_looked_at_each_month(billing: Billing) -> None:
    organization = billing.organization()
    await billing.tell(usage(**TOKENS | {"input_tokens": 32_000_000}), organization)
    assert (await billing.balances(organization))["available"] == -3_000_000
    async with billing.running.service.db.uow() as tx:
        await (await tx.connection()).execute(
            "UPDATE billing_accounts SET period_ends_at = date_trunc('month', now(), 'UTC') - interval '2 months'"
        )
    # 2 USD are left of the month after the debt, and lapse; of the last one and of this one all.
    await billing.http.get(f"/api/v1/billing/account/{organization}", headers=await billing.user(organization))
    assert (await billing.balances(organization))["available"] == 5_000_000
    last_month = Timestamp()
    last_month.FromDatetime(utc_now().replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=1))
    await billing.tell(usage(**TOKENS | {"input_tokens": 20_000_000, "time": last_month}), organization)
    assert (await billing.balances(organization))["available"] == 5_000_000


async def test_usage_told_late_costs_its_own_month(billing: Billing) -> None:
    organization = billing.organization()
    now = utc_now()
    last_month = Timestamp()
    last_month.FromDatetime(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=1))
    await billing.tell(usage(**TOKENS | {"input_tokens": 4_000_000}), organization)
    await month_passes(billing)
    # 4 USD of the last month's allowance were left: 3 cover a late cost of 3, and 1 of the next one of 3.
    late = TOKENS | {"input_tokens": 12_000_000, "time": last_month}
    await billing.tell(usage(**late), organization)
    assert (await billing.balances(organization))["available"] == 5_000_000
    await billing.tell(usage(**late), organization)
    await billing.tell(usage(sandbox_milliseconds=10_000, time=last_month), organization)
    assert (await billing.balances(organization))["available"] == 5_000_000 - 2_000_000 - 280
    limits = (await billing.call("BatchGetLimits", pb.BatchGetLimitsRequest(organization_ids=[organization]))).limits
    assert limits[0].sandbox_milliseconds_used == 0
    since = Timestamp()
    since.FromDatetime(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    request = pb.GetCostSummaryRequest(organization_ids=[organization], since=since)
    (this_month,) = (await billing.call("GetCostSummary", request, "monitoring")).costs
    assert this_month.total_micro_usd == 1_000_000


async def test_an_organization_moves_and_whoever_replicates_its_account_is_told(
    billing: Billing, operator: Operator
) -> None:
    organization = billing.organization()
    await billing.tell(usage(), organization)
    before = await billing.balances(organization)
    assert await operator("move", organization, "pro") == (0, f"{organization} is on pro\n", "")
    assert (await operator("move", organization, "pro"))[0] == 0
    # 50 USD are included where it were 5, so 45 more are there at once; what is used stays used.
    assert (await billing.balances(organization))["available"] - before["available"] == 45_000_000
    assert (await operator("move", organization, "free"))[0] == 0
    assert (await billing.balances(organization))["available"] - before["available"] == 45_000_000
    await billing.tell(usage(sandbox_milliseconds=3_590_000), organization)
    async with billing.running.service.db.reader() as tx:
        rows = await (await tx.connection()).fetch(
            "SELECT payload, version FROM outbox WHERE subject = 'billing.account.changed.v1' ORDER BY seq"
        )
    told = [events.AccountChanged.FromString(row["payload"]) for row in rows]
    assert [(one.tier, one.sandbox_milliseconds_used) for one in told] == [
        ("free", 10_000),
        ("pro", 10_000),
        ("free", 10_000),
        ("free", 3_600_000),
    ]
    versions = [row["version"] for row in rows]
    assert versions == sorted({*versions})
    [limits] = (await billing.call("BatchGetLimits", pb.BatchGetLimitsRequest(organization_ids=[organization]))).limits
    assert (limits.sandbox_milliseconds_used, limits.version) == (3_600_000, versions[-1])
    assert limits.period_ends_at == told[-1].period_ends_at
    async with billing.running.service.db.uow() as tx:
        await (await tx.connection()).execute("UPDATE billing_accounts SET period_ends_at = now()")
    await billing.tell(usage(), organization)
    [limits] = (await billing.call("BatchGetLimits", pb.BatchGetLimitsRequest(organization_ids=[organization]))).limits
    assert limits.sandbox_milliseconds_used == 10_000


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["move", "nobody", "pro"], "billing.account_not_found"),
        (["set-plan", "ghost", "--agents-limit", "1"], "billing.plan_not_found"),
        (["set-plan", "free", "--agents-limit", "-2"], "agents_limit"),
        (["set-plan", "free", "--included-micro-usd", "-1"], "included_micro_usd"),
        (["set-price", "a", "b", "-1", "0"], "prompt"),
    ],
)
async def test_bad_values_are_refused(billing: Billing, operator: Operator, arguments: list[str], code: str) -> None:
    exit_code, said, errors = await operator(*arguments)
    assert (exit_code, said) == (1, "")
    assert code in errors
