"""`/api/v1/credentials`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from identity_service import errors
from identity_service.credentials.schemas import (
    ChangeCredential,
    CredentialOut,
    DeletedOut,
    Name,
    Provider,
    SaveCredential,
    ValidationOut,
)
from identity_service.credentials.service import CredentialService
from servicekit.auth import CurrentUser
from servicekit.http import RateLimit, client_address, problems

Which = Annotated[Name, Query()]


def router(credentials: CredentialService) -> APIRouter:
    """The own keys for other services."""
    routes = APIRouter(prefix="/api/v1/credentials", tags=["credentials"])
    missing = problems(errors.CREDENTIAL_NOT_FOUND)
    saving = [Depends(RateLimit("credentials.save", per_minute=10))]

    @routes.get("")
    async def list_credentials(user: CurrentUser) -> list[CredentialOut]:
        """The own keys; none is ever shown."""
        return await credentials.list_own(user)

    @routes.post("/{provider}", status_code=201, responses=problems(errors.TOO_MANY_CREDENTIALS), dependencies=saving)
    async def save_credential(
        provider: Provider, body: SaveCredential, user: CurrentUser, request: Request
    ) -> CredentialOut:
        """Keep a key, in place of one of the same name."""
        return await credentials.save(user, provider, body, client_address(request))

    @routes.patch("/{provider}", responses=missing, dependencies=saving)
    async def change_credential(
        provider: Provider, body: ChangeCredential, user: CurrentUser, request: Request, name: Which = "default"
    ) -> CredentialOut:
        """Change a key or what is noted about it."""
        return await credentials.change(user, provider, name, body, client_address(request))

    @routes.delete("/{provider}", responses=missing)
    async def delete_credential(
        provider: Provider, user: CurrentUser, request: Request, name: Which = "default"
    ) -> DeletedOut:
        """Forget a key."""
        await credentials.delete(user, provider, name, client_address(request))
        return DeletedOut(message="The key was deleted.")

    @routes.post(
        "/{provider}/validate",
        responses=missing | problems(errors.PROVIDER_UNREACHABLE),
        dependencies=[Depends(RateLimit("credentials.validate", per_minute=5, fail_closed=True))],
    )
    async def validate_credential(provider: Provider, user: CurrentUser, name: Which = "default") -> ValidationOut:
        """Ask the provider whether it takes a kept key."""
        return await credentials.validate(user, provider, name)

    return routes
