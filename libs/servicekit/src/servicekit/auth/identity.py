"""What the kit asks of identity by RPC; the only import of a service's contract in the kit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import grpc.aio

from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1.identity_pb2_grpc import IdentityServiceStub
from servicekit.auth.api_keys import VerifiedApiKey
from servicekit.auth.principal import Membership
from servicekit.auth.replica import PAGE_SIZE, MembershipRow, RevocationRow, membership_row, revocation_row
from servicekit.errors import AppError, Kind

if TYPE_CHECKING:
    from omoios.identity.v1.identity_pb2_grpc import IdentityServiceAsyncStub

SNAPSHOT_TIMEOUT_S = 10.0
REFRESH_TIMEOUT_S = 2.0
"""Also covers the way back to an identity that restarts: the channel connects again within a second."""


class IdentityClient:
    """Typed calls to identity over a channel of `RpcChannels`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: IdentityServiceAsyncStub = IdentityServiceStub(channel)

    async def issue_service_token(self, service: str, secret: str) -> tuple[str, float]:
        """A service token and when it expires (Unix seconds). Raises UNAUTHENTICATED for a wrong secret."""
        request = pb.IssueServiceTokenRequest(service=service, secret=secret)
        answer = await self._stub.IssueServiceToken(request, wait_for_ready=True)
        return answer.token, answer.expires_at.seconds + answer.expires_at.nanos / 1e9

    async def memberships_of(self, user_id: str) -> Sequence[Membership]:
        """The user's active memberships as of now."""
        request = pb.BatchGetMembershipsRequest(user_ids=[user_id])
        answer = await self._stub.BatchGetMemberships(request, timeout=REFRESH_TIMEOUT_S, wait_for_ready=True)
        return [
            Membership(item.organization_id, item.role, frozenset(item.permissions), item.version)
            for item in answer.memberships
            if item.active and item.user_id == user_id
        ]

    async def verify_api_key(self, key: str) -> VerifiedApiKey | None:
        """Whose key it is, None when there is no such key."""
        try:
            answer = await self._stub.VerifyApiKey(pb.VerifyApiKeyRequest(key=key))
        except AppError as error:
            if error.kind in (Kind.NOT_FOUND, Kind.GONE):
                return None
            raise
        return VerifiedApiKey(
            key_id=answer.key_id,
            user_id=answer.user_id,
            scopes=frozenset(answer.scopes),
            organization_id=answer.organization_id or None,
            expires_at=float(answer.expires_at.seconds) if answer.HasField("expires_at") else None,
        )

    async def membership_snapshot(self) -> AsyncIterator[Sequence[MembershipRow]]:
        """Every membership, page by page."""
        token = ""
        while True:
            request = pb.ListMembershipSnapshotRequest(page_size=PAGE_SIZE, page_token=token)
            answer = await self._stub.ListMembershipSnapshot(request, timeout=SNAPSHOT_TIMEOUT_S)
            yield [membership_row(item) for item in answer.memberships]
            token = answer.next_page_token
            if not token:
                return

    async def revocation_snapshot(self) -> AsyncIterator[Sequence[RevocationRow]]:
        """Every revocation that may still concern a living token, page by page."""
        token = ""
        while True:
            request = pb.ListRevocationSnapshotRequest(page_size=PAGE_SIZE, page_token=token)
            answer = await self._stub.ListRevocationSnapshot(request, timeout=SNAPSHOT_TIMEOUT_S)
            yield [revocation_row(item) for item in answer.revocations]
            token = answer.next_page_token
            if not token:
                return
