"""Keys, tokens, sessions and revocations."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from identity_service import events
from identity_service.audit import service as audit
from identity_service.envelope import service as resealing
from identity_service.envelope.rules import Envelope
from identity_service.errors import BAD_REFRESH_TOKEN, SERVICE_REFUSED
from identity_service.mail.service import MailService
from identity_service.settings import Settings
from identity_service.tokens import rules, store
from identity_service.tokens.tables import Revocation, Session, SigningKey
from identity_service.users import service as users
from identity_service.users.tables import User
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.ids import new_id

# A retired key stays published for longer than the longest token lives (24 h, an agent's).
RETIRED_KEY_KEPT = timedelta(hours=25)
REVOCATION_KEPT = timedelta(hours=26)
SERVICE_TOKEN_TTL_S = 3600
SANDBOX_TOKEN_TTL_S = 3600
AGENT_TOKEN_TTL_S = 24 * 3600
LISTED_SESSIONS = 100
_KEY_PURPOSE = "signing-key"


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a client keeps after signing in. `expires_in` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A signed token and the moment it ends."""

    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SandboxSubject:
    """What a sandbox token is bound to."""

    organization_id: str
    project_id: str
    agent_id: str
    task_id: str
    sandbox_id: str
    attempt: int


class TokenService:
    """Signs with the active key; keeps the published keys in memory and reads them again by `reload`."""

    def __init__(self, db: Database, settings: Settings, envelope: Envelope, mail: MailService) -> None:
        self._db = db
        self._settings = settings
        self._envelope = envelope
        self._mail = mail
        self._active: ECKey | None = None
        self._active_id = ""
        self._jwks: dict[str, Any] = {"keys": []}

    # Keys

    async def ensure_keys(self) -> None:
        """Makes the first active and next key where there are none, then loads all."""
        async with self._db.uow() as tx:
            await store.lock_keys(tx)
            states = {key.state for key in await store.list_keys(tx)}
            for state in {"active", "next"} - states:
                await self._make_key(tx, state)
        await self.reload()

    async def reload(self) -> None:
        """Reads the keys again; other instances may have rotated them."""
        async with self._db.reader() as tx:
            keys = await store.list_keys(tx)
        for key in keys:
            if key.state == "active" and key.id != self._active_id:
                private = json.loads(self._envelope.open(key.sealed_private_jwk, _KEY_PURPOSE))
                self._active, self._active_id = ECKey.import_key(private), key.id
        self._jwks = {"keys": [key.public_jwk for key in keys]}

    async def rotate_key(self) -> tuple[str, str]:
        """The next key signs from now on, the active one is only published, a new next one is made.

        Returns (new key id, previous key id). Tokens of the previous key stay valid until they expire.
        """
        async with self._db.uow() as tx:
            await store.lock_keys(tx)
            by_state = {key.state: key.id for key in await store.list_keys(tx) if key.state != "retiring"}
            previous, following = by_state["active"], by_state["next"]
            await store.set_key_state(tx, previous, "retiring")
            await store.set_key_state(tx, following, "active")
            await self._make_key(tx, "next")
            events.signing_key_rotated(tx, following, previous)
            await audit.record(tx, "signing_key.rotated", actor_id=None, actor_type="operator", key_id=following)
        await self.reload()
        return following, previous

    async def jwks(self) -> dict[str, Any]:
        """The JWKS document: active, next and retiring keys."""
        if not self._jwks["keys"]:
            await self.reload()
        return self._jwks

    async def purge(self) -> None:
        """Drops keys, sessions and revocations that no living token can need."""
        async with self._db.uow() as tx:
            await store.drop_retired_keys(tx, RETIRED_KEY_KEPT)
            await store.purge_sessions(tx)
            await store.purge_revocations(tx, REVOCATION_KEPT)

    async def _make_key(self, tx: Tx, state: str) -> None:
        key_id = new_id("key-")
        pair = ECKey.generate_key("P-256", parameters={"kid": key_id, "use": "sig", "alg": "ES256"})
        private = json.dumps(pair.as_dict(private=True)).encode()
        await store.add_key(
            tx,
            id=key_id,
            state=state,
            public_jwk=pair.as_dict(private=False),
            sealed_private_jwk=self._envelope.seal(private, _KEY_PURPOSE),
        )

    # Tokens

    def sign(self, principal_type: str, subject: str, ttl_s: int, **claims: Any) -> IssuedToken:
        """A token of the active key for `subject`, `ttl_s` seconds long. Raises RuntimeError before keys are loaded."""
        if self._active is None:
            raise RuntimeError("the signing keys are not loaded")
        issued_at = int(utc_now().timestamp())
        body = {
            "iss": self._settings.jwt_issuer,
            "aud": self._settings.jwt_audience,
            "sub": subject,
            "pt": principal_type,
            "iat": issued_at,
            "exp": issued_at + ttl_s,
            "jti": new_id(),
            **claims,
        }
        header = {"alg": "ES256", "typ": "at+jwt", "kid": self._active_id}
        token = jwt.encode(header, body, self._active, algorithms=["ES256"])
        return IssuedToken(token, datetime.fromtimestamp(issued_at + ttl_s, UTC))

    def service_token(self, service: str, secret: str) -> IssuedToken:
        """A service token in exchange for the service's own secret. Raises `identity.service_refused`."""
        digest = hashlib.sha256(secret.encode()).hexdigest()
        expected = self._settings.service_secrets.get(service, "0" * 64)
        if not hmac.compare_digest(digest, expected):
            raise SERVICE_REFUSED()
        return self.sign("service", service, SERVICE_TOKEN_TTL_S)

    def agent_token(self, organization_id: str, agent_id: str, ttl_s: int) -> IssuedToken:
        """A token for a registered agent; `ttl_s` 0 means a day."""
        ttl_s = min(max(ttl_s or AGENT_TOKEN_TTL_S, 60), AGENT_TOKEN_TTL_S)
        return self.sign("agent", agent_id, ttl_s, org=organization_id, agent=agent_id)

    def sandbox_token(self, subject: SandboxSubject, ttl_s: int) -> IssuedToken:
        """A token for one attempt at one task; `ttl_s` 0 means an hour."""
        ttl_s = min(max(ttl_s or SANDBOX_TOKEN_TTL_S, 60), SANDBOX_TOKEN_TTL_S)
        return self.sign(
            "sandbox",
            subject.sandbox_id,
            ttl_s,
            org=subject.organization_id,
            project=subject.project_id,
            agent=subject.agent_id,
            task=subject.task_id,
            sandbox=subject.sandbox_id,
            attempt=subject.attempt,
        )

    # Sessions

    async def open_session(self, tx: Tx, user: User, *, address: str | None, user_agent: str | None) -> TokenPair:
        """A new session of the user with its first pair of tokens."""
        session_id = new_id()
        await store.add_session(
            tx,
            id=session_id,
            user_id=user.id,
            expires_at=utc_now() + timedelta(seconds=self._settings.session_ttl_s),
            address=address,
            user_agent=(user_agent or "")[:512] or None,
        )
        # Times in tokens are whole seconds: one that is signed within the second of a revocation would look older.
        revoked = await store.revoked_at(tx, "user", user.id)
        return self._pair(user, session_id, 1, not_earlier=math.ceil(revoked.timestamp()) if revoked is not None else 0)

    async def refresh(self, refresh_token: str, address: str | None) -> TokenPair:
        """The next pair of a session.

        Raises `identity.bad_refresh_token` (401) for an unknown, ended, expired or replayed one; a replay ends the
        whole session.
        """
        token = rules.parse(refresh_token)
        if token is None or not any(rules.is_genuine(token, key) for key in self._refresh_keys(token.session_id)):
            raise BAD_REFRESH_TOKEN()
        pair: TokenPair | None = None
        async with self._db.uow() as tx:
            session = await store.find_session(tx, token.session_id)
            if session is None:
                raise BAD_REFRESH_TOKEN()
            user = await users.find(tx, session.user_id)
            decision = rules.decide(
                presented=token.generation,
                current=session.generation,
                rotated_ago_s=float(session.rotated_ago_s),
                ended=session.ended or user is None or not user.is_active,
                expired=session.expired,
            )
            if user is not None and decision is rules.Refresh.ROTATE:
                await store.advance_session(tx, token.session_id, token.generation + 1, address)
                pair = self._pair(user, token.session_id, token.generation + 1)
            elif user is not None and decision is rules.Refresh.REPEAT:
                pair = self._pair(user, token.session_id, session.generation)
            elif decision is rules.Refresh.REPLAYED:
                await self._end_replayed(tx, session.user_id, user, token, session.user_agent, address)
        if pair is None:
            raise BAD_REFRESH_TOKEN()
        return pair

    async def _end_replayed(
        self,
        tx: Tx,
        user_id: str,
        user: User | None,
        token: rules.RefreshToken,
        user_agent: str | None,
        address: str | None,
    ) -> None:
        """Ends a family of which somebody holds a copy; says it, writes it down, and tells the owner."""
        await self.end_sessions(tx, user_id, "refresh_token_reuse", only=token.session_id)
        events.session_replayed(tx, user_id, token.session_id, token.generation)
        await audit.record(
            tx,
            "refresh_token_reuse",
            actor_id=user_id,
            address=address,
            session_id=token.session_id,
            generation=token.generation,
        )
        if user is not None:
            context = {"device": rules.device_of(user_agent), "reset_url": self._mail.link("/forgot-password")}
            await self._mail.queue(tx, "session_replayed", user.email, context, f"replayed:{token.session_id}")

    async def live_sessions(self, tx: Tx, user_id: str) -> Sequence[Session]:
        """The user's sessions that stand, the one used last first."""
        return await store.list_live_sessions(tx, user_id, LISTED_SESSIONS)

    async def end_sessions(
        self, tx: Tx, user_id: str, reason: str, *, only: str | None = None, keep: str | None = None
    ) -> list[str]:
        """Ends sessions of the user and every token of theirs; returns the ids of those that were live."""
        ended = await store.end_sessions(tx, user_id, reason, only=only, keep=keep)
        for session_id in ended:
            await self.revoke(tx, "session", session_id, reason)
        return ended

    async def revoke(
        self, tx: Tx, principal_type: str, principal_id: str, reason: str, organization_id: str | None = None
    ) -> datetime:
        """Every token of the principal issued up to now is dead, everywhere; returns that moment."""
        not_before = await store.revoke(tx, principal_type, principal_id)
        events.principal_revoked(tx, principal_type, principal_id, not_before, reason, organization_id)
        return not_before

    async def revoke_principal(
        self, principal_type: str, principal_id: str, reason: str, organization_id: str | None
    ) -> datetime:
        """`revoke` as a use case of its own, for the services that end agents and sandboxes."""
        async with self._db.uow() as tx:
            await audit.record(
                tx,
                "principal.revoked",
                actor_id=principal_id,
                actor_type=principal_type,
                organization_id=organization_id,
                reason=reason,
            )
            return await self.revoke(tx, principal_type, principal_id, reason, organization_id)

    async def page_revocations(self, after: tuple[str, str], limit: int) -> list[Revocation]:
        """A page of revocations by (type, id)."""
        async with self._db.reader() as tx:
            return list(await store.list_revocations(tx, after, limit))

    def _pair(self, user: User, session_id: str, generation: int, *, not_earlier: int = 0) -> TokenPair:
        ttl_s = self._settings.access_token_ttl_s
        extra: dict[str, Any] = {"sa": True} if user.is_super_admin else {}
        if not_earlier > utc_now().timestamp():
            extra |= {"iat": not_earlier, "exp": not_earlier + ttl_s}
        access = self.sign("user", user.id, ttl_s, sid=session_id, **extra)
        refresh = rules.encode(self._refresh_keys(session_id)[0], session_id, generation)
        return TokenPair(access.token, refresh, ttl_s)

    def _refresh_keys(self, session_id: str) -> list[bytes]:
        return self._envelope.derive("refresh-token", session_id.encode())


async def reseal(db: Database, envelope: Envelope) -> int:
    """Seals under the present envelope key what an earlier one sealed; returns how many values."""
    return await resealing.reseal(db, envelope, SigningKey.sealed_private_jwk, lambda _: _KEY_PURPOSE)
