"""The trail of security-relevant actions: recorded in the transaction of the action, chained within a second."""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from identity_service.audit import rules, store
from identity_service.audit.schemas import AuditEntryOut, AuditPage
from identity_service.audit.tables import AuditEntry, AuditHead
from identity_service.envelope import service as resealing
from identity_service.envelope.rules import Envelope, SealBroken
from identity_service.errors import ORGANIZATION_NOT_FOUND, USER_NOT_FOUND
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.http.paging import KeysetParams, next_token
from servicekit.ids import new_id
from servicekit.logging import get_logger

_log = get_logger(__name__)

_PURPOSE = "audit-chain"
_SEALED_AT_ONCE = 1000
# A transaction lasts seconds, a sealing round one; what is open after five minutes was kept from the sealer.
_UNSEALED_FOR = timedelta(minutes=5)


async def record(
    tx: Tx,
    action: str,
    *,
    actor_id: str | None,
    actor_type: str = "user",
    subject_id: str | None = None,
    organization_id: str | None = None,
    address: str | None = None,
    **details: Any,
) -> None:
    """Adds an entry to the trail in the caller's transaction; takes no lock.

    `action`: lower case, `thing.happened`. `actor_id`: who did it. `subject_id`: the account that it happened to, by
    default the actor; its user reads the entry. `organization_id`: whose admins read it. `details` must be JSON and
    hold no secret and no mail address.
    """
    await store.add(
        tx,
        id=new_id(),
        action=action,
        actor_type=actor_type,
        actor_id=actor_id,
        subject_id=subject_id or actor_id,
        organization_id=organization_id,
        address=address,
        details=details,
    )


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list of entries is narrowed to; times are half open: `since` ≤ created_at < `until`."""

    action: str | None = None
    actor_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found in one chain: entries seen, and the first break if there is one."""

    chain: str
    entries: int
    broken: rules.Break | None


