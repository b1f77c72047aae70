"""Plans: what they allow, read each time, so that a change counts here at once for every account."""

from __future__ import annotations

from collections.abc import Mapping

from billing_service.errors import PLAN_NOT_FOUND
from billing_service.ledger import rules, store
from billing_service.ledger.tables import Account, PlanTier
from billing_service.settings import Settings
from servicekit.db import Database, Tx
from servicekit.errors import invalid


class PlanService:
    """Use cases of plans."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings

    async def seed(self) -> None:
        """Inserts the plans; safe to run by every instance at every start."""
        async with self._db.uow() as tx:
            await store.seed_tiers(tx)

    async def of(self, tx: Tx, account: Account) -> rules.Plan:
        """What the account may use: its plan's row as it is now."""
        return self._plan(await store.find_tier(tx, account.tier))

    async def by_name(self, tx: Tx) -> dict[str, rules.Plan]:
        """All plans by name."""
        return {tier.tier: self._plan(tier) for tier in await store.tiers(tx)}

    def _plan(self, tier: PlanTier) -> rules.Plan:
        factor = self._settings.limit_factor if tier.tier == "free" else 1
        return rules.Plan(
            rules.scaled(tier.workflows_limit, factor),
            rules.scaled(tier.agents_limit, factor),
            tier.included_micro_usd * factor,
        )

    async def tiers(self) -> list[PlanTier]:
        """The plans, the cheapest first."""
        async with self._db.reader() as tx:
            return list(await store.tiers(tx))

    async def change(self, name: str, changes: Mapping[str, int]) -> PlanTier:
        """Changes a plan for all of its accounts at once; its version counts up.

        Raises `billing.plan_not_found`, 422 naming the column.
        """
        for column, value in changes.items():
            lowest = rules.UNLIMITED if column in rules.UNLIMITED_COLUMNS else 0
            if not lowest <= value <= rules.MAX_VALUE:
                raise invalid(column, f"must be {lowest} to {rules.MAX_VALUE}", value)
        async with self._db.uow() as tx:
            tier = await store.change_tier(tx, name, changes)
        if tier is None:
            raise PLAN_NOT_FOUND()
        return tier
