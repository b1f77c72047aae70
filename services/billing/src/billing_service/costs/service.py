"""Usage becomes costs; costs are listed and summed up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from billing_service import events
from billing_service.costs import rules, store
from billing_service.costs.schemas import CostRecordOut, CostShare, CostSummaryOut, Forecast, ForecastOut
from billing_service.costs.tables import PriceVersion
from billing_service.errors import PRICE_CHANGED_MEANWHILE, SCOPE_ID_NEEDED, SCOPE_NOT_FOUND
from billing_service.ledger.rules import is_of_an_earlier_month
from billing_service.ledger.service import LedgerService
from omoios.agents.events.v1 import events_pb2 as agents_events
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.errors import invalid
from servicekit.events import Permanent, Resources
from servicekit.ids import new_id


class CostService:
    """Use cases of costs."""

    def __init__(self, db: Database, ledger: LedgerService, resources: Resources) -> None:
        self._db = db
        self._ledger = ledger
        self._resources = resources

    async def seed(self) -> None:
        """Inserts the first prices; safe to run by every instance at every start."""
        async with self._db.uow() as tx:
            await store.seed_prices(tx, rules.FIRST_PRICES)

    async def prices(self) -> list[PriceVersion]:
        """The newest price of everything that has one."""
        async with self._db.reader() as tx:
            return list(await store.prices(tx))

    async def change_price(self, provider: str, model: str, prompt: int, completion: int) -> PriceVersion:
        """The next version of a price, for every cost from now on. Micro-USD per million units.

        Raises `billing.price_changed_meanwhile`.
        """
        for field, value in (("prompt", prompt), ("completion", completion)):
            if not 0 <= value <= rules.MAX_PRICE:
                raise invalid(field, f"must be 0 to {rules.MAX_PRICE}", value)
        async with self._db.uow() as tx:
            price = await store.add_price(tx, provider.lower(), model.lower(), prompt, completion)
        if price is None:
            raise PRICE_CHANGED_MEANWHILE()
        return price

    async def record(self, tx: Tx, organization_id: str, entries: Sequence[agents_events.UsageEntry]) -> None:
        """Prices usage and charges it to the month in which it was used, each usage once."""
        account = await self._ledger.charged_account(tx, organization_id)
        prices = _price_list(await store.prices(tx))
        records = await store.add(tx, [_row(prices, organization_id, entry) for entry in entries])
        for record in records:
            account = await self._ledger.charge(
                tx, account, record.execution_id, record.total_micro_usd, record.usage_id, record.recorded_at
            )
        used_ms = sum(
            record.sandbox_milliseconds
            for record in records
            if not is_of_an_earlier_month(record.recorded_at, account.period_ends_at)
        )
        if used_ms:
            account = await self._ledger.use_sandboxes(tx, account, used_ms)
        if records:
            events.costs_recorded(tx, account, records)

    async def list_records(
        self, principal: Principal, task_id: str | None, agent_id: str | None, limit: int
    ) -> list[CostRecordOut]:
        """The newest records in the caller's organizations, of one task or agent where given."""
        scope, scope_id = ("task", task_id) if task_id else ("agent", agent_id) if agent_id else (None, None)
        async with self._db.reader() as tx:
            rows = await store.page(tx, _visible(principal), scope, scope_id, limit)
        return [CostRecordOut.of(record, account_id) for record, account_id in rows]

    async def summary(self, principal: Principal, scope: str, scope_id: str | None) -> CostSummaryOut:
        """What a scope cost in the caller's organizations; `global`, the whole platform, is a super admin's.

        Raises `billing.scope_id_needed`, `billing.scope_not_found` for what is unknown or another organization's.
        """
        if scope == "global":
            principal.require_super_admin()
        if scope != "global" and not scope_id:
            raise SCOPE_ID_NEEDED()
        costs_of = rules.OLDER_PHASES.get(scope_id, scope_id) if scope == "phase" and scope_id else scope_id
        async with self._db.reader() as tx:
            rows = await store.breakdown(tx, _visible(principal), scope, costs_of)
        if scope_id and scope != "global" and not rows:
            await self._require(principal, scope, scope_id)
        return _summary(scope, scope_id if scope != "global" else None, rows)

    async def _require(self, principal: Principal, scope: str, scope_id: str) -> None:
        """Raises `billing.scope_not_found` where a scope without costs is none that the caller may look at."""
        if scope != "phase":
            organization = await self._resources.organization_of(scope, scope_id, SCOPE_NOT_FOUND)
            principal.require("billing:read", organization, SCOPE_NOT_FOUND)
        elif scope_id not in rules.PHASES | rules.OLDER_PHASES.keys():
            raise SCOPE_NOT_FOUND()

    async def account_summary(self, principal: Principal, organization_id: str) -> CostSummaryOut:
        """What an organization cost so far."""
        await self._ledger.visible_account(principal, organization_id)
        async with self._db.reader() as tx:
            rows = await store.breakdown(tx, None, "billing_account", organization_id)
        return _summary("billing_account", organization_id, rows)

    async def account_records(self, principal: Principal, organization_id: str, limit: int) -> list[CostRecordOut]:
        """The newest records of an organization."""
        await self._ledger.visible_account(principal, organization_id)
        async with self._db.reader() as tx:
            rows = await store.page(tx, [organization_id], None, None, limit)
        return [CostRecordOut.of(record, account_id) for record, account_id in rows]

    async def totals(self, organization_ids: Sequence[str], since: datetime | None) -> dict[str, tuple[int, int]]:
        """Organization → (micro-USD, records) since a moment."""
        async with self._db.reader() as tx:
            rows = await store.totals(tx, organization_ids, since)
        return {row.organization_id: (int(row.micro_usd), row.records) for row in rows}

    async def forecast(self, body: Forecast) -> ForecastOut:
        """What so many tasks will probably cost."""
        async with self._db.reader() as tx:
            prices = _price_list(await store.prices(tx))
        tokens_each = rules.DEFAULT_TOKENS_PER_TASK if body.avg_tokens_per_task is None else body.avg_tokens_per_task
        micro, tokens = rules.forecast(prices, body.pending_task_count, tokens_each, body.provider, body.model)
        return ForecastOut(
            task_count=body.pending_task_count,
            estimated_cost=rules.usd(micro),
            estimated_tokens=tokens,
            avg_tokens_per_task=tokens_each,
            buffer_multiplier=rules.BUFFER,
        )