class AuditService:
    """Reading, sealing and verifying the trail."""

    def __init__(self, db: Database, envelope: Envelope) -> None:
        self._db = db
        self._envelope = envelope

    async def list_of_organization(
        self, principal: Principal, organization_id: str, filters: Filters, page: KeysetParams
    ) -> AuditPage:
        """The organization's entries, newest first."""
        principal.require("org:audit:read", organization_id, ORGANIZATION_NOT_FOUND)
        answer = await self._list(filters, page, organization_id=organization_id)
        # Every organization has the entry of its making; a super admin's guess must look absent like anybody's.
        unfiltered = page.after is None and filters == Filters()
        if unfiltered and not answer.items and organization_id not in principal.memberships:
            raise ORGANIZATION_NOT_FOUND()
        return answer

    async def list_of_account(self, user_id: str, filters: Filters, page: KeysetParams) -> AuditPage:
        """The entries that concern the caller's own account, newest first."""
        return await self._list(filters, page, subject_id=user_id)

    async def list_of_any_account(self, user_id: str, filters: Filters, page: KeysetParams) -> AuditPage:
        """The entries that concern an account, newest first; who may ask is the access table's."""
        answer = await self._list(filters, page, subject_id=user_id)
        # Every account has the entry of its registration, which outlives it.
        if page.after is None and filters == Filters() and not answer.items:
            raise USER_NOT_FOUND()
        return answer

    async def seal_due(self) -> int:
        """Chains the entries committed since the last round; returns how many. Two at once wait for each other."""
        total = 0
        while True:
            sealed = await self._seal_some()
            total += sealed
            if sealed < _SEALED_AT_ONCE:
                return total

    async def verify(self) -> list[Verification]:
        """Walks every chain from its start. Nothing is broken when no result has `broken`."""
        results: list[Verification] = []
        after: str | None = None
        while True:
            async with self._db.reader() as tx:
                chains = await store.page_chains(tx, after, 500)
            if not chains:
                break
            results += [await self._verify_chain(chain) for chain in chains]
            after = chains[-1]
        async with self._db.reader() as tx:
            stuck = await store.oldest_unsealed(tx, _UNSEALED_FOR)
        if stuck is not None:
            broken = rules.Break(0, stuck.id, f"the entry of {stuck.created_at:%Y-%m-%d %H:%M:%S} was never sealed")
            results.append(Verification(stuck.organization_id or "", 0, broken))
        return results

    async def _seal_some(self) -> int:
        async with self._db.uow() as tx:
            await store.lock_sealing(tx)
            by_chain: dict[str, list[rules.Entry]] = defaultdict(list)
            for row in await store.list_unsealed(tx, _SEALED_AT_ONCE):
                by_chain[row.organization_id or ""].append(_entry(row))
            heads = await store.heads_of(tx, sorted(by_chain))
            for chain, entries in by_chain.items():
                known = heads.get(chain)
                if known is None:
                    key, start = secrets.token_bytes(32), rules.Head()
                    sealed_key = self._envelope.seal(key, _PURPOSE)
                else:
                    sealed_key, start = known.sealed_key, rules.Head(known.position, known.digest)
                    try:
                        key = self._envelope.open(sealed_key, _PURPOSE)
                    except SealBroken:
                        # The other chains go on; this one's entries stay open and `verify` names it.
                        _log.error("audit_chain_key_broken", chain=chain)
                        continue
                sealed = rules.seal(key, start, entries)
                await store.set_positions(tx, [entry.id for entry in entries], sealed)
                await store.set_head(tx, chain, sealed[-1], sealed_key)
        return sum(len(entries) for entries in by_chain.values())

    async def _verify_chain(self, chain: str) -> Verification:
        async with self._db.reader() as tx:
            known = (await store.heads_of(tx, [chain])).get(chain)
        if known is None:
            return Verification(chain, 0, rules.Break(1, None, "the chain's head is missing"))
        try:
            key = self._envelope.open(known.sealed_key, _PURPOSE)
        except SealBroken:
            return Verification(chain, 0, rules.Break(1, None, "the chain's key was changed"))
        recorded, reached = rules.Head(known.position, known.digest), rules.Head()
        while reached.position < recorded.position:
            async with self._db.reader() as tx:
                rows = await store.page_chain(tx, chain, reached.position, _SEALED_AT_ONCE)
            # What was sealed after the head was read belongs to the next verification.
            rows = [row for row in rows if (row.position or 0) <= recorded.position]
            if not rows:
                break
            step = rules.follow(key, reached, map(_entry, rows))
            if isinstance(step, rules.Break):
                return Verification(chain, reached.position, step)
            reached = step
        return Verification(chain, reached.position, rules.compare(reached, recorded))

    async def _list(self, filters: Filters, page: KeysetParams, **scope: str) -> AuditPage:
        after = page.expect(str)
        async with self._db.reader() as tx:
            rows = await store.list_entries(
                tx,
                limit=page.fetch,
                before=after[0] if after is not None else None,
                action=filters.action,
                actor_id=filters.actor_id,
                since=filters.since,
                until=filters.until,
                **scope,
            )
        items, token = next_token(list(rows), page, lambda row: (row.id,))
        return AuditPage(items=[AuditEntryOut.of(row) for row in items], next_page_token=token)


def _entry(row: AuditEntry) -> rules.Entry:
    return rules.Entry(
        id=row.id,
        action=row.action,
        actor_type=row.actor_type,
        actor_id=row.actor_id,
        subject_id=row.subject_id,
        organization_id=row.organization_id,
        address=row.address,
        details=row.details,
        created_at=row.created_at,
        position=row.position,
        digest=row.digest,
    )


async def reseal(db: Database, envelope: Envelope) -> int:
    """Seals under the present envelope key what an earlier one sealed; returns how many values."""
    return await resealing.reseal(db, envelope, AuditHead.sealed_key, lambda _: _PURPOSE)
