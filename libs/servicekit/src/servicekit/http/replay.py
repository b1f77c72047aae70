"""Idempotency-Key at the edge: look the key up, run once, answer a replay from what was stored."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from servicekit import context
from servicekit.context import IdempotencyClaim
from servicekit.db import idempotency
from servicekit.errors import ErrorSpec, Kind

ANSWER_NOT_KEPT = ErrorSpec(
    "idempotency.answer_not_kept",
    Kind.CONFLICT,
    "This was already carried out; its answer holds a secret and is not kept.",
)
REPLAYED = "Idempotent-Replayed"


def digest(method: str, path: str, query: bytes, body: bytes) -> bytes:
    """SHA-256 over method, path, query and body: tells whether a key is used again for the same request."""
    sha = hashlib.sha256()
    for part in (method.encode(), path.encode(), query, body):
        sha.update(len(part).to_bytes(8, "big"))
        sha.update(part)
    return sha.digest()


async def once(database: Any, claim: IdempotencyClaim, call: Callable[[], Awaitable[Response]]) -> Response:
    """Awaits ``call()`` at most once for this claim.

    A key that is known is answered from the store; raises 422 ``idempotency.key_reused``, 409
    ``idempotency.in_flight`` or 409 ``idempotency.answer_not_kept``. An error leaves no claim behind, so that the
    client may try again with the same key.
    """
    stored = await idempotency.lookup(database, claim)
    if stored is not None:
        return _replayed(stored.status, stored.body)
    token = context.idempotency_claim.set(claim)
    try:
        response = await call()
    except BaseException:
        if claim.locked and not claim.stored:
            context.idempotency_claim.set(None)
            await idempotency.release(database, claim)
        raise
    finally:
        context.idempotency_claim.reset(token)
    if claim.locked and not claim.stored:
        if response.status_code < 400:
            body = bytes(getattr(response, "body", b"")) if claim.keep_answer else b""
            await idempotency.complete(database, claim, response.status_code, body)
        else:
            await idempotency.release(database, claim)
    return response


def _replayed(status: int, body: bytes) -> Response:
    if not body and status != 204:
        raise ANSWER_NOT_KEPT()
    return Response(body, status_code=status, media_type="application/json", headers={REPLAYED: "true"})
