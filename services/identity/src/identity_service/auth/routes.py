"""`/api/v1/auth`."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from identity_service import errors
from identity_service.auth.schemas import (
    ApiKeyOut,
    ApiKeyWithSecretOut,
    ChangePassword,
    CreateApiKey,
    Login,
    MessageOut,
    Refresh,
    Register,
    TokenOut,
    UpdateMe,
    UserOut,
)
from identity_service.auth.service import AuthService
from servicekit.auth import CurrentUser
from servicekit.http import RateLimit, answer_not_kept, client_address, problems

ACCESS_COOKIE = "omoios_access_token"
REFRESH_COOKIE = "omoios_refresh_token"
STATE_COOKIE = "omoios_auth_state"


def router(auth: AuthService, *, secure_cookies: bool) -> APIRouter:
    """Registration, signing in and out, the own account, API keys."""
    routes = APIRouter(prefix="/api/v1/auth", tags=["auth"])

    def set_cookies(response: Response, pair: TokenOut) -> TokenOut:
        for cookie in pair.cookies():
            response.set_cookie(
                cookie.name,
                cookie.value,
                max_age=cookie.max_age_s,
                httponly=cookie.hidden,
                secure=secure_cookies,
                samesite="lax",
            )
        response.headers["Cache-Control"] = "no-store"
        return pair

    @routes.post(
        "/register",
        status_code=201,
        responses=problems(errors.EMAIL_TAKEN, errors.HASHING_BUSY),
        dependencies=[Depends(RateLimit("auth.register", per_hour=3, key=client_address, fail_closed=True))],
    )
    async def register(body: Register, request: Request) -> UserOut:
        """Make an account. Signing in works before the address is verified."""
        return await auth.register(body, client_address(request))

    @routes.post(
        "/login",
        responses=problems(errors.BAD_CREDENTIALS, errors.LOCKED_OUT, errors.HASHING_BUSY),
        dependencies=[Depends(RateLimit("auth.login", per_minute=5, key=client_address, fail_closed=True))],
    )
    @answer_not_kept
    async def login(body: Login, request: Request, response: Response) -> TokenOut:
        """Sign in: tokens in the answer and as cookies."""
        pair = await auth.login(body, client_address(request), request.headers.get("user-agent"))
        return set_cookies(response, pair)

    @routes.post("/refresh", responses=problems(errors.BAD_REFRESH_TOKEN))
    @answer_not_kept
    async def refresh(request: Request, response: Response, body: Refresh | None = None) -> TokenOut:
        """Exchange the refresh token (body, else cookie) for the next pair."""
        token = (body.refresh_token if body is not None else None) or request.cookies.get(REFRESH_COOKIE)
        if not token:
            raise errors.BAD_REFRESH_TOKEN(headers={"WWW-Authenticate": "Bearer"})
        return set_cookies(response, await auth.refresh(token, client_address(request)))

    @routes.post("/logout")
    async def logout(user: CurrentUser, request: Request, response: Response) -> MessageOut:
        """End this session: its access and refresh tokens are dead everywhere."""
        await auth.logout(user, client_address(request))
        for name in (ACCESS_COOKIE, REFRESH_COOKIE, STATE_COOKIE):
            response.delete_cookie(name, secure=secure_cookies, samesite="lax")
        return MessageOut(message="Signed out.")

    @routes.get("/me", responses=problems(errors.USER_NOT_FOUND))
    async def me(user: CurrentUser) -> UserOut:
        """The own account."""
        return await auth.me(user)

    @routes.patch("/me", responses=problems(errors.USER_NOT_FOUND))
    async def update_me(body: UpdateMe, user: CurrentUser) -> UserOut:
        """Change the own profile."""
        return await auth.update_me(user, body)

    @routes.post("/change-password", responses=problems(errors.WRONG_PASSWORD, errors.HASHING_BUSY))
    async def change_password(body: ChangePassword, user: CurrentUser, request: Request) -> MessageOut:
        """Set another password; all other sessions end."""
        await auth.change_password(user, body, client_address(request))
        return MessageOut(message="The password was changed.")

    @routes.post(
        "/api-keys", status_code=201, responses=problems(errors.TOO_MANY_API_KEYS, errors.ORGANIZATION_NOT_FOUND)
    )
    @answer_not_kept
    async def create_api_key(body: CreateApiKey, user: CurrentUser) -> ApiKeyWithSecretOut:
        """Make an API key; the secret is shown this once."""
        return await auth.create_api_key(user, body)

    @routes.get("/api-keys")
    async def list_api_keys(user: CurrentUser) -> list[ApiKeyOut]:
        """The own API keys, newest first."""
        return await auth.list_api_keys(user)

    @routes.delete("/api-keys/{key_id}", responses=problems(errors.API_KEY_NOT_FOUND))
    async def end_api_key(key_id: UUID, user: CurrentUser) -> MessageOut:
        """End an API key."""
        await auth.end_api_key(user, str(key_id))
        return MessageOut(message="The key was ended.")

    return routes
