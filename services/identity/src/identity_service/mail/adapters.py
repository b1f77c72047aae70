"""The mail server, and the templates on disk."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiosmtplib
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from identity_service.mail import rules
from identity_service.settings import Settings
from servicekit.context import assert_no_transaction

# Seconds for connecting, and for each answer of the server.
_TIMEOUT_S = 10.0


class MailServerAway(Exception):
    """The server cannot be reached or will not talk to us. The mail was not handed over."""


class MailRefused(Exception):
    """The server refused this mail. `permanent`: it said that trying again is useless (5xx)."""

    def __init__(self, reason: str, *, permanent: bool) -> None:
        super().__init__(reason)
        self.permanent = permanent


class DeliveryUnknown(Exception):
    """The connection broke after the message had begun to be handed over: the server may have it or not."""


class MailConnection(Protocol):
    """One connection, over which mails go one after another: `offer`, then `transmit` or `withdraw`."""

    async def offer(self, sender: str, recipient: str) -> None:
        """Names sender and recipient. Raises MailServerAway, MailRefused. Nothing was handed over yet."""

    async def transmit(self, message: bytes) -> None:
        """Hands the message over. Raises MailRefused (the server has not taken it), DeliveryUnknown."""

    async def withdraw(self) -> None:
        """Takes the offer back."""


class MailServer(Protocol):
    """Where mails are handed over."""

    def connection(self) -> contextlib.AbstractAsyncContextManager[MailConnection]:
        """A connection that opens at its first offer and closes at the end."""


class SmtpServer:
    """The server of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[MailConnection]:
        connection = SmtpConnection(self._settings)
        try:
            yield connection
        finally:
            await connection.close()


class SmtpConnection:
    """`MailConnection` over SMTP. TLS and login as the settings say."""

    def __init__(self, settings: Settings) -> None:
        password = settings.smtp_password.get_secret_value() if settings.smtp_password is not None else None
        self._smtp = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=password,
            use_tls=settings.smtp_security == "tls",
            start_tls=settings.smtp_security == "starttls",
            local_hostname=rules.domain_of(settings.mail_from),
            timeout=_TIMEOUT_S,
        )

    async def offer(self, sender: str, recipient: str) -> None:
        assert_no_transaction("smtp")
        try:
            address = rules.wire_address(recipient)
        except UnicodeError as error:
            raise MailRefused(f"the recipient's domain cannot be written: {error}", permanent=True) from error
        options = [] if address.isascii() else ["SMTPUTF8"]
        encoding = "ascii" if address.isascii() else "utf-8"
        try:
            if not self._smtp.is_connected:
                await self._smtp.connect()
            await self._smtp.mail(sender, options=options, encoding=encoding)
            await self._smtp.rcpt(address, encoding=encoding)
        except aiosmtplib.SMTPRecipientRefused as error:
            await self.withdraw()
            raise MailRefused(f"recipient: {error.code} {error.message}", permanent=error.code >= 500) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            self._smtp.close()
            raise MailServerAway(f"{type(error).__name__}: {error}") from error

    async def transmit(self, message: bytes) -> None:
        assert_no_transaction("smtp")
        try:
            await self._smtp.data(message)
        except aiosmtplib.SMTPDataError as error:
            raise MailRefused(f"message: {error.code} {error.message}", permanent=error.code >= 500) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            self._smtp.close()
            raise DeliveryUnknown(f"{type(error).__name__}: {error}") from error

    async def withdraw(self) -> None:
        try:
            await self._smtp.rset()
        except (aiosmtplib.SMTPException, OSError):
            self._smtp.close()

    async def close(self) -> None:
        """Says goodbye where there is a connection."""
        if self._smtp.is_connected:
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await self._smtp.quit()
        self._smtp.close()


@dataclass(frozen=True, slots=True)
class Letter:
    """A filled template."""

    subject: str
    text: str
    html: str


class Letters:
    """The templates in `templates/`. Values are escaped in HTML; a value that is missing raises."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("identity_service.mail", "templates"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def fill(self, template: str, context: Mapping[str, str]) -> Letter:
        """Subject, text and HTML. Raises jinja2.TemplateError."""
        text = self._environment.get_template(f"{template}.txt").render(context)
        subject, _, body = text.partition("\n")
        html = self._environment.get_template(f"{template}.html").render(context, subject=subject)
        return Letter(rules.one_line(subject), body.lstrip("\n"), html)
