"""A real SMTP server on loopback that tests can make refuse, hang up, or want a login."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Sink:
    """What arrived, and what the server shall answer next. An answer of "" hangs up."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    answer_rcpt: str | None = None
    answer_data: str | None = None
    logins: list[str] = field(default_factory=list)
    tls: list[bool] = field(default_factory=list)

    def to(self, address: str) -> list[EmailMessage]:
        """The mails to one address, oldest first."""
        return [mail for mail, to in zip(self.mails, self.recipients, strict=True) if to == address]

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.answer_rcpt is not None:
            return self.answer_rcpt
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.answer_data == "":
            server.transport.abort()
            return "421 gone"
        if self.answer_data is not None:
            return self.answer_data
        message = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        self.recipients.append(envelope.rcpt_tos[0])
        self.tls.append(session.ssl is not None)
        return "250 kept"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        return AuthResult(success=data.password == b"let me send")


def text_of(mail: EmailMessage) -> str:
    """The plain text of a mail."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def html_of(mail: EmailMessage) -> str:
    """The HTML of a mail."""
    part = mail.get_body(("html",))
    assert part is not None
    return str(part.get_content())


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Sink]:
    """A running server; with `tls` it wants STARTTLS and a login."""
    sink = Sink()
    loop = asyncio.get_running_loop()

    def protocol() -> SMTP:
        secure = {"tls_context": tls, "require_starttls": True, "auth_required": True} if tls is not None else {}
        return SMTP(sink, hostname="localhost", loop=loop, authenticator=sink.authenticate, **secure)

    server = await loop.create_server(protocol, "127.0.0.1", port)
    sink.port = server.sockets[0].getsockname()[1]
    async with server:
        yield sink
