"""`/api/v1/auth`: making accounts, confirming addresses, passwords.

What a stranger may ask answers the same for every address.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.params import Depends as DependsMarker

from identity_service import errors
from identity_service.auth.account_service import AccountService
from identity_service.auth.schemas import (
    AddressOnly,
    ChangePassword,
    MessageOut,
    Register,
    ResetPassword,
    SetPassword,
    UserOut,
    VerifyEmail,
)
from servicekit.auth import CurrentUser
from servicekit.http import RateLimit, client_address, problems


def router(accounts: AccountService) -> APIRouter:
    """Registration, addresses, passwords."""
    routes = APIRouter(prefix="/api/v1/auth", tags=["auth"])

    def limited(name: str, per_hour: int) -> list[DependsMarker]:
        return [Depends(RateLimit(f"auth.{name}", per_hour=per_hour, key=client_address, fail_closed=True))]

    @routes.post(
        "/register",
        status_code=201,
        responses=problems(errors.HASHING_BUSY),
        dependencies=limited("register", 3),
    )
    async def register(body: Register, request: Request) -> UserOut:
        """Make an account; a mail asks to confirm its address. Signing in works before that.

        An address that has an account is answered alike, and its owner gets a mail.
        """
        return await accounts.register(body, client_address(request))

    @routes.post("/resend-verification", dependencies=limited("resend_verification", 3))
    async def resend_verification(body: AddressOnly) -> MessageOut:
        """Mail another link that confirms the address."""
        await accounts.resend_verification(body.email)
        return MessageOut(message="If this address has an unconfirmed account, a mail is on its way.")

    @routes.post(
        "/verify-email", responses=problems(errors.BAD_ACCOUNT_TOKEN), dependencies=limited("verify_email", 10)
    )
    async def verify_email(body: VerifyEmail, request: Request) -> MessageOut:
        """Confirm the address by the secret of the mailed link, once."""
        await accounts.verify_email(body.token, client_address(request))
        return MessageOut(message="The address is confirmed.")

    @routes.post("/forgot-password", dependencies=limited("forgot_password", 3))
    async def forgot_password(body: AddressOnly) -> MessageOut:
        """Mail a link that sets another password."""
        await accounts.forgot_password(body.email)
        return MessageOut(message="If this address has an account, a mail is on its way.")

    @routes.post(
        "/reset-password",
        responses=problems(errors.BAD_ACCOUNT_TOKEN, errors.HASHING_BUSY),
        dependencies=limited("reset_password", 10),
    )
    async def reset_password(body: ResetPassword, request: Request) -> MessageOut:
        """Set another password by the secret of the mailed link, once; every session ends."""
        await accounts.reset_password(body, client_address(request))
        return MessageOut(message="The password was changed. Sign in with it.")

    @routes.post(
        "/change-password",
        responses=problems(errors.WRONG_PASSWORD, errors.NO_PASSWORD, errors.USER_NOT_FOUND, errors.HASHING_BUSY),
        # By account: whoever stole an access token must not guess the password with it.
        dependencies=[Depends(RateLimit("auth.change_password", per_hour=10, fail_closed=True))],
    )
    async def change_password(body: ChangePassword, user: CurrentUser, request: Request) -> MessageOut:
        """Set another password; all other sessions end."""
        await accounts.change_password(user, body, client_address(request))
        return MessageOut(message="The password was changed.")

    @routes.post(
        "/set-password",
        responses=problems(errors.PASSWORD_IS_SET, errors.USER_NOT_FOUND, errors.HASHING_BUSY),
        dependencies=[Depends(RateLimit("auth.set_password", per_hour=10, fail_closed=True))],
    )
    async def set_password(body: SetPassword, user: CurrentUser, request: Request) -> MessageOut:
        """A first password for an account that signs in by a provider; all other sessions end."""
        await accounts.set_password(user, body, client_address(request))
        return MessageOut(message="The password was set.")

    return routes
