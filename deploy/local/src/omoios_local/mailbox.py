"""The mails that the SMTP sink kept, read back."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

# As `mail.MailDirectory` names them: UTC time and number, so that names sort by arrival.
_NAME = re.compile(r"^\d{8}T\d{6}\.\d{6}Z-\d+\.eml$")
_LINK = re.compile(r"https?://[^\s<>\"]+")


@dataclass(frozen=True)
class KeptMail:
    """One mail as it was delivered. `name` is its file's."""

    name: str
    to: str
    sender: str
    subject: str
    date: str
    text: str
    html: str

    @property
    def links(self) -> list[str]:
        """The addresses in the plain text."""
        return _LINK.findall(self.text)


@dataclass(frozen=True)
class Mailbox:
    """The mails below one folder."""

    directory: Path

    def mails(self, to: str | None = None, limit: int = 200) -> list[KeptMail]:
        """The latest `limit` mails, newest first; `to` keeps those of one address."""
        names = sorted((path.name for path in self.directory.glob("*.eml") if _NAME.match(path.name)), reverse=True)
        found: list[KeptMail] = []
        for name in names:
            mail = self.mail(name)
            if mail is not None and (to is None or to in mail.to.split(", ")):
                found.append(mail)
                if len(found) == limit:
                    break
        return found

    def secret(self, to: str, path: str, ceiling_s: float = 30.0) -> str:
        """The `token` of the newest mailed link to a path of the web client. Raises TimeoutError when none comes."""
        deadline = time.monotonic() + ceiling_s
        while True:
            for mail in self.mails(to):
                for link in map(urlsplit, mail.links):
                    if link.path == path:
                        return parse_qs(link.query)["token"][0]
            if time.monotonic() > deadline:
                raise TimeoutError(f"no mail to {to} with a link to {path} within {ceiling_s:g} s")
            time.sleep(0.1)

    def mail(self, name: str) -> KeptMail | None:
        """One mail; None when there is none of that name."""
        if not _NAME.match(name):
            return None
        try:
            content = (self.directory / name).read_bytes()
        except FileNotFoundError:
            return None
        message = message_from_bytes(content, policy=default_policy)
        assert isinstance(message, EmailMessage)
        return KeptMail(
            name=name,
            to=str(message["X-Envelope-To"]),
            sender=str(message["From"]),
            subject=str(message["Subject"]),
            date=str(message["Date"]),
            text=_part(message, "plain"),
            html=_part(message, "html"),
        )


def _part(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    return str(part.get_content()) if part is not None else ""
