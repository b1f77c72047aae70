"""The SMTP sink keeps what it is sent."""

import smtplib
import stat
import sys
from email import message_from_bytes
from email.message import EmailMessage

import httpx2
import pytest

from omoios_local.embedded.process import Command, base_environment, free_port, spawn
from omoios_local.parts import MailPart


@pytest.fixture
def sink(tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text("the key of the page")
    part = MailPart(free_port(), tmp_path / "mail", free_port(), key_file, base_environment)
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


def test_the_page_shows_mails_to_whoever_has_the_key(sink):
    message = EmailMessage()
    message["Subject"] = "<b>Confirm</b>"
    message["From"] = "OmoiOS <no-reply@omoios.local>"
    message["To"] = "ada@example.com"
    message.set_content("Open http://localhost:3000/verify-email?token=abc\n")
    message.add_alternative("<p>Open <script>alert(1)</script></p>", subtype="html")
    with smtplib.SMTP("127.0.0.1", sink.port, timeout=5) as client:
        client.send_message(message)
    [file] = sink.directory.glob("*.eml")
    base = f"http://127.0.0.1:{sink.page_port}"
    with httpx2.Client(base_url=base, trust_env=False, follow_redirects=True) as http:
        for path in ("/", "/mails.json", f"/mails/{file.name}", f"/mails/{file.name}/html", "/?key=wrong"):
            assert http.get(path).status_code == 401
        http.cookies.clear()
        listing = http.get("/", params={"key": "the key of the page"})
        assert listing.status_code == 200
        assert "key=" not in str(listing.url)
        assert "&lt;b&gt;Confirm" in listing.text
        shown = http.get(f"/mails/{file.name}")
        assert 'href="http://localhost:3000/verify-email?token=abc"' in shown.text
        assert "sandbox" in http.get(f"/mails/{file.name}/html").headers["content-security-policy"]
        for name in ("no.eml", "..%2Fkey", "20260101T000000.000000Z-1.eml"):
            assert http.get(f"/mails/{name}").status_code == 404
    answer = httpx2.get(
        f"{base}/mails.json?to=ada@example.com", headers={"Authorization": "Bearer the key of the page"}
    )
    [mail] = answer.json()
    assert mail["links"] == ["http://localhost:3000/verify-email?token=abc"]
    other = httpx2.get(f"{base}/mails.json?to=bob@example.com", headers={"Authorization": "Bearer the key of the page"})
    assert other.json() == []
