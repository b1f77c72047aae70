"""The key cache: rotation, rate of refetches, and an absent identity."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx2
import orjson
import pytest

from omoios_local.embedded.process import free_port
from servicekit.auth.keys import (
    KEEP_LAST_GOOD_S,
    REFETCH_BURST,
    REFETCH_INTERVAL_S,
    REFRESH_AFTER_S,
    JwksCache,
    http_fetch,
    parse_jwks,
)
from servicekit.auth.testing import Signing
from servicekit.errors import AppError, Kind
from servicekit.http.server import HttpServer


class Identity:
    """Stands for identity's JWKS endpoint: counts, fails and waits as told."""

    def __init__(self, *signings: Signing) -> None:
        self.signings = list(signings)
        self.calls = 0
        self.down = False
        self.gate: asyncio.Event | None = None

    async def fetch(self) -> Mapping[str, Any]:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise OSError("connection refused")
        return {"keys": [signing.jwks["keys"][0] for signing in self.signings]}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def named(kid: str) -> Signing:
    signing = Signing()
    signing.kid = kid
    signing.key = type(signing.key).generate_key("P-256", {"kid": kid}, private=True)
    return signing


async def test_unknown_keys_make_four_fetches_at_once_and_then_one_in_thirty_seconds() -> None:
    clock, identity = Clock(), Identity(named("one"))
    keys = JwksCache(identity.fetch, clock=clock)
    assert await keys.key("one") is not None
    assert identity.calls == 1
    for _ in range(50):
        assert await keys.key("unknown") is None
    assert identity.calls == REFETCH_BURST
    clock.now += REFETCH_INTERVAL_S
    for _ in range(50):
        assert await keys.key("unknown") is None
    assert identity.calls == REFETCH_BURST + 1
    clock.now += 3600
    for _ in range(50):
        assert await keys.key("unknown") is None
    assert identity.calls == 2 * REFETCH_BURST + 1


async def test_keys_turned_over_within_seconds_are_all_known() -> None:
    """The next key is published with the active one; from the second turn on each is new to a verifier."""
    clock, identity = Clock(), Identity(named("key-0"), named("key-1"))
    keys = JwksCache(identity.fetch, clock=clock)
    await keys.key("key-0")
    for turn in range(1, REFETCH_BURST):
        clock.now += 2.0
        identity.signings = [*identity.signings, named(f"key-{turn + 1}")]
        assert await keys.key(f"key-{turn}") is not None
        assert await keys.key("key-0") is not None


async def test_a_rotated_key_is_found_by_one_refetch() -> None:
    clock, identity = Clock(), Identity(named("one"))
    keys = JwksCache(identity.fetch, clock=clock)
    await keys.key("one")
    identity.signings = [named("one"), named("two")]
    clock.now += REFETCH_INTERVAL_S
    assert await keys.key("two") is not None
    assert identity.calls == 2


async def test_concurrent_refetches_are_one() -> None:
    identity = Identity(named("one"))
    identity.gate = asyncio.Event()
    keys = JwksCache(identity.fetch, clock=Clock())
    waiting = [asyncio.create_task(keys.key("one")) for _ in range(100)]
    await asyncio.sleep(0)
    identity.gate.set()
    assert all(await asyncio.gather(*waiting))
    assert identity.calls == 1


async def test_a_cancelled_request_does_not_cancel_the_fetch_of_others() -> None:
    identity = Identity(named("one"))
    identity.gate = asyncio.Event()
    keys = JwksCache(identity.fetch, clock=Clock())
    first, second = asyncio.create_task(keys.key("one")), asyncio.create_task(keys.key("one"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    identity.gate.set()
    assert await second is not None


async def test_the_last_good_keys_serve_for_a_day_without_identity() -> None:
    clock, identity = Clock(), Identity(named("one"))
    keys = JwksCache(identity.fetch, clock=clock)
    await keys.key("one")
    identity.down = True
    for hour in range(23):
        clock.now += 3600
        assert await keys.key("one") is not None, hour
        await asyncio.sleep(0)
    clock.now += KEEP_LAST_GOOD_S
    with pytest.raises(AppError) as error:
        await keys.key("one")
    assert (error.value.kind, error.value.retry_after_s) == (Kind.UNAVAILABLE, 1.0)


async def test_without_identity_an_unknown_key_is_not_called_invalid() -> None:
    clock, identity = Clock(), Identity(named("one"))
    identity.down = True
    keys = JwksCache(identity.fetch, clock=clock)
    for _ in range(20):
        with pytest.raises(AppError) as error:
            await keys.key("one")
        assert (error.value.code, error.value.kind) == ("auth.keys_unavailable", Kind.UNAVAILABLE)
    assert identity.calls == 1
    identity.down = False
    clock.now += 1.0
    assert await keys.key("one") is not None


async def test_a_withdrawn_key_leaves_with_the_background_refresh() -> None:
    clock, identity = Clock(), Identity(named("old"), named("new"))
    keys = JwksCache(identity.fetch, clock=clock)
    assert await keys.key("old") is not None
    identity.signings = [named("new")]
    clock.now += REFRESH_AFTER_S + 1
    assert await keys.key("new") is not None
    await asyncio.sleep(0.01)
    assert identity.calls == 2
    assert await keys.key("old") is None


def test_only_signature_keys_on_p256_are_taken() -> None:
    good = named("good").jwks["keys"][0]
    bad = [
        {"kty": "oct", "k": "AAAA", "kid": "symmetric"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "rsa"},
        {**good, "kid": "encryption", "use": "enc"},
        {**good, "kid": "other-alg", "alg": "ES384"},
        {**good, "kid": "off-curve", "y": "AAAA"},
        {**good, "kid": ""},
        "text",
    ]
    assert list(parse_jwks({"keys": [*bad, good]})) == ["good"]
    with pytest.raises(ValueError, match="no usable"):
        parse_jwks({"keys": bad})
    with pytest.raises(ValueError, match="no usable"):
        parse_jwks({"keys": "x"})


async def test_instances_are_asked_in_turn_until_one_answers(signing: Signing) -> None:
    published = orjson.dumps(signing.jwks)

    def instance(status: int, body: bytes) -> HttpServer:
        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": body})

        return HttpServer(app, "127.0.0.1", 0)

    busy, well = instance(503, b"{}"), instance(200, published)
    await busy.start()
    await well.start()
    try:
        # The first listens no more, the second is too busy.
        ports = [free_port(), busy.port, well.port]
        urls = [f"http://127.0.0.1:{port}/.well-known/jwks.json" for port in ports]
        assert await http_fetch(" ".join(urls))() == signing.jwks
        with pytest.raises(httpx2.HTTPStatusError, match="503"):
            await http_fetch(" ".join(urls[:2]))()
    finally:
        await busy.close()
        await well.close()
