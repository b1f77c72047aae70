"""Calls to identity."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from omoios.identity.v1 import identity_pb2, identity_pb2_grpc
from servicekit.rpc import RpcChannels

TIMEOUT_S = 2.0


class IdentityClient:
    """Organizations by id."""

    def __init__(self, channels: RpcChannels) -> None:
        self._channels = channels

    @cached_property
    def _stub(self) -> Any:
        return identity_pb2_grpc.IdentityServiceStub(self._channels.channel("identity"))

    async def find_organization(self, organization_id: str) -> identity_pb2.Organization | None:
        """The organization, None when there is none or it is archived."""
        request = identity_pb2.BatchGetOrganizationsRequest(ids=[organization_id])
        answer = await self._stub.BatchGetOrganizations(request, timeout=TIMEOUT_S)
        return next((item for item in answer.organizations if item.is_active), None)
