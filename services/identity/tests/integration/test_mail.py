"""Mails: an intent in a transaction, sent once by the worker's job, through a real SMTP server."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import text

from identity_service.admin import main
from identity_service.envelope.rules import Envelope
from identity_service.mail import rules
from identity_service.mail.adapters import MailConnection, MailServer, SmtpServer
from identity_service.mail.service import MailService
from identity_service.settings import Settings
from servicekit.db import Database

from .smtp import Sink, html_of, serving, text_of

CONTEXT = {"url": "http://localhost:3000/verify-email?token=secret&x=1"}


@pytest.fixture
async def db(database: Any) -> AsyncIterator[Database]:
    async with database("identity").opened() as opened:
        yield opened


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with serving() as running:
        yield running


Make = Callable[..., MailService]


@pytest.fixture
def make(db: Database, settings: dict[str, Any]) -> Make:
    def made(port: int | None, server: MailServer | None = None, **changes: Any) -> MailService:
        smtp = {"smtp_host": "127.0.0.1", "smtp_port": port, "smtp_security": "none"} if port is not None else {}
        chosen = Settings(env="test", **(settings | smtp | changes))
        default = SmtpServer(chosen) if port is not None else None
        return MailService(db, chosen, Envelope.from_base64(chosen.envelope_key_text), server or default)

    return made


@pytest.fixture
def row(db: Database) -> Callable[[], Awaitable[Any]]:
    async def read() -> Any:
        async with db.reader() as tx:
            return (await tx.session.execute(text("SELECT * FROM mails ORDER BY id DESC LIMIT 1"))).one()

    return read


async def queue(db: Database, mail: MailService, key: str = "k", to: str = "ada@example.com", **options: Any) -> None:
    async with db.uow() as tx:
        await mail.queue(tx, "verify_email", to, CONTEXT, key, **options)


async def due_now(db: Database) -> None:
    async with db.uow() as tx:
        await tx.session.execute(text("UPDATE mails SET due_at = now() WHERE state = 'queued'"))


async def test_a_mail_is_sent_once_as_text_and_html(db: Database, make: Make, sink: Sink, row: Any) -> None:
    mail = make(sink.port)
    await queue(db, mail)
    assert b"secret" not in bytes((await row()).sealed_context)
    await mail.send_due()
    await mail.send_due()
    (sent,) = sink.mails
    assert sink.recipients == ["ada@example.com"]
    assert sent["Subject"] == "Confirm your e-mail address"
    assert CONTEXT["url"] in text_of(sent)
    assert "token=secret&amp;x=1" in html_of(sent)
    kept = await row()
    assert sent["Message-ID"] == f"<{kept.id}@omoios.invalid>"
    assert (kept.state, kept.attempts, kept.sealed_context) == ("sent", 1, None)


async def test_a_transaction_that_fails_sends_nothing(db: Database, make: Make, sink: Sink) -> None:
    mail = make(sink.port)
    with pytest.raises(LookupError):
        async with db.uow() as tx:
            await mail.queue(tx, "verify_email", "ada@example.com", CONTEXT, "k")
            raise LookupError
    await mail.send_due()
    assert sink.mails == []


async def test_one_mail_for_one_key(db: Database, make: Make, sink: Sink) -> None:
    mail = make(sink.port)
    await queue(db, mail, "a")
    await queue(db, mail, "a")
    await queue(db, mail, "b")
    await mail.send_due()
    assert len(sink.mails) == 2


async def test_values_are_escaped_and_kept_on_one_line(db: Database, make: Make, sink: Sink) -> None:
    mail = make(sink.port)
    values = {"organization": "<b>Evil</b>\r\nBcc: all@example.com", "inviter": "Eve", "role": "member", "days": "7"}
    async with db.uow() as tx:
        await mail.queue(tx, "invitation", "ada@example.com", values | {"url": "http://x/i"}, "k")
    await mail.send_due()
    (sent,) = sink.mails
    assert sent["Bcc"] is None
    assert sent["Subject"] == "Eve invites you to <b>Evil</b> Bcc: all@example.com"
    assert "<b>Evil" not in html_of(sent)


async def test_missing_values_are_the_caller_s_error(db: Database, make: Make, sink: Sink) -> None:
    with pytest.raises(ValueError, match="needs"):
        async with db.uow() as tx:
            await make(sink.port).queue(tx, "verify_email", "ada@example.com", {}, "k")


@pytest.mark.parametrize("template", sorted(rules.TEMPLATES))
async def test_every_template_is_written(db: Database, make: Make, sink: Sink, template: str) -> None:
    mail = make(sink.port)
    values = {name: f"value-of-{name}" for name in rules.TEMPLATES[template]}
    async with db.uow() as tx:
        await mail.queue(tx, template, "ada@example.com", values, "k")
    await mail.send_due()
    (sent,) = sink.mails
    for value in values.values():
        assert value in sent["Subject"] + text_of(sent)
        assert value in html_of(sent)


async def test_a_domain_with_umlauts_is_written_in_ascii(db: Database, make: Make, sink: Sink) -> None:
    mail = make(sink.port)
    await queue(db, mail, to="ada@müller.example")
    await mail.send_due()
    assert sink.recipients == ["ada@xn--mller-kva.example"]


async def test_a_server_that_is_away_is_tried_again(db: Database, make: Make, sink: Sink, row: Any) -> None:
    await queue(db, make(1))
    await make(1).send_due()
    waiting = await row()
    assert (waiting.state, waiting.attempts) == ("queued", 1)
    assert "Connect" in waiting.last_error
    await make(sink.port).send_due()
    assert sink.mails == []  # It is not due yet.
    await due_now(db)
    await make(sink.port).send_due()
    assert len(sink.mails) == 1


@pytest.mark.parametrize(
    ("rcpt", "data", "state"),
    [
        ("550 no such user", None, "failed"),
        ("451 greylisted", None, "queued"),
        (None, "554 looks like spam", "failed"),
        (None, "452 disk full", "queued"),
        (None, "", "uncertain"),
    ],
)
async def test_what_the_server_answers_decides(
    db: Database, make: Make, sink: Sink, row: Any, rcpt: str | None, data: str | None, state: str
) -> None:
    mail = make(sink.port)
    await queue(db, mail)
    sink.answer_rcpt, sink.answer_data = rcpt, data
    await mail.send_due()
    assert (await row()).state == state
    sink.answer_rcpt = sink.answer_data = None
    await due_now(db)
    await mail.send_due()
    assert len(sink.mails) == (1 if state == "queued" else 0)
    unsent = await mail.unsent(10)
    assert [found.state for found in unsent] == ([] if state == "queued" else [state])


async def test_a_refused_mail_does_not_hold_up_the_next(db: Database, make: Make, sink: Sink) -> None:
    mail = make(sink.port)
    await queue(db, mail, "a", to="x" * 80 + "@example.com")
    await queue(db, mail, "b", to="bob@" + "y" * 70 + ".example")  # No label of a domain has 70 letters.
    await queue(db, mail, "c", to="ada@example.com")
    await mail.send_due()
    assert len(sink.to("ada@example.com")) == 1


@pytest.mark.parametrize(("left_in", "mails", "state"), [("sending", 1, "sent"), ("transmitting", 0, "uncertain")])
async def test_what_a_dead_sender_left_behind(
    db: Database, make: Make, sink: Sink, row: Any, left_in: str, mails: int, state: str
) -> None:
    mail = make(sink.port)
    await queue(db, mail)
    async with db.uow() as tx:
        await tx.session.execute(text(f"UPDATE mails SET state = '{left_in}', attempts = 1"))
    await mail.send_due()
    assert len(sink.mails) == mails
    assert (await row()).state == state


async def test_a_sender_that_overslept_hands_nothing_over(db: Database, make: Make, sink: Sink) -> None:
    """Between its offer and DATA another leader takes the mail over and sends it."""
    other = make(sink.port)

    class Slow:
        def __init__(self, inner: MailServer) -> None:
            self._inner = inner

        @asynccontextmanager
        async def connection(self) -> AsyncIterator[MailConnection]:
            async with self._inner.connection() as connection:
                offer = connection.offer

                async def slow_offer(sender: str, recipient: str) -> None:
                    await offer(sender, recipient)
                    await other.send_due()

                connection.offer = slow_offer  # type: ignore[method-assign]
                yield connection

    settings = Settings(env="test", smtp_host="127.0.0.1", smtp_port=sink.port, smtp_security="none")
    slow = make(sink.port, server=Slow(SmtpServer(settings)))
    await queue(db, slow)
    await slow.send_due()
    assert len(sink.mails) == 1


async def test_a_link_that_is_dead_is_not_sent(db: Database, make: Make, sink: Sink, row: Any) -> None:
    mail = make(sink.port)
    await queue(db, mail, useful_for=dt.timedelta(0))
    await mail.send_due()
    assert sink.mails == []
    assert (await row()).state == "expired"


async def test_without_a_server_nothing_is_kept_for_later(db: Database, make: Make, sink: Sink, row: Any) -> None:
    mail = make(None)
    assert not mail.enabled
    await queue(db, mail)
    kept = await row()
    assert (kept.state, kept.sealed_context) == ("suppressed", None)
    await make(sink.port).send_due()
    assert sink.mails == []
    assert await mail.counts() == {"suppressed": 1}


async def test_starttls_and_login(
    db: Database, make: Make, row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = certified(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serving(context) as sink:
        login = {"smtp_host": "localhost", "smtp_security": "starttls", "smtp_username": "omoios"}
        mail = make(sink.port, **login, smtp_password="let me send")
        await queue(db, mail)
        await make(sink.port, **login, smtp_password="wrong").send_due()
        assert (await row()).state == "queued"
        await due_now(db)
        await mail.send_due()
        assert len(sink.mails) == 1
        assert sink.tls == [True]
        assert set(sink.logins) == {"omoios"}


async def test_a_server_with_a_foreign_certificate_gets_nothing(
    db: Database, make: Make, row: Any, tmp_path: Path
) -> None:
    context, _ = certified(tmp_path)
    async with serving(context) as sink:
        login = {"smtp_security": "starttls", "smtp_username": "omoios", "smtp_password": "let me send"}
        mail = make(sink.port, **login)
        await queue(db, mail)
        await mail.send_due()
        assert sink.logins == []
        assert (await row()).state == "queued"


@pytest.mark.parametrize(
    "bad",
    [
        {"smtp_username": "x"},
        {"smtp_username": "x", "smtp_password": "y", "smtp_security": "none"},
        {"mail_from": "nobody"},
        {"frontend_url": "javascript:alert(1)"},
        {"env": "production", "smtp_host": "mail.example.com"},
    ],
)
def test_settings_that_would_not_work_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"smtp|mail_from|http"):
        Settings(**({"env": "test"} | bad))


def test_operators_see_what_nobody_got(
    database: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = database("identity")

    async def refused() -> None:
        async with made.opened() as db, serving() as sink:
            chosen = Settings(env="test", smtp_host="127.0.0.1", smtp_port=sink.port, smtp_security="none", **settings)
            envelope = Envelope.from_base64(chosen.envelope_key_text)
            mail = MailService(db, chosen, envelope, SmtpServer(chosen))
            sink.answer_rcpt = "550 no such user"
            await queue(db, mail, to="nobody@example.com")
            await mail.send_due()

    asyncio.run(refused())
    monkeypatch.setenv("OMOIOS_DATABASE_URL", made.url)
    monkeypatch.setenv("OMOIOS_ENVELOPE_KEY", settings["envelope_key"])
    assert main(["mails"]) == 0
    told = capsys.readouterr().out
    assert "failed       1" in told
    assert "verify_email to nobody@example.com: recipient: 550" in told


def certified(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for `localhost`, and the file of the certificate that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = folder / "key.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return context, pem
