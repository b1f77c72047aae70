"""Operators' commands, run with the service's environment: `python -m identity_service.admin <command>`."""

from __future__ import annotations

import argparse
import asyncio
import sys

from identity_service.audit import service as audit
from identity_service.audit.service import AuditService
from identity_service.auth.adapters import Argon2Passwords, RedisLoginGuard
from identity_service.auth.service import AuthService
from identity_service.credentials import service as credentials
from identity_service.envelope.rules import Envelope, SealBroken
from identity_service.mail import service as mails
from identity_service.mail.service import MailService
from identity_service.oauth import service as oauth
from identity_service.settings import Settings
from identity_service.tokens import service as tokens
from identity_service.tokens.service import TokenService
from servicekit.db import Database
from servicekit.errors import AppError
from servicekit.redis import RedisClient


def _mail_without_server(db: Database, settings: Settings) -> MailService:
    # Commands queue no mail; those that are queued are the worker's to send.
    return MailService(db, settings, Envelope.from_base64(settings.envelope_key_text), None)


def _tokens(db: Database, settings: Settings) -> TokenService:
    envelope = Envelope.from_base64(settings.envelope_key_text)
    return TokenService(db, settings, envelope, _mail_without_server(db, settings))


async def _make_admin(settings: Settings, email: str) -> str:
    db = Database(settings)
    redis = RedisClient(settings)
    await db.start()
    try:
        issuer = _tokens(db, settings)
        guard = RedisLoginGuard(redis.raw, settings.login_failures, settings.login_window_s)
        auth = AuthService(db, issuer, Argon2Passwords(1, 1), guard)
        user = await auth.make_super_admin(email)
    finally:
        await redis.close()
        await db.close()
    return f"{user.email} is a platform super admin; sign in again to use it."


async def _rotate_signing_key(settings: Settings) -> str:
    db = Database(settings)
    await db.start()
    try:
        issuer = _tokens(db, settings)
        await issuer.ensure_keys()
        key_id, previous = await issuer.rotate_key()
    finally:
        await db.close()
    return f"{key_id} signs from now on; tokens of {previous} stay valid until they expire."


async def _reseal(settings: Settings) -> str:
    db = Database(settings)
    envelope = Envelope.from_base64(settings.envelope_key_text)
    await db.start()
    try:
        done = 0
        for room in (tokens, audit, credentials, oauth, mails):
            done += await room.reseal(db, envelope)
    finally:
        await db.close()
    return f"{done} secrets were sealed anew; all are under the first envelope key."


async def _mails(settings: Settings) -> str:
    db = Database(settings)
    await db.start()
    try:
        mail = _mail_without_server(db, settings)
        lines = [f"{state:<12} {count}" for state, count in sorted((await mail.counts()).items())]
        for row in await mail.unsent(50):
            lines.append(
                f"{row.updated_at:%Y-%m-%d %H:%M} {row.state} {row.template} to {row.recipient}: {row.last_error}"
            )
    finally:
        await db.close()
    return "\n".join(lines) or "No mail was ever queued."


async def _verify_audit(settings: Settings) -> tuple[str, bool]:
    """(what to print, whether every chain holds)."""
    db = Database(settings)
    await db.start()
    try:
        results = await AuditService(db, Envelope.from_base64(settings.envelope_key_text)).verify()
    finally:
        await db.close()
    lines = []
    for result in results:
        if result.broken is not None:
            chain = f"organization {result.chain}" if result.chain else "accounts"
            entry = result.broken.entry_id or "no entry"
            lines.append(f"BROKEN {chain}: position {result.broken.position}, {entry}: {result.broken.reason}")
    whole = not lines
    total = sum(result.entries for result in results)
    lines.append(f"{len(results)} chains, {total} entries verified, {len(lines)} broken.")
    return "\n".join(lines), whole


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m identity_service.admin", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make_admin = commands.add_parser("make-admin", help="make an account a platform super admin")
    make_admin.add_argument("--email", required=True)
    commands.add_parser("rotate-signing-key", help="let the next key sign")
    commands.add_parser("reseal", help="seal anew under the first envelope key what a later one in the list sealed")
    commands.add_parser("mails", help="mails by state, and those that nobody got for certain")
    commands.add_parser("verify-audit", help="walk every chain of the audit trail; exit code 1 when one is broken")
    options = parser.parse_args(arguments)
    settings = Settings()
    whole = True
    try:
        if options.command == "make-admin":
            answer = asyncio.run(_make_admin(settings, options.email))
        elif options.command == "verify-audit":
            answer, whole = asyncio.run(_verify_audit(settings))
        elif options.command == "reseal":
            answer = asyncio.run(_reseal(settings))
        elif options.command == "mails":
            answer = asyncio.run(_mails(settings))
        else:
            answer = asyncio.run(_rotate_signing_key(settings))
        sys.stdout.write(answer + "\n")
    except AppError as error:
        sys.stderr.write(f"{error.code}: {error.detail}\n")
        return 1
    except SealBroken as error:
        sys.stderr.write(f"A secret cannot be opened: {error}. Keep every key that the list has.\n")
        return 1
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
