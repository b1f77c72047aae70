"""Absent and restarting peers, retries, and the service token's life."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1.identity_pb2_grpc import IdentityServiceStub
from omoios_local.embedded.process import free_port
from servicekit.auth.identity import IdentityClient
from servicekit.errors import AppError, ErrorSpec, Kind
from servicekit.rpc import RpcChannels, ServiceTokenSource, service_token
from servicekit.rpc.channels import address
from servicekit.rpc.service_config import is_idempotent, service_config
from servicekit.settings import ServiceSettings

DOWN = ErrorSpec("identity.down", Kind.UNAVAILABLE, "Not now.", 1.0)
PREFIX = "/omoios.identity.v1.IdentityService/"


def test_the_service_config_retries_only_what_declares_no_side_effects() -> None:
    assert is_idempotent(PREFIX + "BatchGetUsers")
    assert not is_idempotent(PREFIX + "RevokePrincipal")
    assert not is_idempotent("/unknown.Service/Method")
    config = json.loads(service_config([PREFIX + "RevokePrincipal", PREFIX + "BatchGetUsers"]))
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    (entry,) = config["methodConfig"]
    assert entry["name"] == [{"service": "omoios.identity.v1.IdentityService", "method": "BatchGetUsers"}]
    assert entry["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert "retryPolicy" not in config
    assert "methodConfig" not in json.loads(service_config([PREFIX + "RevokePrincipal"]))


def test_targets_are_resolved_by_dns() -> None:
    assert address("identity:18201") == "dns:///identity:18201"
    assert address("unix:///tmp/x.sock") == "unix:///tmp/x.sock"


async def test_an_idempotent_method_is_tried_three_times(house: Any, identity: Any) -> None:
    async def twice_down(_request: Any) -> Any:
        if len(identity.calls) < 3:
            raise DOWN()
        return pb.BatchGetUsersResponse(users=[pb.User(id="third")])

    identity.behaviour["BatchGetUsers"] = twice_down
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port).channel("identity"))
    answered = await stub.BatchGetUsers(pb.BatchGetUsersRequest())
    assert answered.users[0].id == "third"
    assert len(identity.calls) == 3


async def test_a_method_with_effects_is_tried_once(house: Any, identity: Any) -> None:
    async def down(_request: Any) -> Any:
        raise DOWN()

    identity.behaviour["RevokePrincipal"] = down
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port, caller="agents").channel("identity"))
    with pytest.raises(AppError) as raised:
        await stub.RevokePrincipal(pb.RevokePrincipalRequest())
    assert raised.value.code == "identity.down"
    assert identity.calls == ["RevokePrincipal"]


async def test_other_errors_are_not_retried(house: Any, identity: Any) -> None:
    async def conflict(_request: Any) -> Any:
        raise ErrorSpec("identity.conflict", Kind.CONFLICT, "Changed.")()

    identity.behaviour["BatchGetUsers"] = conflict
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port).channel("identity"))
    with pytest.raises(AppError):
        await stub.BatchGetUsers(pb.BatchGetUsersRequest())
    assert len(identity.calls) == 1


async def test_an_absent_peer_is_unavailable_at_once(house: Any) -> None:
    stub = IdentityServiceStub(house.channels(free_port(), caller="agents").channel("identity"))
    started = time.monotonic()
    with pytest.raises(AppError) as raised:
        await stub.RevokePrincipal(pb.RevokePrincipalRequest(), timeout=60)
    assert (raised.value.kind, raised.value.retry_after_s) == (Kind.UNAVAILABLE, 1.0)
    assert (raised.value.code, raised.value.meta) == ("rpc.peer_unavailable", {"peer": "identity"})
    assert time.monotonic() - started < 30


async def test_a_peer_that_restarts_is_found_again(house: Any, identity: Any) -> None:
    async def answer(_request: Any) -> Any:
        return pb.BatchGetUsersResponse()

    identity.behaviour["BatchGetUsers"] = answer
    server = await house.serve(identity)
    port = server.port
    stub = IdentityServiceStub(house.channels(port).channel("identity"))
    await stub.BatchGetUsers(pb.BatchGetUsersRequest())
    await server.close()
    with pytest.raises(AppError) as raised:
        await stub.BatchGetUsers(pb.BatchGetUsersRequest())
    assert raised.value.kind is Kind.UNAVAILABLE
    await house.serve(identity, port=port)
    # The longest pause between two attempts to connect is 1 s; four times that is the ceiling.
    for _ in range(80):
        if await refusal(stub) is None:
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("the peer was not found again within 4 s")


async def refusal(stub: Any) -> Kind | None:
    """How a call is refused, None when it is answered."""
    try:
        await stub.BatchGetUsers(pb.BatchGetUsersRequest())
    except AppError as error:
        return error.kind
    return None


async def test_a_second_stub_with_other_methods_keeps_its_retries(house: Any, identity: Any) -> None:
    async def once_down(_request: Any) -> Any:
        if len(identity.calls) < 2:
            raise DOWN()
        return pb.BatchGetUsersResponse()

    identity.behaviour["BatchGetUsers"] = once_down
    server = await house.serve(identity)
    channel = house.channels(server.port).channel("identity")
    only = channel.unary_unary(
        PREFIX + "RevokePrincipal", pb.RevokePrincipalRequest.SerializeToString, pb.RevokePrincipalResponse.FromString
    )
    with pytest.raises(AppError):
        await only(pb.RevokePrincipalRequest())
    await IdentityServiceStub(channel).BatchGetUsers(pb.BatchGetUsersRequest())
    assert len(identity.calls) == 2


class Exchange:
    """Stands for identity's IssueServiceToken."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.count = 0
        self.down = False
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> tuple[str, float]:
        self.count += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise DOWN()
        return f"token-{self.count}", self.clock() + 600


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_the_token_is_renewed_at_half_its_life_and_kept_while_identity_is_down() -> None:
    clock = Clock()
    exchange = Exchange(clock)
    source = ServiceTokenSource(exchange, clock=clock)
    assert await source.token() == "token-1"
    clock.now += 299
    assert await source.token() == "token-1"
    assert exchange.count == 1
    exchange.down = True
    clock.now += 2
    assert await source.token() == "token-1"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert exchange.count == 2
    assert await source.token() == "token-1"
    assert exchange.count == 2
    clock.now += 290
    assert await source.token() == "token-1"
    clock.now += 10
    with pytest.raises(AppError) as raised:
        await source.token()
    assert (raised.value.kind, raised.value.retry_after_s) == (Kind.UNAVAILABLE, 1.0)
    exchange.down = False
    clock.now += 2
    assert (await source.token()).startswith("token-")


