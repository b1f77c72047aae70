"""`python -m omoios_local.mail PORT DIRECTORY PAGE_PORT KEY_FILE`: an SMTP server on loopback that keeps every mail.

Each becomes an .eml file in the directory; a page at PAGE_PORT shows them to whoever has the key.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default as default_policy
from itertools import count
from pathlib import Path

import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session

from omoios_local.embedded.process import LOOPBACK
from omoios_local.mailbox import Mailbox
from omoios_local.mailpage import application

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


class _Page(uvicorn.Server):
    """Leaves the process's signals to `serve`, so that page and SMTP server end together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(port: int, directory: Path, page_port: int, key: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    keeper = MailDirectory(directory)
    server = await loop.create_server(
        lambda: SMTP(keeper, hostname="omoios.local", data_size_limit=MAX_MAIL_BYTES, loop=loop), LOOPBACK, port
    )
    app = application(Mailbox(directory), key)
    page = _Page(uvicorn.Config(app, host=LOOPBACK, port=page_port, log_level="warning", access_log=False))
    showing = asyncio.create_task(page.serve())
    waiting = asyncio.create_task(ended.wait())
    async with server:
        await asyncio.wait({showing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    page.should_exit = True
    await showing


def main(arguments: list[str]) -> None:
    port, directory, page_port, key_file = int(arguments[0]), Path(arguments[1]), int(arguments[2]), Path(arguments[3])
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    asyncio.run(serve(port, directory, page_port, key_file.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
