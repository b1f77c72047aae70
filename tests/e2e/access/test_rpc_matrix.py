"""Every RPC of `proto/`, called without a service's credential, by services that may not, and by those that may."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import grpc
import pytest

from servicekit.auth.access import ANY_SERVICE, WITHOUT_TOKEN
from servicekit.describe import SERVICES, describe
from servicekit.ids import new_id
from servicekit.rpc.wire import CALLER_NOT_ALLOWED, CALLER_UNAUTHENTICATED
from tests.e2e.access.callers import Cast

REFUSED = {
    (grpc.StatusCode.UNAUTHENTICATED, CALLER_UNAUTHENTICATED.detail),
    (grpc.StatusCode.PERMISSION_DENIED, CALLER_NOT_ALLOWED.detail),
}
# An empty request is refused for what it lacks; nothing about it may be a fault of the service.
FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED}


def rpcs() -> Iterator[tuple[str, str, str]]:
    """(owner, full service name, method) of everything that `proto/` declares."""
    for owner in SERVICES:
        try:
            module = importlib.import_module(f"omoios.{owner}.v1.{owner}_pb2")
        except ModuleNotFoundError:
            continue
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield owner, service.full_name, method.name


def allowed_callers() -> dict[tuple[str, str], frozenset[str]]:
    """RPC → the services that may call it."""
    tables = {service.name: service.access for service in describe()}
    found = {}
    for owner, service, method in rpcs():
        callers = tables[owner].callers_of(service, method)
        assert callers is not None, f"{service}/{method} has no entry in services/{owner}/src/{owner}_service/access.py"
        found[service, method] = callers
    return found


def call(channel: grpc.Channel, service: str, method: str, token: str | None) -> tuple[grpc.StatusCode, str]:
    """The status of a call with an empty request."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    try:
        channel.unary_unary(f"/{service}/{method}")(b"", metadata=metadata, timeout=20)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def no_credentials(everybody: Cast) -> dict[str, str | None]:
    """Whoever shows one of these is no service."""
    keys, user = everybody.keys, everybody.owner.user_id
    return {
        "nothing": None,
        "a user's token": everybody.owner.token,
        "an API key": everybody.tokens["key"],
        "an agent's token": keys.token("agent", "agent-1", org=everybody.tenant.organization_id, agent="agent-1"),
        "a forged service token": keys.token("service", "workflow", key=keys.other),
        "a service token for another audience": keys.token("service", "workflow", aud="another-api"),
        "an expired service token": keys.token("service", "workflow", iat=1_000_000_000, exp=1_000_000_600),
        "a super admin's token": keys.token("user", user, sid=new_id(), sa=True),
        "a service that does not exist": keys.token("service", "nobody"),
    }


def judged(everybody: Cast, owner: str) -> Iterator[str]:
    """What is wrong with the RPCs of one service."""
    target = everybody.world.client.stack().environments.rpc_targets()[owner]
    callers = allowed_callers()
    with grpc.insecure_channel(target) as channel:
        for service, method in (one[1:] for one in rpcs() if one[0] == owner):
            name, allowed = f"{service}/{method}", callers[service, method]
            if allowed == WITHOUT_TOKEN:
                status = call(channel, service, method, None)
                if status in REFUSED or status[0] in FAULTS or status[0] is grpc.StatusCode.OK:
                    yield f"{name} without a token and without a secret: {status}"
                continue
            for what, token in no_credentials(everybody).items():
                wanted = {grpc.StatusCode.UNAUTHENTICATED}
                if what == "a service that does not exist":
                    wanted = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
                status = call(channel, service, method, token)
                if status[0] not in wanted and not (what == "a service that does not exist" and allowed == ANY_SERVICE):
                    yield f"{name} with {what}: {status}"
            for caller in SERVICES:
                status = call(channel, service, method, everybody.keys.token("service", caller))
                may = allowed == ANY_SERVICE or caller in allowed
                if not may and status[0] is not grpc.StatusCode.PERMISSION_DENIED:
                    yield f"{name} by {caller}: {status}"
                if may and (status in REFUSED or status[0] in FAULTS):
                    yield f"{name} by {caller}, which may: {status}"


@pytest.mark.parametrize("owner", sorted({owner for owner, _, _ in rpcs()}))
def test_every_rpc_by_everybody(everybody: Cast, owner: str) -> None:
    wrong = list(judged(everybody, owner))
    assert not wrong, "\n".join(wrong)
