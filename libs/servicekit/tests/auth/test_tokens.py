"""The token table: whatever is wrong with a token, the answer is the same 401."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from servicekit.auth.keys import JwksCache
from servicekit.auth.principal import PrincipalType
from servicekit.auth.testing import Signing
from servicekit.auth.tokens import LEEWAY_S, MAX_TOKEN_BYTES, VERIFIED_TTL_S, TokenVerifier
from servicekit.errors import UNAUTHENTICATED, AppError, Kind


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    base = {
        "iss": "omoios-identity",
        "aud": "omoios-api",
        "sub": "user-1",
        "iat": now,
        "exp": now + 900,
        "jti": "t-1",
        "sid": "s-1",
        "pt": "user",
    }
    return {name: value for name, value in (base | changes).items() if value is not None}


def with_header(signing: Signing, **header: Any) -> str:
    """A token signed by the right key whatever its header says."""
    merged = {"alg": "ES256", "typ": "at+jwt", "kid": signing.kid} | header
    head = b64(json.dumps({name: value for name, value in merged.items() if value is not None}).encode())
    body = b64(json.dumps(claims()).encode())
    algorithm = jws.JWSRegistry.algorithms["ES256"]
    return f"{head}.{body}.{b64(algorithm.sign(f'{head}.{body}'.encode(), signing.key))}"


def hs256(signing: Signing, secret: bytes) -> str:
    head = b64(json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": signing.kid}).encode())
    body = b64(json.dumps(claims()).encode())
    return f"{head}.{body}.{b64(hmac.new(secret, f'{head}.{body}'.encode(), hashlib.sha256).digest())}"


def foreign_key(signing: Signing) -> str:
    other = Signing()
    return other.sign(claims())


def own_key_in_header(signing: Signing) -> str:
    other = Signing()
    return with_header(other, jwk=other.key.as_dict(private=False))


def rs256(signing: Signing) -> str:
    key = RSAKey.generate_key(2048, private=True)
    header = {"alg": "RS256", "typ": "at+jwt", "kid": signing.kid}
    return jws.serialize_compact(header, json.dumps(claims()).encode(), key, algorithms=["RS256"])


def es384(signing: Signing) -> str:
    key = ECKey.generate_key("P-384", private=True)
    header = {"alg": "ES384", "typ": "at+jwt", "kid": signing.kid}
    return jws.serialize_compact(header, json.dumps(claims()).encode(), key, algorithms=["ES384"])


def tampered(signing: Signing) -> str:
    head, _, signature = signing.sign(claims()).split(".")
    return f"{head}.{b64(json.dumps(claims(sub='user-2')).encode())}.{signature}"


def none_algorithm(signing: Signing) -> str:
    return f"{b64(json.dumps({'alg': 'none', 'typ': 'at+jwt', 'kid': signing.kid}).encode())}.{b64(b'{}')}."


def none_with_signature(signing: Signing) -> str:
    return with_header(signing, alg="none")


def der_signature(signing: Signing) -> str:
    """The signature in DER instead of r‖s."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    head, body, _ = signing.sign(claims()).split(".")
    return f"{head}.{body}.{b64(signing.key.private_key.sign(f'{head}.{body}'.encode(), ec.ECDSA(hashes.SHA256())))}"


NOW = time.time()

