"""Sign-in providers on loopback, in three dialects: OpenID Connect, GitHub and GitLab.

An authorization server of its own making, as strict as the standards ask: the redirect address must be exactly the one
registered, PKCE is checked (RFC 7636), a code works once and for its client only, refresh tokens rotate, and one that
is used twice ends its grant.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CLIENT_ID = "omoios-client"
CLIENT_SECRET = "the client's secret"


@dataclass
class Someone:
    """A user of the provider. `verified`: the provider vouches for the address."""

    id: int
    email: str | None
    verified: bool = True
    username: str = "someone"
    name: str = "Some One"


@dataclass
class _Code:
    who: Someone
    redirect_uri: str
    challenge: str
    nonce: str | None


@dataclass
class LoopbackProvider:
    """The server's state; tests turn its knobs."""

    url: str = ""
    redirect_uri: str = ""
    """The one registered redirect address."""
    user: Someone = field(default_factory=lambda: Someone(1, "someone@example.com"))
    """Who is signed in at the provider's page."""
    expires_in: int | None = None
    nonce: str | None = None
    """Set, it is put into id tokens in place of the one that was asked for."""
    audience: str = CLIENT_ID
    down: bool = False
    delay_s: float = 0.0
    refreshed: int = 0
    codes: dict[str, _Code] = field(default_factory=dict)
    access: dict[str, Someone] = field(default_factory=dict)
    refresh: dict[str, Someone] = field(default_factory=dict)
    used_refresh: set[str] = field(default_factory=set)
    key: Any = field(default_factory=lambda: ECKey.generate_key("P-256", parameters={"kid": "one", "alg": "ES256"}))
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def rotate_key(self) -> None:
        """Signs with another key from now on."""
        self.key = ECKey.generate_key("P-256", parameters={"kid": "two", "alg": "ES256"})

    def approve(self, auth_url: str) -> dict[str, str]:
        """What the user's browser carries back after he agreed at `auth_url`; checks the request as a provider does."""
        parts = urlsplit(auth_url)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert f"{parts.scheme}://{parts.netloc}" == self.url
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["redirect_uri"] == self.redirect_uri, "the redirect address must be exactly the registered one"
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{next(self._numbers)}"
        self.codes[code] = _Code(self.user, asked["redirect_uri"], asked["code_challenge"], asked.get("nonce"))
        return {"code": code, "state": asked["state"]}

    def app(self) -> Starlette:
        """The provider's endpoints."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._metadata),
                Route("/keys", self._keys),
                Route("/userinfo", self._userinfo),
                *(
                    Route(path, self._token, methods=["POST"])
                    for path in ("/token", "/oauth/token", "/login/oauth/access_token")
                ),
                Route("/api/v3/user", self._github_user),
                Route("/api/v3/user/emails", self._github_emails),
                Route("/api/v4/user", self._gitlab_user),
            ]
        )

    async def _metadata(self, request: Request) -> Response:
        if self.down:
            return Response(status_code=500)
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "userinfo_endpoint": f"{self.url}/userinfo",
                "jwks_uri": f"{self.url}/keys",
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        )

    async def _keys(self, request: Request) -> Response:
        return JSONResponse(KeySet([self.key]).as_dict(private=False))

    async def _token(self, request: Request) -> Response:
        await asyncio.sleep(self.delay_s)
        if self.down:
            return Response(status_code=500)
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        if not self._is_client(request, form):
            return JSONResponse({"error": "invalid_client"}, 401)
        if form.get("grant_type") == "refresh_token":
            return self._rotate(form["refresh_token"])
        code = self.codes.pop(form.get("code", ""), None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
        if code is None or code.challenge != challenge or form.get("redirect_uri") != code.redirect_uri:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse(self._grant(code.who, code.nonce))

    def _is_client(self, request: Request, form: dict[str, str]) -> bool:
        basic = request.headers.get("authorization", "")
        if request.url.path == "/token":
            expected = base64.b64encode(urlencode({CLIENT_ID: CLIENT_SECRET}).replace("=", ":", 1).encode())
            plain = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode())
            return basic in (f"Basic {expected.decode()}", f"Basic {plain.decode()}")
        return form.get("client_id") == CLIENT_ID and form.get("client_secret") == CLIENT_SECRET

    def _rotate(self, token: str) -> Response:
        who = self.refresh.pop(token, None)
        if who is None:
            if token in self.used_refresh:
                self.refresh.clear()
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.used_refresh.add(token)
        self.refreshed += 1
        return JSONResponse(self._grant(who, None))

    def _grant(self, who: Someone, nonce: str | None) -> dict[str, Any]:
        number = next(self._numbers)
        access, refresh = f"access-{number}", f"refresh-{number}"
        self.access[access] = who
        grant: dict[str, Any] = {"access_token": access, "token_type": "bearer", "scope": "repo,read:user"}
        if self.expires_in is not None:
            self.refresh[refresh] = who
            grant |= {"expires_in": self.expires_in, "refresh_token": refresh}
        if nonce is not None:
            now = int(time.time())
            claims = {
                "iss": self.url,
                "aud": self.audience,
                "sub": str(who.id),
                "iat": now,
                "exp": now + 300,
                "nonce": self.nonce or nonce,
            }
            header = {"alg": "ES256", "kid": self.key.kid}
            grant["id_token"] = jwt.encode(header, claims, self.key, algorithms=["ES256"])
        return grant

    def _who(self, request: Request) -> Someone | None:
        return self.access.get(request.headers.get("authorization", "").removeprefix("Bearer "))

    async def _userinfo(self, request: Request) -> Response:
        who = self._who(request)
        if who is None:
            return Response(status_code=401)
        shown = {"sub": str(who.id), "email": who.email, "email_verified": who.verified, "name": who.name}
        return JSONResponse(shown | {"preferred_username": who.username})

    async def _github_user(self, request: Request) -> Response:
        who = self._who(request)
        if who is None:
            return Response(status_code=401)
        return JSONResponse({"id": who.id, "login": who.username, "name": who.name, "email": None})

    async def _github_emails(self, request: Request) -> Response:
        who = self._who(request)
        if who is None:
            return Response(status_code=401)
        return JSONResponse(
            [
                {"email": "old@example.com", "primary": False, "verified": False},
                {"email": who.email, "primary": True, "verified": who.verified},
            ]
        )

    async def _gitlab_user(self, request: Request) -> Response:
        who = self._who(request)
        if who is None:
            return Response(status_code=401)
        confirmed = "2026-01-01T00:00:00Z" if who.verified else None
        shown = {"id": who.id, "username": who.username, "name": who.name, "email": who.email}
        return JSONResponse(shown | {"confirmed_at": confirmed})


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """The address of the app on a free loopback port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
        if task.done():
            task.result()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
