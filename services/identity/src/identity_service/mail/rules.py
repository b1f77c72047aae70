"""Pure rules of mail: which templates exist, how a message is put together, when it is tried again.

States of a mail:

queued → sending → transmitting → sent. Before SMTP's DATA nothing was handed over, so a mail found in `sending` after a
crash is queued again. Once DATA was begun only the server knows whether it took the mail: found in `transmitting`, it
becomes `uncertain` and is not sent again. The other ends are `failed` (refused, or tried too often), `expired` (its
link is worth nothing any more) and `suppressed` (never to be sent: no mail server, or nobody to send it to).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, parseaddr

OPEN_STATES = ("queued", "sending", "transmitting")
FINAL_STATES = ("sent", "uncertain", "failed", "expired", "suppressed")

# Template → the values that it needs. Each has `<name>.txt`, whose first line is the subject, and `<name>.html`.
TEMPLATES: Mapping[str, frozenset[str]] = {
    "verify_email": frozenset({"url"}),
    "address_taken": frozenset({"login_url", "reset_url"}),
    "reset_password": frozenset({"url"}),
    "password_changed": frozenset({"reset_url"}),
    "session_replayed": frozenset({"device", "reset_url"}),
    "deletion_requested": frozenset({"day", "url"}),
    "deletion_cancelled": frozenset({"reset_url"}),
    "deletion_deferred": frozenset({"organizations", "url"}),
    "account_deleted": frozenset(),
    "invitation": frozenset({"organization", "inviter", "role", "url", "days"}),
}

# With pauses of 5 s, 10 s, … and 15 min at most, 30 attempts last for about six hours.
MAX_ATTEMPTS = 30
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 900.0


def pause_s(attempts: int) -> float:
    """Seconds until the next attempt after `attempts` have failed."""
    return min(_FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 16), _LONGEST_PAUSE_S)


def context_problem(template: str, context: Mapping[str, str]) -> str | None:
    """What is wrong with the values of a template; None when they are the ones it needs."""
    needed = TEMPLATES.get(template)
    if needed is None:
        return f"there is no mail template {template!r}"
    if set(context) != needed:
        return f"mail template {template!r} needs {sorted(needed)}, not {sorted(context)}"
    return None


def one_line(text: str) -> str:
    """The text without line breaks and doubled spaces: a name in a mail adds neither headers nor lines."""
    return " ".join(text.split())


def wire_address(address: str) -> str:
    """The address with its domain in ASCII (IDNA), as SMTP wants it. Raises UnicodeError."""
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.encode('idna').decode('ascii')}"


def message_id(mail_id: str, sender: str) -> str:
    """The Message-ID, the same at every attempt: a server that sees it twice can tell."""
    return f"<{mail_id}@{domain_of(sender)}>"


def domain_of(sender: str) -> str:
    """The domain of `Name <address>` or of a bare address."""
    return parseaddr(sender)[1].rpartition("@")[2]


def compose(
    *, mail_id: str, sender: str, recipient: str, subject: str, text: str, html: str, moment: datetime
) -> bytes:
    """The message as it goes over the wire: plain text, and HTML as its alternative. Raises UnicodeError."""
    address = wire_address(recipient)
    message = EmailMessage(policy=SMTP if address.isascii() else SMTPUTF8)
    message["From"] = sender
    message["To"] = Address(addr_spec=address)
    message["Subject"] = one_line(subject)
    message["Date"] = format_datetime(moment)
    message["Message-ID"] = message_id(mail_id, sender)
    # RFC 3834: nobody's out-of-office reply should come back.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    return message.as_bytes()
