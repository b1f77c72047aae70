from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio
import pytest

from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1.identity_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from servicekit.auth import WITHOUT_TOKEN, AccessTable
from servicekit.auth.testing import Signing
from servicekit.rpc import FixedToken, RpcChannels, RpcServer, RpcServicer
from servicekit.settings import ServiceSettings

FULL_NAME = "omoios.identity.v1.IdentityService"
METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["IdentityService"].methods]
ACCESS = AccessTable(
    rpcs={name: frozenset({"workflow", "agents"}) for name in METHODS}
    | {"IssueServiceToken": WITHOUT_TOKEN, "RevokePrincipal": frozenset({"agents"})}
)

Behaviour = Callable[[Any], Awaitable[Any]]


class Identity(IdentityServiceServicer):
    """A servicer whose methods do what the test put into `behaviour`; counts the calls."""

    def __init__(self) -> None:
        self.behaviour: dict[str, Behaviour] = {}
        self.calls: list[str] = []

    async def answer(self, name: str, request: Any) -> Any:
        self.calls.append(name)
        return await self.behaviour[name](request)

    async def BatchGetUsers(self, request: pb.BatchGetUsersRequest, context: object) -> pb.BatchGetUsersResponse:
        return await self.answer("BatchGetUsers", request)

    async def BatchGetMemberships(
        self, request: pb.BatchGetMembershipsRequest, context: object
    ) -> pb.BatchGetMembershipsResponse:
        return await self.answer("BatchGetMemberships", request)

    async def RevokePrincipal(self, request: pb.RevokePrincipalRequest, context: object) -> pb.RevokePrincipalResponse:
        return await self.answer("RevokePrincipal", request)

    async def IssueServiceToken(
        self, request: pb.IssueServiceTokenRequest, context: object
    ) -> pb.IssueServiceTokenResponse:
        return await self.answer("IssueServiceToken", request)


def settings(**values: Any) -> ServiceSettings:
    return ServiceSettings(**({"env": "test", "shutdown_grace_s": 2.0} | values))


class House:
    """Servers and channels of one test; closes what it opened."""

    def __init__(self) -> None:
        self.signing = Signing()
        self.verifier = self.signing.verifier()
        self._parts: list[Any] = []

    async def authenticate(self, token: str) -> str:
        verified = await self.verifier.verify(token)
        return verified.subject

    async def serve(
        self, servicer: Identity, *, port: int = 0, access: AccessTable = ACCESS, **values: Any
    ) -> RpcServer:
        served = [RpcServicer(add_IdentityServiceServicer_to_server, servicer, FULL_NAME)]
        server = RpcServer(settings(rpc_port=port, **values), served, access, self.authenticate)
        await server.start()
        self._parts.append(server)
        return server

    def channels(self, port: int, *, caller: str | None = "workflow", **kw: Any) -> RpcChannels:
        if caller is not None:
            kw["tokens"] = FixedToken(self.signing.service(caller))
        channels = RpcChannels(settings(rpc_targets={"identity": f"127.0.0.1:{port}"}), **kw)
        self._parts.append(channels)
        return channels

    async def close(self) -> None:
        for part in reversed(self._parts):
            await part.close()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    opened = House()
    yield opened
    await opened.close()
    await asyncio.sleep(0)


@pytest.fixture
async def bare_channel() -> AsyncIterator[Callable[[int], grpc.aio.Channel]]:
    """Channels without the kit, as a stranger would open them."""
    opened: list[grpc.aio.Channel] = []

    def connect(port: int) -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        opened.append(channel)
        return channel

    yield connect
    for channel in opened:
        await channel.close()


@pytest.fixture
def identity() -> Identity:
    return Identity()
