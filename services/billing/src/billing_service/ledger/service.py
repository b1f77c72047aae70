"""Accounts and reservations: every change is a balanced posting in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from billing_service import events
from billing_service.clients import IdentityClient
from billing_service.errors import ACCOUNT_NOT_FOUND, EXECUTION_IS_ANOTHER, LIMIT_REACHED, PLAN_NOT_FOUND
from billing_service.ledger import rules, store
from billing_service.ledger.plans_service import PlanService
from billing_service.ledger.tables import Account, Reservation
from billing_service.settings import Settings
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.errors import AppError, invalid
from servicekit.ids import new_id

MAX_TTL_S = 3600
SWEEP_BATCH = 200
CHECKED_AT_ONCE = 100

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Execution:
    """An execution as workflow's events tell it."""

    id: str
    organization_id: str
    spec_id: str
    project_id: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What an organization may use and has used in this month; a limit of -1 is none."""

    organization_id: str
    tier: str
    agents_limit: int
    workflows_limit: int
    workflows_used: int
    available_micro_usd: int
    sandbox_ms_used: int
    period_ends_at: datetime
    version: int


class LedgerService:
    """Use cases of accounts and reservations."""

    def __init__(self, db: Database, settings: Settings, plans: PlanService, identity: IdentityClient) -> None:
        self._db = db
        self._settings = settings
        self._plans = plans
        self._identity = identity

    # Accounts

    async def open_account(self, tx: Tx, organization_id: str) -> Account:
        """The account of an organization, made on the free tier with its first allowance when there is none."""
        account = await store.add_account(
            tx,
            id=new_id(),
            organization_id=organization_id,
            period_ends_at=rules.next_month(utc_now()),
        )
        if account is None:
            known = await store.find_account(tx, organization_id, lock=True)
            assert known is not None
            return known
        included = (await self._plans.of(tx, account)).included_micro_usd
        account = await store.change_account(tx, account, allowance_micro_usd=included)
        account = await store.post(tx, account, rules.grant(included), "allowance", account.id)
        events.account_created(tx, account)
        return account

    async def told_of(self, tx: Tx, organization_id: str, billing_email: str, version: int) -> None:
        """Opens the account of an organization and takes over its billing address, unless a newer one is known."""
        account = await self.open_account(tx, organization_id)
        if version > account.organization_version:
            await store.change_account(tx, account, billing_email=billing_email or None, organization_version=version)

    async def ensure_account(self, organization_id: str) -> None:
        """Makes the account of an organization whose event has not arrived. Raises `billing.account_not_found`."""
        async with self._db.reader() as tx:
            if await store.find_account(tx, organization_id) is not None:
                return
        organization = await self._identity.find_organization(organization_id)
        if organization is None:
            raise ACCOUNT_NOT_FOUND()
        async with self._db.uow() as tx:
            await self.told_of(tx, organization_id, organization.billing_email, organization.version)

    async def account(self, tx: Tx, organization_id: str) -> Account:
        """The account with the current month's numbers, locked. Raises `billing.account_not_found`."""
        account = await store.find_account(tx, organization_id, lock=True)
        if account is None:
            raise ACCOUNT_NOT_FOUND()
        return await self._in_this_month(tx, account)

    async def visible_account(self, principal: Principal, organization_id: str) -> tuple[Account, rules.Plan]:
        """Account and plan, for whom may see it; made on first sight when the organization's event has not arrived."""
        principal.require("billing:read", organization_id, ACCOUNT_NOT_FOUND)
        await self.ensure_account(organization_id)
        # Without a lock: who looks must not wait for the charges that are being written.
        async with self._db.reader() as tx:
            found = await store.find_account(tx, organization_id)
            if found is not None and utc_now() < found.period_ends_at:
                return found, await self._plans.of(tx, found)
        async with self._db.uow() as tx:
            account = await self.account(tx, organization_id)
            return account, await self._plans.of(tx, account)

    async def limits(self, organization_ids: Sequence[str]) -> list[Limits]:
        """What the organizations that have an account may use."""
        async with self._db.reader() as tx:
            plans = await self._plans.by_name(tx)
            accounts = await store.find_accounts(tx, organization_ids)
        return [
            Limits(
                account.organization_id,
                account.tier,
                plans[account.tier].agents_limit,
                plans[account.tier].workflows_limit,
                account.workflows_used,
                account.available_micro_usd,
                account.sandbox_ms_used,
                account.period_ends_at,
                account.version,
            )
            for account in accounts
        ]

    async def charged_account(self, tx: Tx, organization_id: str) -> Account:
        """The account that usage is charged to, made where there is none: locked and in the current month. Joins."""
        return await self._in_this_month(tx, await self.open_account(tx, organization_id))

    async def use_sandboxes(self, tx: Tx, account: Account, milliseconds: int) -> Account:
        """Counts sandbox time in the current month of an account from `charged_account`. Joins the transaction."""
        account = await store.change_account(tx, account, sandbox_ms_used_by=milliseconds)
        events.account_changed(tx, account)
        return account

    async def move(self, organization_id: str, plan: str) -> Account:
        """Puts an organization on another plan. What it includes more is there at once, what less from next month on.

        Raises `billing.account_not_found`, `billing.plan_not_found`.
        """
        async with self._db.uow() as tx:
            account = await self.account(tx, organization_id)
            plans = await self._plans.by_name(tx)
            if plan not in plans:
                raise PLAN_NOT_FOUND()
            if plan == account.tier:
                return account
            given = rules.given(account.allowance_micro_usd, plans[account.tier])
            # Down and up again within a month gives nothing twice.
            allowance = max(given, plans[plan].included_micro_usd)
            account = await store.change_account(tx, account, tier=plan, allowance_micro_usd=allowance)
            account = await store.post(tx, account, rules.grant(allowance - given), "allowance", account.id)
            events.account_changed(tx, account)
            return account

    async def _in_this_month(self, tx: Tx, account: Account) -> Account:
        """Starts each month that began since: slots free, what is left of the allowance replaced.

        One after the other, so that an account that nobody looked at stands as one that was looked at each month.
        """
        now = utc_now()
        if now < account.period_ends_at:
            return account
        plan = await self._plans.of(tx, account)
        while account.period_ends_at <= now:
            given = rules.given(account.allowance_micro_usd, plan)
            lapsed = rules.left(account.available_micro_usd, given)
            account = await store.change_account(
                tx,
                account,
                workflows_used=0,
                sandbox_ms_used=0,
                period_ends_at=rules.next_month(account.period_ends_at),
                allowance_micro_usd=plan.included_micro_usd,
                lapsed_micro_usd=lapsed,
            )
            posting = rules.grant(plan.included_micro_usd - lapsed)
            account = await store.post(tx, account, posting, "allowance", account.id)
        return account

    # Reservations

    async def reserve(
        self, execution_id: str, organization_id: str, spec_id: str, project_id: str, budget_micro_usd: int, ttl_s: int
    ) -> Reservation:
        """A slot and a budget for an execution; the same execution again is the same reservation.

        Raises `billing.limit_reached` (402), `billing.account_not_found`, 422 for a negative budget.
        """
        if not (execution_id and organization_id):
            raise invalid("execution_id", "execution_id and organization_id are needed")
        if not 0 <= budget_micro_usd <= 10**15:
            raise invalid("budget_micro_usd", "must be 0 to 10^15", budget_micro_usd)
        await self.ensure_account(organization_id)
        refused: AppError | None = None
        reservation: Reservation | None = None
        async with self._db.uow() as tx:
            account = await self.account(tx, organization_id)
            reservation = await store.find_reservation(tx, execution_id)
            if reservation is not None and reservation.organization_id != organization_id:
                raise EXECUTION_IS_ANOTHER()
            if reservation is None or reservation.state == rules.EXPIRED:
                stop = rules.refusal(await self._standing(tx, account), budget_micro_usd)
                if stop is not None:
                    limit, detail = stop
                    events.limit_reached(tx, account, limit, execution_id, detail)
                    refused = LIMIT_REACHED(detail, limit=limit)
                elif reservation is None:
                    reservation = await store.add_reservation(
                        tx,
                        self._ttl(ttl_s),
                        execution_id=execution_id,
                        organization_id=organization_id,
                        spec_id=spec_id,
                        project_id=project_id,
                        reserved_micro_usd=budget_micro_usd,
                    )
                    await self._take(tx, account, reservation)
                    events.reservation_held(tx, reservation)
                else:
                    reservation = await self._take_again(tx, account, reservation, rules.HELD, ttl_s)
                    events.reservation_held(tx, reservation)
        if refused is not None:
            raise refused
        assert reservation is not None
        return reservation

    async def find_many(self, execution_ids: Sequence[str]) -> list[Reservation]:
        """The reservations of the executions that have one."""
        async with self._db.reader() as tx:
            return list(await store.find_reservations(tx, execution_ids))

    async def confirm(self, tx: Tx, execution: Execution) -> None:
        """The execution has begun. One that expired or is not known is taken now, over the limit if need be."""
        account, reservation = await self._known(tx, execution)
        if reservation.state == rules.HELD:
            reservation = await store.change_reservation(tx, reservation, state=rules.CONFIRMED, checked_at=utc_now())
        elif reservation.state == rules.EXPIRED:
            reservation = await self._take_again(tx, account, reservation, rules.CONFIRMED)
        else:
            return
        events.reservation_confirmed(tx, reservation)

    async def finish(self, tx: Tx, execution: Execution, outcome: str) -> None:
        """The execution ended: what it cost is settled, once. Only a completed one uses its slot up."""
        account, reservation = await self._known(tx, execution)
        if reservation.state == rules.EXPIRED:
            reservation = await self._take_again(tx, account, reservation, rules.CONFIRMED)
            account = await self.account(tx, reservation.organization_id)
        if reservation.state not in rules.OPEN:
            return
        completed = outcome == "completed"
        await self._give_back(tx, account, reservation, used=completed)
        state = rules.SETTLED if completed else rules.RELEASED
        reservation = await store.change_reservation(tx, reservation, ended=True, state=state)
        if completed:
            events.reservation_settled(tx, reservation)
        else:
            events.reservation_released(tx, reservation, outcome)

    async def restated(self, tx: Tx, execution: Execution, state: str) -> None:
        """How an execution stands, after it was asked: one that ended or is unknown gives its slot back."""
        reservation = await store.find_reservation(tx, execution.id)
        # Restated is not begun: what nobody reserved here stays uncounted until its own events come.
        if reservation is None or reservation.state not in rules.OPEN or state in rules.GOES_ON:
            return
        _log.warning("reservation_end_was_lost", execution=execution.id, state=state)
        await self.finish(tx, execution, state)

    async def expire_due(self) -> int:
        """Releases reservations that were never confirmed; returns how many. A job of one instance."""
        async with self._db.reader() as tx:
            due = await store.list_expired(tx, SWEEP_BATCH)
        done = 0
        for execution_id in due:
            async with self._db.uow() as tx:
                locked = await self._locked(tx, execution_id)
                if locked is None or locked[1].state != rules.HELD or locked[1].expires_at > utc_now():
                    continue
                account, reservation = locked
                await self._give_back(tx, account, reservation, used=False)
                reservation = await store.change_reservation(tx, reservation, ended=True, state=rules.EXPIRED)
                events.reservation_released(tx, reservation, "expired")
                done += 1
        return done

    async def ask_after(self) -> int:
        """Asks what became of confirmed executions without news for long; returns how many. A job of one instance.

        The event is answered by whoever runs executions; a lost end is found this way, however it was lost.
        """
        async with self._db.uow() as tx:
            unchecked = await store.take_unchecked(tx, self._settings.reconcile_after_s, SWEEP_BATCH)
            for reservation in unchecked:
                events.reservation_unsettled(tx, reservation)
        return len(unchecked)

    async def charge(
        self, tx: Tx, account: Account, execution_id: str | None, amount: int, reference: str, used_at: datetime
    ) -> Account:
        """A cost, for an account from `charged_account`: counted on the open reservation of its execution, else taken
        from what is available. What was used in an earlier month takes first what was left of that one's allowance.
        """
        reservation = await store.find_reservation(tx, execution_id, lock=True) if execution_id else None
        # An expired one may be taken again; what is charged here must not be settled with it a second time.
        if reservation is not None and reservation.state != rules.EXPIRED:
            await store.change_reservation(tx, reservation, spent_micro_usd=reservation.spent_micro_usd + amount)
            if reservation.state in rules.OPEN:
                return account
        if rules.is_of_an_earlier_month(used_at, account.period_ends_at):
            covered = min(amount, account.lapsed_micro_usd)
            if covered:
                account = await store.change_account(tx, account, lapsed_micro_usd_by=-covered)
            account = await store.post(tx, account, rules.grant(covered), "allowance", account.id)
        return await store.post(tx, account, rules.spend(amount), "cost", reference)

    async def imbalances(self) -> list[str]:
        """Organizations whose ledger does not add up; none in a sound system."""
        wrong: list[str] = []
        last: str | None = ""
        while last is not None:
            async with self._db.reader() as tx:
                found, last = await store.imbalances(tx, last, CHECKED_AT_ONCE)
            wrong += found
        return wrong

    async def check_ledger(self) -> None:
        """Says loudly when a ledger does not add up. A job of one instance."""
        wrong = await self.imbalances()
        if wrong:
            _log.error("ledger_imbalanced", organizations=wrong[:20], count=len(wrong))

    async def _locked(self, tx: Tx, execution_id: str) -> tuple[Account, Reservation] | None:
        """Account and reservation, locked in this order everywhere, so that nobody waits in a circle."""
        found = await store.find_reservation(tx, execution_id)
        if found is None:
            return None
        account = await self.account(tx, found.organization_id)
        reservation = await store.find_reservation(tx, execution_id, lock=True)
        assert reservation is not None
        return account, reservation

    async def _known(self, tx: Tx, execution: Execution) -> tuple[Account, Reservation]:
        """Account and reservation of an execution; one that nobody reserved is counted without a budget."""
        locked = await self._locked(tx, execution.id)
        if locked is not None:
            return locked
        await self.open_account(tx, execution.organization_id)
        account = await self.account(tx, execution.organization_id)
        reservation = await store.add_reservation(
            tx,
            self._settings.reservation_ttl_s,
            execution_id=execution.id,
            organization_id=execution.organization_id,
            spec_id=execution.spec_id,
            project_id=execution.project_id,
            reserved_micro_usd=0,
            overdrawn=rules.refusal(await self._standing(tx, account), 0) is not None,
        )
        await self._take(tx, account, reservation)
        events.reservation_held(tx, reservation)
        return await self.account(tx, execution.organization_id), reservation

    async def _standing(self, tx: Tx, account: Account) -> rules.Standing:
        return standing_of(account, await self._plans.of(tx, account))

    async def _take(self, tx: Tx, account: Account, reservation: Reservation) -> None:
        account = await store.change_account(tx, account, workflows_reserved_by=1)
        await store.post(tx, account, rules.hold(reservation.reserved_micro_usd), "reservation", reservation.id)

    async def _take_again(
        self, tx: Tx, account: Account, reservation: Reservation, state: str, ttl_s: int = 0
    ) -> Reservation:
        overdrawn = rules.refusal(await self._standing(tx, account), reservation.reserved_micro_usd) is not None
        await self._take(tx, account, reservation)
        return await store.renew_reservation(tx, reservation, self._ttl(ttl_s), state=state, overdrawn=overdrawn)

    async def _give_back(self, tx: Tx, account: Account, reservation: Reservation, *, used: bool) -> None:
        count = 1 if used else 0
        account = await store.change_account(
            tx, account, workflows_reserved_by=-1, workflows_used_by=count, workflows_completed_by=count
        )
        within = min(reservation.spent_micro_usd, reservation.reserved_micro_usd)
        account = await store.post(
            tx, account, rules.close(reservation.reserved_micro_usd, within), "settlement", reservation.id
        )
        beyond = reservation.spent_micro_usd - within
        await store.post(tx, account, rules.spend(beyond), "overspending", reservation.id)

    def _ttl(self, wanted_s: int) -> int:
        return min(wanted_s or self._settings.reservation_ttl_s, MAX_TTL_S)


def standing_of(account: Account, plan: rules.Plan) -> rules.Standing:
    """Where an account stands, for the rules."""
    return rules.Standing(
        suspended=account.status == "suspended",
        workflows_limit=plan.workflows_limit,
        workflows_used=account.workflows_used,
        workflows_reserved=account.workflows_reserved,
        available_micro_usd=account.available_micro_usd,
    )
