"""The rate limiter on a real Redis."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends

from omoios_local.embedded.redis import EmbeddedRedis
from servicekit.http import RateLimit, client_address
from servicekit.redis import RedisClient
from servicekit.settings import ServiceSettings


@pytest.fixture
async def redis(redis_part: EmbeddedRedis) -> AsyncIterator[RedisClient]:
    client = RedisClient(ServiceSettings(env="test", redis_url=redis_part.url()))
    yield client
    await client.close()


def router() -> APIRouter:
    made = APIRouter(prefix="/api/v1/limited", tags=["limited"])

    @made.post(
        "/login", dependencies=[Depends(RateLimit("kit.login", per_minute=5, key=client_address, fail_closed=True))]
    )
    async def login() -> str:
        return "in"

    @made.get("/read", dependencies=[Depends(RateLimit("kit.read", per_minute=2))])
    async def read() -> str:
        return "read"

    return made


async def test_the_limit_holds_under_concurrency_and_frees_itself(redis: RedisClient) -> None:
    answers = await asyncio.gather(*(redis.limit("k", requests=10, per_s=2.0) for _ in range(40)))
    allowed = [answer for answer in answers if answer.allowed]
    assert len(allowed) == 10
    assert sorted(answer.remaining for answer in allowed) == list(range(10))
    refused = next(answer for answer in answers if not answer.allowed)
    assert 0 < refused.retry_after_s <= 0.2
    await asyncio.sleep(refused.retry_after_s + 0.05)
    assert (await redis.limit("k", requests=10, per_s=2.0)).allowed
    assert not all([(await redis.limit("k", requests=10, per_s=2.0)).allowed for _ in range(3)])


async def test_connections_that_broke_meanwhile_fail_no_command(redis: RedisClient, redis_part: EmbeddedRedis) -> None:
    settings = ServiceSettings(env="test", redis_url=redis_part.url())
    await asyncio.gather(*(redis.limit("b", requests=1000, per_s=1.0) for _ in range(10)))
    killer = RedisClient(settings)
    # As after a restart: every connection of the pool is dead, and nobody has noticed yet.
    await killer.raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await killer.close()
    answers = await asyncio.gather(*(redis.limit("b", requests=1000, per_s=1.0) for _ in range(10)))
    assert all(answer.allowed for answer in answers)


async def test_cost_and_burst(redis: RedisClient) -> None:
    assert (await redis.limit("c", requests=100, per_s=100, burst=5, cost=5)).allowed
    refused = await redis.limit("c", requests=100, per_s=100, burst=5, cost=2)
    assert not refused.allowed
    assert 1.5 < refused.retry_after_s <= 2.0
    assert not (await redis.limit("d", requests=10, per_s=10, burst=5, cost=6)).allowed


async def test_keys_expire_with_their_limit(redis: RedisClient) -> None:
    await redis.limit("short", requests=10, per_s=1)
    life = await redis.raw.pttl("short")
    assert 0 < life <= 100
    await asyncio.sleep(0.15)
    assert await redis.raw.exists("short") == 0


async def test_contract_numbers_with_headers(serve: Any, redis: RedisClient) -> None:
    settings = ServiceSettings(env="test", rate_limits="contract", trusted_proxies=["127.0.0.1"])
    async with serve(router(), settings=settings, redis=redis) as http:
        here = {"X-Forwarded-For": "203.0.113.1"}
        answers = [await http.post("/api/v1/limited/login", headers=here) for _ in range(6)]
        elsewhere = await http.post("/api/v1/limited/login", headers={"X-Forwarded-For": "203.0.113.2"})
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert elsewhere.status_code == 200
    first, last = answers[0], answers[-1]
    assert first.headers["ratelimit-policy"] == '"kit.login";q=5;w=60'
    assert re.fullmatch(r'"kit\.login";r=4;t=\d+', first.headers["ratelimit"])
    assert re.fullmatch(r'"kit\.login";r=0;t=\d+', last.headers["ratelimit"])
    assert 1 <= int(last.headers["retry-after"]) <= 12
    assert last.json()["error"] == last.json()["detail"] == "Rate limit exceeded: 5 per 1 minute"
    assert last.json()["code"] == "request.rate_limited"


async def test_loose_numbers(serve: Any, redis: RedisClient) -> None:
    async with serve(router(), redis=redis) as http:
        answers = [await http.get("/api/v1/limited/read") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}


async def test_without_redis_login_fails_closed_and_reads_stay_open(
    serve: Any, redis: RedisClient, redis_part: EmbeddedRedis
) -> None:
    async with serve(router(), redis=redis) as http:
        assert (await http.get("/api/v1/limited/read")).status_code == 200
        redis_part.stop()
        closed = await http.post("/api/v1/limited/login")
        opened = await http.get("/api/v1/limited/read")
    assert closed.status_code == 503
    assert closed.headers["retry-after"] == "1"
    assert opened.status_code == 200


def test_a_limit_names_one_unit() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        RateLimit("kit.none")
    with pytest.raises(ValueError, match="exactly one"):
        RateLimit("kit.two", per_minute=1, per_hour=2)
