"""A new envelope key: every secret is sealed anew, and sessions of before go on while the old key is kept."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from identity_service import admin
from identity_service.audit.service import AuditService
from identity_service.envelope.rules import Envelope
from identity_service.mail.service import MailService
from identity_service.tokens.service import TokenService
from servicekit.errors import AppError

from .conftest import Identity

NEW = base64.b64encode(b"n" * 32).decode()
SEALED = {
    "signing_keys": "sealed_private_jwk",
    "audit_heads": "sealed_key",
    "user_credentials": "sealed_key",
    "oauth_identities": "sealed_access_token",
    "mails": "sealed_context",
}


async def sealed(identity: Identity) -> dict[str, list[bytes]]:
    async with identity.running.service.db.reader() as tx:
        connection = await tx.connection()
        found = {}
        for table, column in SEALED.items():
            rows = await connection.fetch(
                f"SELECT {column} AS value FROM {table} WHERE {column} IS NOT NULL ORDER BY 1"
            )
            found[table] = sorted(row["value"] for row in rows)
    return found


def issuer(identity: Identity, keys: str) -> TokenService:
    db, settings = identity.running.service.db, identity.running.service.settings
    envelope = Envelope.from_base64(keys)
    return TokenService(db, settings, envelope, MailService(db, settings, envelope, None))


async def test_every_secret_is_sealed_anew_and_sessions_go_on(
    identity: Identity, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    old = settings["envelope_key"]
    envelope = Envelope.from_base64(old)
    ada = await identity.person()
    saved = await identity.http.post(
        "/api/v1/credentials/openai", json={"api_key": "sk-abcdefghijklmnop"}, headers=ada.headers
    )
    assert saved.status_code < 300, saved.text
    async with identity.running.service.db.uow() as tx:
        connection = await tx.connection()
        await connection.execute(
            "INSERT INTO oauth_identities (id, user_id, provider, provider_user_id, sealed_access_token)"
            " VALUES ('one', $1, 'github', '7', $2)",
            ada.id,
            envelope.seal(b"token", f"oauth-access:github:{ada.id}"),
        )
    await AuditService(identity.running.service.db, envelope).seal_due()
    before = await sealed(identity)
    assert all(before[table] for table in ("signing_keys", "audit_heads", "user_credentials", "oauth_identities"))
    url = identity.running.service.settings.database_url
    assert url is not None
    monkeypatch.setenv("OMOIOS_DATABASE_URL", url)
    monkeypatch.setenv("OMOIOS_ENVELOPE_KEY", f"{NEW}\n{base64.b64encode(b'x' * 32).decode()}")
    assert await asyncio.to_thread(admin.main, ["reseal"]) == 1, "a key that was dropped too early is said"
    assert await sealed(identity) == before
    monkeypatch.setenv("OMOIOS_ENVELOPE_KEY", f"{NEW}\n{old}")
    assert await asyncio.to_thread(admin.main, ["reseal"]) == 0
    total = sum(len(values) for values in before.values())
    assert f"{total} secrets were sealed anew" in capsys.readouterr().out
    assert await asyncio.to_thread(admin.main, ["reseal"]) == 0
    assert "0 secrets were sealed anew" in capsys.readouterr().out
    # Whatever its purpose is, the new key alone unwraps every value and the old one none.
    monkeypatch.setenv("OMOIOS_ENVELOPE_KEY", NEW)
    assert await asyncio.to_thread(admin.main, ["reseal"]) == 0
    assert await asyncio.to_thread(admin.main, ["verify-audit"]) == 0
    monkeypatch.setenv("OMOIOS_ENVELOPE_KEY", old)
    assert await asyncio.to_thread(admin.main, ["reseal"]) == 1
    both = issuer(identity, f"{NEW} {old}")
    await both.ensure_keys()
    pair = await both.refresh(ada.refresh_token, None)
    alone = issuer(identity, NEW)
    await alone.ensure_keys()
    assert (await alone.refresh(pair.refresh_token, None)).access_token
    with pytest.raises(AppError):
        await alone.refresh(ada.refresh_token, None)
