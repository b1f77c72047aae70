"""What the kit's authenticator reads here: identity's own tables instead of replicas of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from identity_service.auth.api_key_service import ApiKeyService
from identity_service.organizations.service import OrganizationService
from identity_service.tokens import store as tokens_store
from servicekit.auth import Membership
from servicekit.auth.api_keys import VerifiedApiKey
from servicekit.auth.revocations import Revocation


class OwnMemberships:
    """`servicekit.auth.memberships.MembershipSource` over the memberships themselves."""

    def __init__(self, organizations: OrganizationService) -> None:
        self._organizations = organizations

    async def memberships_of(self, user_id: str) -> Sequence[Membership]:
        """The user's active memberships."""
        return [
            Membership(fact.organization_id, fact.role, fact.permissions, fact.version)
            for fact in await self._organizations.memberships_of([user_id])
            if fact.active
        ]


class OwnRevocations:
    """`servicekit.auth.revocations.RevocationSource` over the revocations themselves."""

    async def revocations_since(self, connection: asyncpg.Connection[Any], moment: datetime) -> Sequence[Revocation]:
        """The rows with `updated_at >= moment`."""
        return [
            Revocation(row["principal_type"], row["principal_id"], row["not_before"], row["updated_at"])
            for row in await tokens_store.revocations_since(connection, moment)
        ]


class OwnApiKeys:
    """API keys, asked without an RPC."""

    def __init__(self, api_keys: ApiKeyService) -> None:
        self._api_keys = api_keys

    async def verify(self, key: str) -> VerifiedApiKey | None:
        """Whose key it is, None when there is no such key."""
        found = await self._api_keys.verify_api_key(key)
        if found is None:
            return None
        return VerifiedApiKey(
            key_id=found.id,
            user_id=found.user_id,
            scopes=frozenset(found.scopes or ["*:*"]),
            organization_id=found.organization_id,
            expires_at=found.expires_at.timestamp() if found.expires_at is not None else None,
        )