async def test_a_start_before_identity_leads_to_a_token_without_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_token, "RETRY_INTERVAL_S", 0.01)
    tries, issued = 0, asyncio.Event()

    async def exchange() -> tuple[str, float]:
        nonlocal tries
        tries += 1
        if tries != 3:
            raise DOWN()
        issued.set()
        return "third", time.time() + 600

    source = ServiceTokenSource(exchange, clock=time.time)
    source.warm_up()
    source.warm_up()
    await issued.wait()
    await asyncio.sleep(0)
    assert (await source.token(), tries) == ("third", 3)
    await source.close()


async def test_waiting_for_a_token_ends_with_the_deadline_of_the_call(house: Any, identity: Any) -> None:
    exchange = Exchange(Clock())
    exchange.gate = asyncio.Event()
    server = await house.serve(identity)
    channels = house.channels(server.port, caller=None, tokens=ServiceTokenSource(exchange))
    with pytest.raises(AppError) as raised:
        await IdentityServiceStub(channels.channel("identity")).BatchGetUsers(pb.BatchGetUsersRequest(), timeout=0.1)
    assert (raised.value.kind, raised.value.code) == (Kind.UNAVAILABLE, "rpc.peer_unavailable")
    assert identity.calls == []


async def test_memberships_are_asked_of_an_identity_that_is_only_just_coming(
    house: Any, identity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.auth.identity.REFRESH_TIMEOUT_S", 60.0)

    async def membership(request: pb.BatchGetMembershipsRequest) -> pb.BatchGetMembershipsResponse:
        (user_id,) = request.user_ids
        entry = pb.Membership(user_id=user_id, organization_id="org-1", role="owner", active=True, version=1)
        return pb.BatchGetMembershipsResponse(memberships=[entry])

    identity.behaviour["BatchGetMemberships"] = membership
    port = free_port()
    client = IdentityClient(house.channels(port).channel("identity"))
    asked = asyncio.create_task(client.memberships_of("alice"))
    # The first connection is refused at once; a call that gave up then would have ended by now.
    await asyncio.sleep(0.3)
    assert not asked.done()
    await house.serve(identity, port=port)
    assert [(found.organization_id, found.role) for found in await asked] == [("org-1", "owner")]


async def test_concurrent_callers_wait_for_one_exchange() -> None:
    clock = Clock()
    exchange = Exchange(clock)
    exchange.gate = asyncio.Event()
    source = ServiceTokenSource(exchange, clock=clock)
    callers = [asyncio.create_task(source.token()) for _ in range(50)]
    await asyncio.sleep(0)
    callers[0].cancel()
    exchange.gate.set()
    assert set(await asyncio.gather(*callers[1:])) == {"token-1"}
    assert exchange.count == 1


def kit_channels(port: int, secret: str) -> RpcChannels:
    settings = ServiceSettings(env="test", rpc_targets={"identity": f"127.0.0.1:{port}"}, service_secret=secret)
    return RpcChannels(settings, service="workflow")


async def test_the_secret_is_exchanged_and_a_refused_token_replaced_once(house: Any, identity: Any) -> None:
    issued: list[str] = []

    async def issue(request: pb.IssueServiceTokenRequest) -> pb.IssueServiceTokenResponse:
        if request.secret != "s3cret":
            raise ErrorSpec("identity.bad_secret", Kind.UNAUTHENTICATED, "No.")()
        # The first token is of a key that identity no longer has: the peer refuses it.
        signing = house.signing if issued else type(house.signing)()
        issued.append(request.service)
        answer = pb.IssueServiceTokenResponse(token=signing.service(request.service))
        answer.expires_at.FromSeconds(int(time.time()) + 600)
        return answer

    async def answer(_request: Any) -> Any:
        return pb.BatchGetUsersResponse()

    identity.behaviour |= {"IssueServiceToken": issue, "BatchGetUsers": answer}
    server = await house.serve(identity)
    channels = kit_channels(server.port, "s3cret")
    try:
        await IdentityServiceStub(channels.channel("identity")).BatchGetUsers(pb.BatchGetUsersRequest())
    finally:
        await channels.close()
    assert issued == ["workflow", "workflow"]
    assert identity.calls == ["IssueServiceToken", "IssueServiceToken", "BatchGetUsers"]


async def test_without_identity_calls_are_unavailable_and_never_unauthenticated(house: Any) -> None:
    channels = kit_channels(free_port(), "s3cret")
    try:
        with pytest.raises(AppError) as raised:
            await IdentityServiceStub(channels.channel("identity")).BatchGetUsers(pb.BatchGetUsersRequest())
    finally:
        await channels.close()
    assert (raised.value.kind, raised.value.retry_after_s) == (Kind.UNAVAILABLE, 1.0)
