"""The API keys that members made for an organization, in the hands of its administrators."""

from __future__ import annotations

from identity_service.auth.api_key_service import ApiKeyService
from identity_service.organizations import store
from identity_service.organizations.key_schemas import MemberApiKeyOut, MemberApiKeyPage
from identity_service.organizations.standing_service import enter, note, readable
from servicekit.auth import Principal
from servicekit.db import Database
from servicekit.http.paging import KeysetParams, next_token


class KeyService:
    """Use cases of `/organizations/{id}/api-keys`."""

    def __init__(self, db: Database, keys: ApiKeyService) -> None:
        self._db = db
        self._keys = keys

    async def page(self, principal: Principal, organization_id: str, page: KeysetParams) -> MemberApiKeyPage:
        """The keys of all members that are bound to the organization, newest first, ended ones included."""
        before = page.expect(str)
        async with self._db.reader() as tx:
            await readable(tx, principal, "org:members:read", organization_id)
            rows = await self._keys.page_of_organization(
                tx, organization_id, before[0] if before is not None else None, page.fetch
            )
        items, token = next_token(list(rows), page, lambda row: (row.id,))
        return MemberApiKeyPage(items=[MemberApiKeyOut.of(row) for row in items], next_page_token=token)

    async def end(self, principal: Principal, organization_id: str, key_id: str) -> None:
        """Ends a member's key in every service.

        Raises `identity.api_key_not_found` (404), and `identity.role_exceeds_own` (403) for the key of somebody who may
        more than the caller.
        """
        async with self._db.uow() as tx:
            standing = await enter(tx, principal, "org:members:write", organization_id)
            key = await self._keys.find_of_organization(tx, organization_id, key_id)
            owner = await store.find_member_by_user(tx, organization_id, key.user_id)
            if owner is not None and key.user_id != principal.user_id:
                standing.require_role_held(owner.role_id)
            if not key.is_active:
                return
            await self._keys.end(tx, key, "ended by an administrator")
            await note(tx, "api_key.ended", principal, organization_id, key_id=key_id, user_id=key.user_id)
