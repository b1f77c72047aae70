"""`/api/v1/auth`: signing in and out, the sessions, the own profile."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from identity_service import errors
from identity_service.auth.schemas import Login, MessageOut, Refresh, SessionsOut, TokenOut, UpdateMe, UserOut
from identity_service.auth.service import AuthService
from servicekit.auth import CurrentUser
from servicekit.http import RateLimit, answer_not_kept, client_address, problems

ACCESS_COOKIE = "omoios_access_token"
REFRESH_COOKIE = "omoios_refresh_token"
STATE_COOKIE = "omoios_auth_state"


def set_cookies(response: Response, pair: TokenOut, *, secure: bool) -> TokenOut:
    """Puts the pair into the contract's cookies as well; returns it."""
    for cookie in pair.cookies():
        response.set_cookie(
            cookie.name, cookie.value, max_age=cookie.max_age_s, httponly=cookie.hidden, secure=secure, samesite="lax"
        )
    response.headers["Cache-Control"] = "no-store"
    return pair


def clear_cookies(response: Response, *, secure: bool) -> None:
    """Takes the contract's cookies back."""
    for name in (ACCESS_COOKIE, REFRESH_COOKIE, STATE_COOKIE):
        response.delete_cookie(name, secure=secure, samesite="lax")


def router(auth: AuthService, *, secure_cookies: bool) -> APIRouter:
    """Signing in and out, the sessions, the own profile."""
    routes = APIRouter(prefix="/api/v1/auth", tags=["auth"])

    @routes.post(
        "/login",
        responses=problems(errors.BAD_CREDENTIALS, errors.LOCKED_OUT, errors.HASHING_BUSY),
        dependencies=[Depends(RateLimit("auth.login", per_minute=5, key=client_address, fail_closed=True))],
    )
    @answer_not_kept
    async def login(body: Login, request: Request, response: Response) -> TokenOut:
        """Sign in: tokens in the answer and as cookies."""
        pair = await auth.login(body, client_address(request), request.headers.get("user-agent"))
        return set_cookies(response, pair, secure=secure_cookies)

    @routes.post(
        "/refresh",
        responses=problems(errors.BAD_REFRESH_TOKEN),
        dependencies=[Depends(RateLimit("auth.refresh", per_minute=120, key=client_address))],
    )
    @answer_not_kept
    async def refresh(request: Request, response: Response, body: Refresh | None = None) -> TokenOut:
        """Exchange the refresh token (body, else cookie) for the next pair."""
        token = body.refresh_token if body is not None else None
        if not token:
            token = request.cookies.get(REFRESH_COOKIE)
            if not token:
                raise errors.BAD_REFRESH_TOKEN(headers={"WWW-Authenticate": "Bearer"})
            # The browser sends the cookie by itself: the page that asks must be one of ours.
            request.app.state.authenticator.check_origin(request.scope)
        pair = await auth.refresh(token, client_address(request))
        return set_cookies(response, pair, secure=secure_cookies)

    @routes.post("/logout")
    async def logout(user: CurrentUser, request: Request, response: Response) -> MessageOut:
        """End this session: its access and refresh tokens are dead everywhere."""
        await auth.logout(user, client_address(request))
        clear_cookies(response, secure=secure_cookies)
        return MessageOut(message="Signed out.")

    @routes.post("/logout-everywhere")
    async def logout_everywhere(user: CurrentUser, request: Request, response: Response) -> MessageOut:
        """End every session, this one included."""
        count = await auth.logout_everywhere(user, client_address(request))
        clear_cookies(response, secure=secure_cookies)
        return MessageOut(message=f"Ended {count} sessions.")

    @routes.get("/sessions")
    async def list_sessions(user: CurrentUser) -> SessionsOut:
        """The own sessions that stand, the one used last first; 100 at most."""
        return SessionsOut(sessions=await auth.list_sessions(user))

    @routes.delete("/sessions/{session_id}", responses=problems(errors.SESSION_NOT_FOUND))
    async def end_session(session_id: UUID, user: CurrentUser, request: Request) -> MessageOut:
        """End one of the own sessions: its tokens are dead everywhere."""
        await auth.end_session(user, str(session_id), client_address(request))
        return MessageOut(message="The session was ended.")

    @routes.get("/me", responses=problems(errors.USER_NOT_FOUND))
    async def me(user: CurrentUser) -> UserOut:
        """The own account."""
        return await auth.me(user)

    @routes.patch("/me", responses=problems(errors.USER_NOT_FOUND))
    async def update_me(body: UpdateMe, user: CurrentUser) -> UserOut:
        """Change the own profile."""
        return await auth.update_me(user, body)

    return routes