BAD: dict[str, Callable[[Signing], str]] = {
    "empty": lambda s: "",
    "garbage": lambda s: "not-a-token",
    "three dots of nothing": lambda s: "..",
    "binary": lambda s: "\x00\xff.\x00.\x00",
    "surrogates": lambda s: "\ud800.a.b",
    "newline inside": lambda s: s.sign(claims()).replace(".", ".\n", 1),
    "trailing newline": lambda s: s.sign(claims()) + "\n",
    "four parts": lambda s: s.sign(claims()) + ".x",
    "header is a list": lambda s: f"{b64(b'[]')}.{b64(b'{}')}.{b64(b'x' * 64)}",
    "header is nested deeply": lambda s: f"{b64(b'[' * 300)}.{b64(b'{}')}.{b64(b'x' * 64)}",
    "payload is a list": lambda s: jws.serialize_compact(
        {"alg": "ES256", "typ": "at+jwt", "kid": s.kid}, b"[]", s.key, algorithms=["ES256"]
    ),
    "oversized": lambda s: s.sign(claims(pad="x" * MAX_TOKEN_BYTES)),
    "oversized header": lambda s: with_header(s, kid="k" * 600),
    "none": none_algorithm,
    "none with a signature": none_with_signature,
    "None": lambda s: with_header(s, alg="None"),
    "RS256": rs256,
    "ES384": es384,
    "HS256 with the public PEM": lambda s: hs256(s, s.key.as_pem(private=False)),
    "HS256 with the public DER": lambda s: hs256(s, s.key.as_der(private=False)),
    "HS256 with the public JWK": lambda s: hs256(s, json.dumps(s.key.as_dict(private=False)).encode()),
    "HS256 with nothing": lambda s: hs256(s, b""),
    "signed by another key": foreign_key,
    "brings its own jwk": own_key_in_header,
    "jwk of the right key": lambda s: with_header(s, jwk=s.key.as_dict(private=False)),
    "jku": lambda s: with_header(s, jku="https://evil.example/jwks.json"),
    "x5u": lambda s: with_header(s, x5u="https://evil.example/cert.pem"),
    "x5c": lambda s: with_header(s, x5c=["AAAA"]),
    "crit": lambda s: with_header(s, crit=["exp"], exp=1),
    "empty crit": lambda s: with_header(s, crit=[]),
    "b64 false": lambda s: with_header(s, b64=False, crit=["b64"]),
    "unknown kid": lambda s: with_header(s, kid="other"),
    "kid is a path": lambda s: with_header(s, kid="../../../../dev/null"),
    "kid is an injection": lambda s: with_header(s, kid="x' UNION SELECT 'y"),
    "kid is a number": lambda s: with_header(s, kid=1),
    "no kid": lambda s: with_header(s, kid=None),
    "typ JWT": lambda s: with_header(s, typ="JWT"),
    "typ of a refresh token": lambda s: with_header(s, typ="rt+jwt"),
    "no typ": lambda s: with_header(s, typ=None),
    "tampered payload": tampered,
    "DER signature": der_signature,
    "no signature": lambda s: ".".join(s.sign(claims()).split(".")[:2]) + ".",
    "wrong issuer": lambda s: s.sign(claims(iss="someone-else")),
    "no issuer": lambda s: s.sign(claims(iss=None)),
    "wrong audience": lambda s: s.sign(claims(aud="another-api")),
    "audience list without ours": lambda s: s.sign(claims(aud=["another-api"])),
    "no audience": lambda s: s.sign(claims(aud=None)),
    "expired": lambda s: s.sign(claims(iat=int(NOW) - 1000, exp=int(NOW) - LEEWAY_S - 5)),
    "no exp": lambda s: s.sign(claims(exp=None)),
    "exp is a string": lambda s: s.sign(claims(exp=str(int(NOW) + 900))),
    "exp is true": lambda s: s.sign(claims(exp=True)),
    "exp is NaN": lambda s: s.sign(claims(exp=float("nan"))),
    "exp is huge": lambda s: s.sign(claims(exp=10**400)),
    "lives too long": lambda s: s.sign(claims(exp=int(NOW) + 40 * 3600)),
    "ends before it begins": lambda s: s.sign(claims(iat=int(NOW) + 30, exp=int(NOW) + 20)),
    "no iat": lambda s: s.sign(claims(iat=None)),
    "issued in the future": lambda s: s.sign(claims(iat=int(time.time()) + LEEWAY_S + 30)),
    "not yet valid": lambda s: s.sign(claims(nbf=int(time.time()) + LEEWAY_S + 30)),
    "nbf is a string": lambda s: s.sign(claims(nbf="0")),
    "no subject": lambda s: s.sign(claims(sub=None)),
    "empty subject": lambda s: s.sign(claims(sub="")),
    "subject is a number": lambda s: s.sign(claims(sub=1)),
    "no principal type": lambda s: s.sign(claims(pt=None)),
    "unknown principal type": lambda s: s.sign(claims(pt="root")),
    "principal type api_key": lambda s: s.sign(claims(pt="api_key")),
    "a refresh token's type claim": lambda s: s.sign(claims(pt="refresh")),
    "agent without organization": lambda s: s.sign(claims(pt="agent")),
    "session id is a list": lambda s: s.sign(claims(sid=["s"])),
}


