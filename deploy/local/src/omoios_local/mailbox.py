"""The mails that the SMTP sink kept, read back."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.parser import BytesHeaderParser
from email.policy import default as policy
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

# As `mail.MailDirectory` names them: UTC time and number, so that names sort by arrival.
_NAME = re.compile(r"^\d{8}T\d{6}\.\d{6}Z-\d+\.eml$")
_PAUSE_S = 0.02
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
        return list(itertools.islice(self._newest(to), limit))

    def secret(self, to: str, path: str, ceiling_s: float = 30.0) -> str:
        """The `token` of the newest mailed link to a path of the web client. Raises TimeoutError when none comes."""
        deadline = time.monotonic() + ceiling_s
        while True:
            for mail in self._newest(to):
                for link in map(urlsplit, mail.links):
                    if link.path == path:
                        return parse_qs(link.query)["token"][0]
            if time.monotonic() > deadline:
                raise TimeoutError(f"no mail to {to} with a link to {path} within {ceiling_s:g} s")
            time.sleep(_PAUSE_S)

    def _newest(self, to: str | None) -> Iterator[KeptMail]:
        """The mails to an address, or all, newest first; each is read when it is asked for."""
        for name in sorted(
            (path.name for path in self.directory.glob("*.eml") if _NAME.match(path.name)), reverse=True
        ):
            # Reading a whole mail takes ten times as long as reading its headers.
            if to is not None and to not in _recipients(
                BytesHeaderParser(policy=policy).parsebytes(self._content(name))
            ):
                continue
            mail = self.mail(name)
            if mail is not None:
                yield mail

    def _content(self, name: str) -> bytes:
        """The file of a mail; nothing when there is none."""
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            return b""

    def mail(self, name: str) -> KeptMail | None:
        """One mail; None when there is none of that name."""
        if not _NAME.match(name):
            return None
        content = self._content(name)
        if not content:
            return None
        message = message_from_bytes(content, policy=policy)
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


def _recipients(message: Message) -> list[str]:
    """The addresses that a mail was delivered to."""
    return str(message["X-Envelope-To"]).split(", ")


def _part(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    return str(part.get_content()) if part is not None else ""
