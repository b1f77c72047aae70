"""Idempotency-Key: the answer of a write, stored in the transaction of that write.

The unit of work calls :func:`lock` right after BEGIN and :func:`store` before COMMIT, so that the claim of a key and
the effect it protects leave together or not at all; nothing stays claimed after a crash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from servicekit import context
from servicekit.context import IdempotencyClaim
from servicekit.errors import IDEMPOTENCY_IN_FLIGHT, IDEMPOTENCY_KEY_REUSED, ErrorSpec, Kind
from servicekit.ports import DatabasePart

KEPT_HOURS = 24
ANSWER_NOT_KEPT = ErrorSpec(
    "idempotency.answer_not_kept",
    Kind.CONFLICT,
    "This was already carried out; its answer holds a secret and is not kept.",
)

_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))"
_FRESH = f"claimed_at > now() - interval '{KEPT_HOURS} hours'"
_FIND = f"SELECT digest, status, body FROM idempotency_keys WHERE scope = $1 AND key = $2 AND {_FRESH}"
_STORE = f"""
INSERT INTO idempotency_keys AS k (scope, key, digest, status, body) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (scope, key) DO UPDATE SET digest = excluded.digest, status = excluded.status, body = excluded.body,
    claimed_at = now() WHERE NOT (k.{_FRESH})
RETURNING 1
"""


class AnsweredMeanwhile(Exception):
    """The same key was answered by another request between the lookup and the lock; look again."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What the first request with this key answered."""

    status_code: int
    body: bytes


def digest(method: str, path: str, query: bytes, body: bytes) -> bytes:
    """SHA-256 over method, path, query and body: tells whether a key is used again for the same request."""
    sha = hashlib.sha256()
    for part in (method.encode(), path.encode(), query, body):
        sha.update(len(part).to_bytes(8, "big"))
        sha.update(part)
    return sha.digest()


async def lock(connection: Any) -> None:
    """Takes the key of the running request for this transaction; does nothing without a key.

    ``connection``: raw asyncpg connection, just after BEGIN. Raises 409 ``idempotency.in_flight`` while another
    transaction holds the key, AnsweredMeanwhile when one has just finished with it.
    """
    claim = context.idempotency_claim.get()
    if claim is None or claim.stored:
        return
    if not await connection.fetchval(_LOCK, f"{claim.scope}\n{claim.key}"):
        raise IDEMPOTENCY_IN_FLIGHT()
    # A statement of its own: only a snapshot taken after the lock shows what its last holder committed.
    if await connection.fetchrow(_FIND, claim.scope, claim.key) is not None:
        raise AnsweredMeanwhile


async def store(connection: Any, value: Any) -> None:
    """Writes the answer ``value`` of the running request; does nothing without a key.

    Raises 409 ``idempotency.in_flight`` when another transaction was first.
    """
    claim = context.idempotency_claim.get()
    if claim is None or claim.stored:
        return
    await _insert(connection, claim, claim.encode(value))


async def store_body(connection: Any, claim: IdempotencyClaim, body: bytes | None, status_code: int) -> None:
    """Writes an answer already made, for an endpoint that named no result inside its transaction."""
    claim.status_code = status_code
    await _insert(connection, claim, body)


async def _insert(connection: Any, claim: IdempotencyClaim, body: bytes | None) -> None:
    row = await connection.fetchval(
        _STORE, claim.scope, claim.key, claim.digest, claim.status_code, body if claim.keep_answer else None
    )
    if row is None:
        raise IDEMPOTENCY_IN_FLIGHT()
    claim.stored = True


async def find(db: DatabasePart, claim: IdempotencyClaim) -> StoredAnswer | None:
    """The stored answer for this claim, None when its key is new.

    Raises 422 ``idempotency.key_reused`` when the key belongs to another request, 409 when its answer is not kept.
    """
    async with db.reader() as tx:
        connection = await tx.connection()
        row = await connection.fetchrow(_FIND, claim.scope, claim.key)
    if row is None:
        return None
    if row["digest"] != claim.digest:
        raise IDEMPOTENCY_KEY_REUSED()
    if row["body"] is None:
        raise ANSWER_NOT_KEPT()
    return StoredAnswer(row["status"], row["body"])
