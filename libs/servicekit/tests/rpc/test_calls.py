"""A call through both ends of the kit: what is carried, what is refused, and which errors arrive."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1.identity_pb2_grpc import IdentityServiceStub
from servicekit import context
from servicekit.auth import AccessTable, AccessTableMismatch, Principal, PrincipalType
from servicekit.context import RemoteCallInTransaction
from servicekit.errors import AppError, ErrorSpec, FieldError, Kind
from servicekit.rpc import RpcContext

NOT_FOUND = ErrorSpec("identity.user_not_found", Kind.NOT_FOUND, "This user does not exist: größer.")


def users(*ids: str) -> pb.BatchGetUsersResponse:
    return pb.BatchGetUsersResponse(users=[pb.User(id=id_) for id_ in ids])


async def test_the_call_carries_subject_organization_correlation_and_trace(house: Any, identity: Any) -> None:
    seen: list[tuple[RpcContext, str, str, str]] = []

    async def answer(request: pb.BatchGetUsersRequest) -> pb.BatchGetUsersResponse:
        seen.append(
            (
                RpcContext.current(),
                context.correlation_id.get(),
                context.traceparent.get(),
                context.origin_subject.get(),
            )
        )
        return users(*request.ids)

    identity.behaviour["BatchGetUsers"] = answer
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port).channel("identity"))
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    sandbox = Principal(PrincipalType.SANDBOX, "box-1", claims={"org": "org-1"})
    with context.bind(request="req-1", correlation="cor-1", trace=trace, who=sandbox):
        answered = await stub.BatchGetUsers(pb.BatchGetUsersRequest(ids=["u-1", "u-2"]))
    assert [user.id for user in answered.users] == ["u-1", "u-2"]
    call, correlation, traceparent, subject = seen[0]
    assert (call.caller, call.subject, call.organization_id) == ("workflow", "sandbox:box-1", "org-1")
    assert call.method == "/omoios.identity.v1.IdentityService/BatchGetUsers"
    assert (correlation, traceparent, subject) == ("cor-1", trace, "sandbox:box-1")
    with pytest.raises(LookupError):
        RpcContext.current()


@pytest.mark.parametrize(
    "error",
    [
        NOT_FOUND(user_id="u-1"),
        ErrorSpec("billing.limit", Kind.PAYMENT_REQUIRED, "Pay.")(),
        ErrorSpec("billing.refused", Kind.REFUSED, "No.")(),
        ErrorSpec("x.gone", Kind.GONE, "Gone.")(),
        ErrorSpec("x.conflict", Kind.CONFLICT, "Changed.")(version=3),
        ErrorSpec("x.forbidden", Kind.FORBIDDEN, "No.")(),
        ErrorSpec("x.large", Kind.TOO_LARGE, "Large.")(),
        ErrorSpec("x.busy", Kind.RATE_LIMITED, "Slow down.", 12.5)(),
        ErrorSpec("x.down", Kind.UNAVAILABLE, "Down.", 3)(),
        ErrorSpec("x.late", Kind.DEADLINE, "Late.")(),
        AppError("x.object", "Object", Kind.FORBIDDEN, detail_object={"error": "waitlist_pending", "n": 1}),
        AppError(
            "request.invalid",
            "Not valid.",
            Kind.INVALID,
            fields=[FieldError(("body", "items", 0, "name"), "must not be empty", "missing")],
        ),
        AppError("x.long", "d" * 10_000, Kind.REFUSED, meta={"a": "b" * 100_000, "c": "d"}),
    ],
    ids=lambda error: error.code,
)
async def test_the_client_raises_the_error_that_the_servicer_raised(house: Any, identity: Any, error: AppError) -> None:
    async def answer(_request: Any) -> Any:
        raise error

    identity.behaviour["RevokePrincipal"] = answer
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port, caller="agents").channel("identity"))
    with pytest.raises(AppError) as raised:
        await stub.RevokePrincipal(pb.RevokePrincipalRequest())
    got = raised.value
    assert (got.code, got.kind, got.retry_after_s) == (error.code, error.kind, error.retry_after_s)
    assert got.detail == error.detail[:2000]
    assert got.fields == error.fields
    assert got.detail_object == error.detail_object
    if error.code != "x.long":
        assert got.meta == error.meta


async def test_an_internal_error_never_shows_its_cause(house: Any, identity: Any, bare_channel: Any) -> None:
    async def crash(_request: Any) -> Any:
        raise RuntimeError("password=hunter2 at 10.0.0.7")

    async def declared(_request: Any) -> Any:
        raise AppError("x.secret", "password=hunter2", Kind.INTERNAL, meta={"host": "10.0.0.7"})

    server = await house.serve(identity)
    token = (("authorization", f"Bearer {house.signing.service('workflow')}"),)
    stub = IdentityServiceStub(bare_channel(server.port))
    for behaviour in (crash, declared):
        identity.behaviour["BatchGetUsers"] = behaviour
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.BatchGetUsers(pb.BatchGetUsersRequest(), metadata=token, timeout=2)
        error = raised.value
        assert error.code() is grpc.StatusCode.INTERNAL
        everything = f"{error.details()}{error.trailing_metadata()}{error.debug_error_string()}"
        assert "hunter2" not in everything
        assert "10.0.0.7" not in everything
        assert "x.secret" not in everything


async def test_without_a_valid_service_token_nothing_is_answered(house: Any, identity: Any, bare_channel: Any) -> None:
    server = await house.serve(identity)
    stub = IdentityServiceStub(bare_channel(server.port))
    signing = house.signing
    stranger = type(signing)()
    credentials = {
        "none": None,
        "empty": "",
        "basic": "Basic d29ya2Zsb3c6eA==",
        "bare": "Bearer",
        "garbage": "Bearer x.y.z",
        "another key": f"Bearer {stranger.service('workflow')}",
        "expired": f"Bearer {signing.service('workflow', iat=1_000_000, exp=1_000_900)}",
    }
    for name, value in credentials.items():
        metadata = () if value is None else (("authorization", value),)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.BatchGetUsers(pb.BatchGetUsersRequest(), metadata=metadata, timeout=2)
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED, name
    assert identity.calls == []


async def test_a_service_that_is_not_listed_is_refused_and_its_user_sees_no_401(house: Any, identity: Any) -> None:
    server = await house.serve(identity)
    for caller, code in (("workflow", "rpc.caller_not_allowed"), ("unknown", "rpc.caller_not_allowed")):
        stub = IdentityServiceStub(house.channels(server.port, caller=caller).channel("identity"))
        with pytest.raises(AppError) as raised:
            await stub.RevokePrincipal(pb.RevokePrincipalRequest())
        assert (raised.value.code, raised.value.kind) == (code, Kind.INTERNAL)
    assert identity.calls == []


async def test_a_token_that_is_no_service_token_is_refused(house: Any, identity: Any) -> None:
    from servicekit.auth.authenticator import Authenticator
    from servicekit.auth.memberships import MembershipDirectory
    from servicekit.auth.revocations import Revocations

    authenticator = Authenticator(house.verifier, MembershipDirectory(NoMemberships()), Revocations(), clock=time.time)
    house.authenticate = authenticator.authenticate_service
    server = await house.serve(identity)
    channels = house.channels(server.port)
    for token in (
        house.signing.user_token("workflow", super_admin=True),
        house.signing.agent("org", "workflow"),
    ):
        channels.tokens._token = token
        with pytest.raises(AppError) as raised:
            await IdentityServiceStub(channels.channel("identity")).BatchGetUsers(pb.BatchGetUsersRequest())
        assert raised.value.code == "rpc.unauthenticated"
        assert raised.value.kind is Kind.INTERNAL
    assert identity.calls == []


class NoMemberships:
    async def memberships_of(self, user_id: str) -> list[Any]:
        return []


async def test_a_method_without_an_entry_keeps_the_server_from_being_built(house: Any, identity: Any) -> None:
    with pytest.raises(AccessTableMismatch, match="VerifyApiKey has no entry"):
        await house.serve(identity, access=AccessTable(rpcs={"BatchGetUsers": frozenset({"workflow"})}))


async def test_a_call_inside_a_transaction_is_a_programming_error(house: Any, identity: Any) -> None:
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port).channel("identity"))
    with context.in_transaction(), pytest.raises(RemoteCallInTransaction):
        await stub.BatchGetUsers(pb.BatchGetUsersRequest())
    assert identity.calls == []


async def test_probes_need_no_token_and_learn_of_the_end(house: Any, identity: Any, bare_channel: Any) -> None:
    server = await house.serve(identity)
    probe = health_pb2_grpc.HealthStub(bare_channel(server.port))
    request = health_pb2.HealthCheckRequest(service="omoios.identity.v1.IdentityService")
    assert (await probe.Check(request, timeout=2)).status == health_pb2.HealthCheckResponse.SERVING
    await server.drain()
    assert (await probe.Check(request, timeout=2)).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_is_absent_in_production(house: Any, identity: Any, bare_channel: Any) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    request = reflection_pb2.ServerReflectionRequest(list_services="")
    for env, listed in (("test", True), ("production", False)):
        server = await house.serve(identity, env=env)
        call = reflection_pb2_grpc.ServerReflectionStub(bare_channel(server.port)).ServerReflectionInfo(
            iter([request]), timeout=2
        )
        if listed:
            answers = [answer async for answer in call]
            names = [service.name for service in answers[0].list_services_response.service]
            assert "omoios.identity.v1.IdentityService" in names
        else:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                _ = [answer async for answer in call]
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_two_servers_never_share_a_port(house: Any, identity: Any) -> None:
    server = await house.serve(identity)
    with pytest.raises(OSError, match="cannot be bound"):
        await house.serve(identity, port=server.port)


async def test_closing_lets_running_calls_end(house: Any, identity: Any) -> None:
    started = asyncio.Event()

    async def slow(_request: Any) -> Any:
        started.set()
        await asyncio.sleep(0.3)
        return users("late")

    identity.behaviour["BatchGetUsers"] = slow
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port).channel("identity"))
    call = asyncio.create_task(stub.BatchGetUsers(pb.BatchGetUsersRequest()))
    await started.wait()
    assert server.in_flight == 1
    await server.close()
    assert [user.id for user in (await call).users] == ["late"]
    assert server.in_flight == 0
