"""The SMTP sink keeps what it is sent."""

import smtplib
import stat
import sys
from email import message_from_bytes
from email.message import EmailMessage

import pytest

from omoios_local.embedded.process import Command, base_environment, free_port, spawn
from omoios_local.parts import MailPart


@pytest.fixture
def sink(tmp_path):
    part = MailPart(free_port(), tmp_path / "mail", base_environment)
    part.prepare()
    assert not part.ready()
    command: Command = part.command()
    assert command.argv[0] == sys.executable
    with (tmp_path / "mail.log").open("ab") as log:
        process = spawn(command, log)
    try:
        while not part.ready():
            assert process.poll() is None
        yield part
    finally:
        process.terminate()
        assert process.wait(5) == 0


def test_mail_is_kept_whole_and_private(sink):
    message = EmailMessage()
    message["Subject"] = "Confirm your address – ünïcode"
    message["From"] = "OmoiOS <no-reply@omoios.local>"
    message["To"] = "ada@example.com"
    message.set_content("Follow the link.\n.\nA line with one dot stands above.\n")
    with smtplib.SMTP("127.0.0.1", sink.port, timeout=5) as client:
        client.send_message(message, to_addrs=["ada@example.com", "hidden@example.com"])
    [file] = sink.directory.glob("*.eml")
    kept = message_from_bytes(file.read_bytes())
    assert kept["X-Envelope-To"] == "ada@example.com, hidden@example.com"
    assert "one dot stands above" in kept.get_payload(decode=True).decode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_oversized_mail_is_refused(sink):
    with smtplib.SMTP("127.0.0.1", sink.port, timeout=5) as client, pytest.raises(smtplib.SMTPException):
        client.sendmail("a@example.com", ["b@example.com"], b"Subject: big\r\n\r\n" + b"x" * 11_000_000)
    assert list(sink.directory.glob("*.eml")) == []