def _visible(principal: Principal) -> list[str] | None:
    return None if principal.is_super_admin else principal.organizations_with("billing:read")


def _summary(scope: str, scope_id: str | None, rows: Sequence[Any]) -> CostSummaryOut:
    return CostSummaryOut(
        scope_type=scope,
        scope_id=scope_id,
        total_cost=rules.usd(sum(int(row.micro_usd) for row in rows)),
        total_tokens=sum(int(row.tokens) for row in rows),
        record_count=sum(row.records for row in rows),
        breakdown=[
            CostShare(
                provider=row.provider,
                model=row.model,
                cost=rules.usd(int(row.micro_usd)),
                tokens=int(row.tokens),
                records=row.records,
            )
            for row in rows
        ],
    )


def _price_list(rows: Sequence[PriceVersion]) -> rules.PriceList:
    return {(row.provider, row.model): rules.Price(row.prompt, row.completion, row.version) for row in rows}


def _used_at(entry: agents_events.UsageEntry) -> datetime:
    """When it was used; now where nobody said it or another machine's clock is ahead."""
    now = utc_now()
    return min(entry.time.ToDatetime(tzinfo=UTC), now) if entry.HasField("time") else now


def _row(prices: rules.PriceList, organization_id: str, entry: agents_events.UsageEntry) -> dict[str, Any]:
    if entry.kind == rules.SANDBOX_SECONDS:
        cost = rules.cost_of_sandbox(prices, max(0, entry.sandbox_milliseconds))
        provider, model = rules.SANDBOX
    elif entry.kind == rules.MODEL_TOKENS:
        # Cached tokens are counted as prompt tokens: nobody is charged less than the provider may charge.
        prompt = entry.input_tokens + entry.cache_read_tokens + entry.cache_write_tokens
        cost = (
            rules.cost_as_reported(entry.reported_micro_usd)
            if entry.reported_micro_usd > 0
            else rules.cost_of_tokens(prices, entry.provider, entry.model, max(0, prompt), max(0, entry.output_tokens))
        )
        provider, model = entry.provider, entry.model
    else:
        raise Permanent(f"usage {entry.usage_id} is of the unknown kind {entry.kind!r}")
    return {
        "id": new_id(),
        "usage_id": entry.usage_id,
        "organization_id": organization_id,
        "project_id": entry.project_id or None,
        "spec_id": entry.spec_id or None,
        "execution_id": entry.execution_id or None,
        "phase_id": entry.phase_id or None,
        "ticket_id": entry.ticket_id or None,
        "task_id": entry.task_id or None,
        "sandbox_id": entry.sandbox_id or None,
        "agent_id": entry.agent_id or None,
        "kind": entry.kind,
        "provider": provider,
        "model": model,
        "prompt_tokens": max(0, entry.input_tokens + entry.cache_read_tokens + entry.cache_write_tokens),
        "completion_tokens": max(0, entry.output_tokens),
        "sandbox_milliseconds": max(0, entry.sandbox_milliseconds),
        "prompt_micro_usd": cost.prompt,
        "completion_micro_usd": cost.completion,
        "total_micro_usd": cost.total,
        "listed": cost.listed,
        "price_version": cost.version,
        "recorded_at": _used_at(entry),
    }
