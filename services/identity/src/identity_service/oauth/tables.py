"""Tables of provider identities and of sign-ins under way."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, func, text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class OAuthIdentity(Base):
    """A user's account at a provider, with its sealed tokens.

    `signs_in`: it opens the user's account; false for tokens that a super admin copied. `refreshing_until`: an instance
    is exchanging the refresh token; a refresh token that is used twice ends the grant at some providers.
    """

    __tablename__ = "oauth_identities"
    __table_args__ = (
        Index(
            "uq_oauth_identities_provider_user",
            "provider",
            "provider_user_id",
            unique=True,
            postgresql_where=text("signs_in"),
        ),
        Index("uq_oauth_identities_user_provider", "user_id", "provider", unique=True),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    provider: Mapped[str]
    provider_user_id: Mapped[str]
    signs_in: Mapped[bool] = mapped_column(server_default=text("true"))
    email: Mapped[str | None]
    username: Mapped[str | None]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    sealed_access_token: Mapped[bytes | None] = mapped_column(LargeBinary)
    sealed_refresh_token: Mapped[bytes | None] = mapped_column(LargeBinary)
    access_expires_at: Mapped[datetime | None]
    refreshing_until: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class OAuthState(Base):
    """A browser that was sent to a provider. Used once: the row is deleted when it comes back.

    `user_id`: the account that is being connected, None for a sign-in. `browser_digest`: SHA-256 of the cookie of the
    browser that began.
    """

    __tablename__ = "oauth_states"
    __table_args__ = (Index("ix_oauth_states_expires_at", "expires_at"),)

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    provider: Mapped[str]
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    sealed_verifier: Mapped[bytes] = mapped_column(LargeBinary)
    nonce: Mapped[str]
    browser_digest: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime]
