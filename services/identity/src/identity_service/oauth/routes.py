"""`/api/v1/oauth`, and the same at `/api/v1/auth/oauth`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BeforeValidator

from identity_service import errors
from identity_service.oauth.schemas import (
    AuthUrlOut,
    ConnectedProvidersOut,
    CopiedOut,
    CopyFrom,
    DisconnectedOut,
    ProvidersOut,
    RedirectUriOut,
)
from identity_service.oauth.service import Begun, Callback, OAuthService
from servicekit.auth import CurrentUser
from servicekit.http import RateLimit, answer_not_kept, client_address, problems

BROWSER_COOKIE = "omoios_oauth_browser"
# Longer than a state lives, so that a browser that begins again keeps it.
_BROWSER_AGE_S = 1800

Name = Annotated[
    str,
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$"),
]
Text = Annotated[str | None, Query(max_length=4096)]


def router(oauth: OAuthService, *, prefix: str, tag: str, secure_cookies: bool) -> APIRouter:
    """Signing in with other providers, and connecting their accounts; mounted twice, under a tag each."""
    routes = APIRouter(prefix=prefix, tags=[tag])
    begin_problems = problems(errors.PROVIDER_NOT_CONFIGURED, errors.PROVIDER_UNREACHABLE)
    limited = [Depends(RateLimit("oauth.begin", per_minute=30, key=client_address))]

    def bind(response: Response, begun: Begun) -> Begun:
        response.set_cookie(
            BROWSER_COOKIE,
            begun.browser,
            max_age=_BROWSER_AGE_S,
            path="/api/v1",
            httponly=True,
            secure=secure_cookies,
            samesite="lax",
        )
        response.headers["Cache-Control"] = "no-store"
        return begun

    @routes.get("/providers")
    async def list_providers() -> ProvidersOut:
        """Providers that people may sign in with."""
        return oauth.list_providers()

    @routes.get("/connected", responses=problems(errors.NOT_APPROVED))
    async def list_connected(user: CurrentUser) -> ConnectedProvidersOut:
        """The caller's connected accounts."""
        return await oauth.connected(user)

    @routes.get("/{provider}/redirect-uri")
    async def redirect_uri(provider: Name) -> RedirectUriOut:
        """The address to register at a provider."""
        return oauth.redirect_uri(provider)

    @routes.get("/{provider}/url", responses=begin_problems, dependencies=limited)
    async def sign_in_url(provider: Name, request: Request, response: Response) -> AuthUrlOut:
        """Start signing in: where the browser has to go."""
        return bind(response, await oauth.begin(provider, request.cookies.get(BROWSER_COOKIE))).out

    @routes.get(
        "/{provider}/callback",
        status_code=307,
        response_class=RedirectResponse,
        dependencies=[Depends(RateLimit("oauth.callback", per_minute=60, key=client_address, fail_closed=True))],
    )
    async def callback(
        request: Request,
        provider: Name,
        code: Text = None,
        state: Text = None,
        error: Text = None,
        error_description: Text = None,
    ) -> RedirectResponse:
        """Where a provider sends the browser back to; it goes on to the web client."""
        finished = await oauth.finish(
            Callback(
                provider=provider,
                code=code,
                state=state,
                error=(error_description or error) if error else None,
                browser=request.cookies.get(BROWSER_COOKIE),
                address=client_address(request),
                user_agent=request.headers.get("user-agent"),
            )
        )
        answer = RedirectResponse(finished.location, status_code=307, headers={"Cache-Control": "no-store"})
        for cookie in finished.cookies:
            answer.set_cookie(
                cookie.name,
                cookie.value,
                max_age=cookie.max_age_s,
                httponly=cookie.hidden,
                secure=secure_cookies,
                samesite="lax",
            )
        return answer

    @routes.get(
        "/{provider}",
        status_code=307,
        response_class=RedirectResponse,
        responses=begin_problems,
        dependencies=limited,
    )
    async def sign_in(provider: Name, request: Request) -> RedirectResponse:
        """Start signing in: goes to the provider."""
        begun = await oauth.begin(provider, request.cookies.get(BROWSER_COOKIE))
        answer = RedirectResponse(begun.out.auth_url, status_code=307)
        bind(answer, begun)
        return answer

    @routes.post(
        "/{provider}/connect",
        responses=begin_problems | problems(errors.NOT_APPROVED),
        dependencies=limited,
    )
    @answer_not_kept
    async def connect(provider: Name, user: CurrentUser, request: Request, response: Response) -> AuthUrlOut:
        """Start connecting an account: where the browser has to go."""
        return bind(response, await oauth.begin_connect(user, provider, request.cookies.get(BROWSER_COOKIE))).out

    @routes.post(
        "/{provider}/copy-from",
        responses=problems(errors.USER_NOT_FOUND, errors.SOURCE_NOT_CONNECTED, errors.NOT_APPROVED),
    )
    async def copy_tokens(provider: Name, body: CopyFrom, user: CurrentUser, request: Request) -> CopiedOut:
        """Take over another user's access to a provider (platform super admins; written down at both)."""
        return await oauth.copy_from(user, provider, body.source_email, client_address(request))

    @routes.delete(
        "/{provider}/disconnect",
        responses=problems(errors.PROVIDER_NOT_CONNECTED, errors.LAST_SIGN_IN_METHOD, errors.NOT_APPROVED),
    )
    async def disconnect(provider: Name, user: CurrentUser, request: Request) -> DisconnectedOut:
        """Forget an account of a provider."""
        await oauth.disconnect(user, provider, client_address(request))
        return DisconnectedOut(message="The account is not connected any more.")

    return routes
