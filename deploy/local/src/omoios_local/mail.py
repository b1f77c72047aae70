"""`python -m omoios_local.mail PORT DIRECTORY`: an SMTP server on loopback that keeps every mail as an .eml file."""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default as default_policy
from itertools import count
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from omoios_local.embedded.process import LOOPBACK

MAX_MAIL_BYTES = 10 * 1024 * 1024


class MailDirectory:
    """Writes each mail to `<UTC time>-<number>.eml`, under that name only once it is whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = count(1)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{next(self._numbers)}.eml"
        message = message_from_bytes(envelope.original_content or b"", policy=default_policy)
        # The envelope's addresses are what the mail was delivered to; the headers may name others.
        message["X-Envelope-From"] = str(envelope.mail_from)
        message["X-Envelope-To"] = ", ".join(envelope.rcpt_tos)
        temporary = self.directory / f".{name}"
        temporary.write_bytes(message.as_bytes())
        temporary.chmod(0o600)
        temporary.replace(self.directory / name)
        print(f"kept {name}", flush=True)
        return "250 Message kept"


async def serve(port: int, directory: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    keeper = MailDirectory(directory)
    server = await loop.create_server(
        lambda: SMTP(keeper, hostname="omoios.local", data_size_limit=MAX_MAIL_BYTES, loop=loop), LOOPBACK, port
    )
    async with server:
        await ended.wait()


def main(arguments: list[str]) -> None:
    port, directory = int(arguments[0]), Path(arguments[1])
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    asyncio.run(serve(port, directory))


if __name__ == "__main__":
    main(sys.argv[1:])
