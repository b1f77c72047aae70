"""Deadlines: every call has one, it shrinks on the way, and nobody works on past it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1.identity_pb2_grpc import IdentityServiceStub
from servicekit.errors import AppError, Kind
from servicekit.rpc import RpcContext
from servicekit.rpc.context import answering


async def test_a_call_without_a_timeout_gets_two_seconds_and_the_server_trims_them(house: Any, identity: Any) -> None:
    left: list[float] = []

    async def answer(_request: Any) -> Any:
        left.append(RpcContext.current().remaining())
        return pb.BatchGetUsersResponse()

    identity.behaviour["BatchGetUsers"] = answer
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port).channel("identity"))
    await stub.BatchGetUsers(pb.BatchGetUsersRequest())
    await stub.BatchGetUsers(pb.BatchGetUsersRequest(), timeout=0.9)
    # gRPC rounds timeouts up: above a second to 10 ms, below to 1 ms.
    assert 0 < left[0] <= 1.99
    assert 0 < left[1] <= 0.885


async def test_the_handler_is_cancelled_at_the_deadline_and_the_caller_told_why(house: Any, identity: Any) -> None:
    cancelled = asyncio.Event()

    async def endless(_request: Any) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    identity.behaviour["BatchGetUsers"] = endless
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port).channel("identity"))
    started = time.monotonic()
    with pytest.raises(AppError) as raised:
        await stub.BatchGetUsers(pb.BatchGetUsersRequest(), timeout=0.4)
    assert raised.value.kind is Kind.DEADLINE
    assert raised.value.code == "rpc.deadline_exceeded"
    # The handler itself would take a minute.
    assert 0.3 < time.monotonic() - started < 30
    async with asyncio.timeout(20):
        await cancelled.wait()


async def test_a_handlers_own_timeout_error_is_not_taken_for_the_deadline(house: Any, identity: Any) -> None:
    async def fails(_request: Any) -> Any:
        raise TimeoutError("the git process")

    identity.behaviour["BatchGetUsers"] = fails
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port).channel("identity"))
    with pytest.raises(AppError) as raised:
        await stub.BatchGetUsers(pb.BatchGetUsersRequest())
    assert raised.value.kind is Kind.INTERNAL


async def test_work_is_not_begun_with_too_little_time(house: Any, identity: Any) -> None:
    server = await house.serve(identity)
    channel = house.channels(server.port).channel("identity")
    stub = IdentityServiceStub(channel)
    await channel.channel_ready()
    with pytest.raises(AppError) as raised:
        await stub.BatchGetUsers(pb.BatchGetUsersRequest(), timeout=0.08)
    assert raised.value.kind is Kind.DEADLINE
    assert identity.calls == []


async def test_an_outgoing_call_never_outlives_the_call_it_serves(house: Any, identity: Any) -> None:
    left: list[float] = []

    async def answer(_request: Any) -> Any:
        left.append(RpcContext.current().remaining())
        return pb.BatchGetUsersResponse()

    identity.behaviour["BatchGetUsers"] = answer
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port).channel("identity"))
    inbound = RpcContext("/a.B/C", "agents", "user:u-1", None, time.monotonic() + 5.0)
    with answering(inbound):
        await stub.BatchGetUsers(pb.BatchGetUsersRequest(), timeout=10)
    assert 0 < left[0] <= 5.0
    spent = RpcContext("/a.B/C", "agents", "user:u-1", None, time.monotonic() + 0.001)
    with answering(spent), pytest.raises(AppError) as raised:
        await stub.BatchGetUsers(pb.BatchGetUsersRequest())
    assert raised.value.code == "rpc.deadline_too_short"
    assert len(identity.calls) == 1


async def test_a_caller_that_goes_away_cancels_the_handler(house: Any, identity: Any) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(_request: Any) -> Any:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    identity.behaviour["BatchGetUsers"] = endless
    server = await house.serve(identity)
    stub = IdentityServiceStub(house.channels(server.port).channel("identity"))
    call = asyncio.create_task(stub.BatchGetUsers(pb.BatchGetUsersRequest(), timeout=30))
    await started.wait()
    call.cancel()
    async with asyncio.timeout(20):
        await cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await call
