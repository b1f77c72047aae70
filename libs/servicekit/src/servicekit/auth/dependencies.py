"""The FastAPI dependencies: who asks, and the role in the addressed organization.

A request is authenticated once; its principal stands in `servicekit.context`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from servicekit import context
from servicekit.auth.errors import ORGANIZATION_NOT_FOUND, unauthenticated
from servicekit.auth.principal import Principal
from servicekit.errors import FORBIDDEN

if TYPE_CHECKING:
    from servicekit.auth.authenticator import Authenticator


async def principal_of(request: HTTPConnection) -> Principal | None:
    """The principal of a request, None without a credential.

    The HTTP edge has usually authenticated already and left the principal in the context; otherwise it is done here by
    `app.state.authenticator`. Raises `auth.unauthenticated` (401) for a bad credential, `auth.cross_origin` (403).
    """
    principal = context.principal.get()
    if principal is None:
        authenticator = cast("Authenticator", request.app.state.authenticator)
        principal = await authenticator.authenticate(request.scope)
        context.principal.set(principal)
    return principal


def set_principal(_connection: HTTPConnection, principal: Principal | None) -> None:
    """Makes `principal` the one of the running request, after authentication or a refresh of its memberships."""
    context.principal.set(principal)


async def get_current_user(request: Request) -> Principal:
    """The caller. Raises `auth.unauthenticated` (401) when there is no valid credential."""
    principal = await principal_of(request)
    if principal is None:
        raise unauthenticated()
    return principal


async def get_current_user_optional(request: Request) -> Principal | None:
    """The caller, or None when no credential was sent. A bad credential is still refused with 401."""
    return await principal_of(request)


CurrentUser = Annotated[Principal, Depends(get_current_user)]
OptionalUser = Annotated[Principal | None, Depends(get_current_user_optional)]


def require_role(role: str) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency that admits who has at least `role` in the addressed organization.

    The organization is `org_id` or `organization_id` of the path, else of the query. Where there is none, only a
    platform super admin passes. Not a member there: 404; a lesser role: 403.
    """

    async def role_required(request: Request) -> Principal:
        principal = await get_current_user(request)
        organization_id = _addressed_organization(request)
        if organization_id is not None:
            principal.require_role(role, organization_id, ORGANIZATION_NOT_FOUND)
        elif not principal.is_super_admin:
            raise FORBIDDEN()
        return principal

    return role_required


def _addressed_organization(request: Request) -> str | None:
    for values in (request.path_params, request.query_params):
        for name in ("org_id", "organization_id"):
            value = values.get(name)
            if value:
                return str(value)
    return None
