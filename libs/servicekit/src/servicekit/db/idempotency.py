"""The store behind `Idempotency-Key`: the claim of a key commits together with the write it protects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servicekit.errors import IDEMPOTENCY_IN_FLIGHT, IDEMPOTENCY_KEY_REUSED

if TYPE_CHECKING:
    from servicekit.context import IdempotencyClaim
    from servicekit.db.engine import Database

KEEP_HOURS = 24
# A claim whose request committed a part and then died may be taken over after this time; a running request is
# protected by the deadlines of the gateway and of its statements, which are shorter.
TAKEOVER_S = 60

# The advisory lock answers "in flight" at once where the primary key would make the second request wait for the first.
_CLAIM = f"""
INSERT INTO idempotency_keys AS k (scope, key, digest)
SELECT $1::text, $2::text, $3::bytea
WHERE pg_try_advisory_xact_lock(hashtextextended($1::text || chr(31) || $2::text, 0))
ON CONFLICT (scope, key) DO UPDATE
SET digest = excluded.digest, claimed_at = now(), status = NULL, body = NULL
WHERE (k.status IS NULL AND k.claimed_at < now() - interval '{TAKEOVER_S} seconds')
   OR k.claimed_at < now() - interval '{KEEP_HOURS} hours'
RETURNING true
"""

_LOOKUP = f"""
SELECT digest, status, body, status IS NULL AND claimed_at < now() - interval '{TAKEOVER_S} seconds' AS abandoned
FROM idempotency_keys
WHERE scope = $1 AND key = $2 AND claimed_at >= now() - interval '{KEEP_HOURS} hours'
"""

_STORE = "UPDATE idempotency_keys SET status = $3, body = $4 WHERE scope = $1 AND key = $2"

_COMPLETE = """
UPDATE idempotency_keys SET status = $4, body = $5 WHERE scope = $1 AND key = $2 AND digest = $3 AND status IS NULL
"""

_RELEASE = "DELETE FROM idempotency_keys WHERE scope = $1 AND key = $2 AND digest = $3 AND status IS NULL"


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The answer of the first request with this key."""

    status: int
    body: bytes


async def claim_in(connection: Any, claim: IdempotencyClaim) -> None:
    """Claim the key inside the transaction of `connection` (raw asyncpg).

    Raises `idempotency.key_reused` (422) when it was used with another body and `idempotency.in_flight` (409) while
    another request holds it, or finished with it since `lookup`.
    """
    if await connection.fetchval(_CLAIM, claim.scope, claim.key, claim.digest):
        return
    row = await connection.fetchrow(_LOOKUP, claim.scope, claim.key)
    if row is not None and row["digest"] != claim.digest:
        raise IDEMPOTENCY_KEY_REUSED()
    raise IDEMPOTENCY_IN_FLIGHT()


async def store_in(connection: Any, claim: IdempotencyClaim, body: bytes) -> None:
    """Store the answer of a claimed key inside the transaction of `connection`."""
    await connection.execute(_STORE, claim.scope, claim.key, claim.status_code, body)


async def lookup(database: Database, claim: IdempotencyClaim) -> StoredAnswer | None:
    """Return the stored answer of a key, None when the request is to run.

    Raises as `claim_in` does. Call it before the endpoint, so that a replay repeats nothing at all.
    """
    async with database.reader() as tx:
        row = await (await tx.connection()).fetchrow(_LOOKUP, claim.scope, claim.key)
    if row is None or row["abandoned"]:
        return None
    if row["digest"] != claim.digest:
        raise IDEMPOTENCY_KEY_REUSED()
    if row["status"] is None:
        raise IDEMPOTENCY_IN_FLIGHT()
    return StoredAnswer(row["status"], row["body"])


async def complete(database: Database, claim: IdempotencyClaim, status: int, body: bytes) -> None:
    """Store the answer of a request that committed its claim without calling `tx.result`."""
    async with database.reader() as tx:
        await (await tx.connection()).execute(_COMPLETE, claim.scope, claim.key, claim.digest, status, body)


async def release(database: Database, claim: IdempotencyClaim) -> None:
    """Give up a committed claim whose request then failed, so that the client may try again at once."""
    async with database.reader() as tx:
        await (await tx.connection()).execute(_RELEASE, claim.scope, claim.key, claim.digest)
