"""What the edge knows about one operation, and how it guards it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import HTTPConnection

from servicekit import context
from servicekit.errors import UNAUTHENTICATED, AccessRefused
from servicekit.http.body import DEFAULT_LIMIT, admit_body, check_address
from servicekit.ports import AccessEntry, AuthenticatorPart

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
T = TypeVar("T")

STATE = "servicekit.request"


def body_limit(size: int) -> Callable[[Endpoint], Endpoint]:
    """Decorates an endpoint (below the route decorator): its body may have ``size`` bytes instead of 1 MiB."""

    def decorate(endpoint: Endpoint) -> Endpoint:
        endpoint.__body_limit__ = size  # type: ignore[attr-defined]
        return endpoint

    return decorate


def answer_not_kept(endpoint: Endpoint) -> Endpoint:
    """Decorates an endpoint whose answer holds a secret: it is not stored for its Idempotency-Key.

    A replay is then answered 409 ``idempotency.answer_not_kept``.
    """
    endpoint.__answer_not_kept__ = True  # type: ignore[attr-defined]
    return endpoint


@dataclass(slots=True)
class Operation:
    """One served operation. ``id``: ``<router tag>.<endpoint function name>``."""

    id: str
    path: str
    access: AccessEntry
    authenticator: AuthenticatorPart | None
    limit: int = DEFAULT_LIMIT
    keep_answer: bool = True
    database: Any = None
    """Where Idempotency-Keys are kept; None without a database."""

    async def admit(self, connection: HTTPConnection) -> None:
        """Refuses what needs no endpoint to refuse: NUL in the address, a large body, a missing credential.

        Raises 422, 413, 401 or 403. Leaves the principal in the context.
        """
        scope = connection.scope
        scope[STATE].operation = self
        check_address(scope)
        admit_body(scope, self.limit)
        access = self.access
        context.access_entry.set(access)
        if access.public:
            return
        authenticator = self.authenticator
        principal = await authenticator.authenticate(scope) if authenticator is not None else None
        if principal is None:
            raise UNAUTHENTICATED()
        access.admit(principal)
        context.principal.set(principal)
        context.origin_subject.set(principal.subject)

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Awaits ``call()``; on :class:`AccessRefused` refreshes the memberships and awaits it once more.

        Raises ``auth.memberships_unavailable`` (503) in place of a refusal that could not be checked.
        """
        try:
            return await call()
        except AccessRefused:
            principal = context.principal.get()
            if principal is None or self.authenticator is None:
                raise
            fresh = await self.authenticator.refresh(principal)
            if fresh is None:
                raise
            context.principal.set(fresh)
        return await call()