@pytest.mark.parametrize("name", BAD)
async def test_every_bad_token_gets_the_same_401(name: str, keypair: Signing) -> None:
    verifier = keypair.verifier()
    with pytest.raises(AppError) as error:
        await verifier.verify(BAD[name](keypair))
    refused = error.value
    assert (refused.kind, refused.code, refused.detail, refused.meta, refused.fields) == (
        Kind.UNAUTHENTICATED,
        UNAUTHENTICATED.code,
        UNAUTHENTICATED.detail,
        {},
        (),
    )
    assert refused.headers == {"WWW-Authenticate": "Bearer"}
    assert refused.__cause__ is None


async def test_the_same_token_without_its_fault_is_accepted(keypair: Signing) -> None:
    verifier = keypair.verifier()
    for token in (keypair.sign(claims()), with_header(keypair), keypair.sign(claims(aud=["x", "omoios-api"]))):
        verified = await verifier.verify(token)
        assert (verified.type, verified.subject, verified.session_id) == (PrincipalType.USER, "user-1", "s-1")
        assert not verified.is_super_admin


async def test_the_clocks_may_differ_by_a_minute(keypair: Signing) -> None:
    now = int(time.time())
    verifier = keypair.verifier()
    await verifier.verify(keypair.sign(claims(iat=now + LEEWAY_S - 5, nbf=now + LEEWAY_S - 5)))
    await verifier.verify(keypair.sign(claims(iat=now - 900, exp=now - LEEWAY_S + 5)))


async def test_super_admin_counts_for_users_only(keypair: Signing) -> None:
    verifier = keypair.verifier()
    assert (await verifier.verify(keypair.sign(claims(sa=True)))).is_super_admin
    assert not (await verifier.verify(keypair.sign(claims(sa="yes")))).is_super_admin
    assert not (await verifier.verify(keypair.sign(claims(sa=True, pt="agent", org="o")))).is_super_admin


async def test_a_remembered_token_is_not_verified_again_and_dies_on_time(keypair: Signing, clock: Any) -> None:
    keys = JwksCache(keypair.fetch_jwks)
    verifier = TokenVerifier(keys, issuer=keypair.issuer, audience=keypair.audience, clock=clock)
    token = keypair.sign(claims(iat=int(clock()), exp=int(clock()) + 20))
    first = await verifier.verify(token)
    assert await verifier.verify(token) is first
    clock.now += VERIFIED_TTL_S - 1
    assert await verifier.verify(token) is first
    clock.now += 2
    assert await verifier.verify(token) is not first
    clock.now += 60
    with pytest.raises(AppError):
        await verifier.verify(token)


async def test_remembered_tokens_are_bounded(keypair: Signing) -> None:
    verifier = TokenVerifier(
        JwksCache(keypair.fetch_jwks), issuer=keypair.issuer, audience=keypair.audience, verified_max=3
    )
    for number in range(10):
        await verifier.verify(keypair.sign(claims(jti=f"t-{number}")))
    assert len(verifier._verified) == 3


async def test_garbage_never_reaches_the_keys(keypair: Signing) -> None:
    verifier = keypair.verifier()
    for name in ("garbage", "none", "jwk of the right key", "typ JWT", "RS256", "oversized"):
        with pytest.raises(AppError):
            await verifier.verify(BAD[name](keypair))
    assert keypair.fetches == 0
