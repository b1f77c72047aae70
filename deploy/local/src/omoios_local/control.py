"""The control socket: one JSON object per line, a request in, progress lines and one answer out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
Send = Callable[[Answer], None]
Handler = Callable[[Answer, Send], Awaitable[Any]]

MAX_LINE_BYTES = 4 * 1024 * 1024


class ControlError(RuntimeError):
    """The supervisor refused or failed; the message is meant for the person at the terminal."""


async def serve(path: Path, handle: Handler) -> asyncio.Server:
    """Listen on a unix socket that only this user may open. `handle(request, send)` returns the result.

    `send(line)` passes a progress line at once. Errors of the handler become the answer's `error`.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(line: Answer) -> None:
            if not writer.is_closing():
                writer.write(json.dumps(line).encode() + b"\n")

        try:
            request = json.loads(await reader.readline())
            try:
                send({"result": await handle(request, send)})
            except (RuntimeError, ValueError, OSError) as error:
                send({"error": str(error) or type(error).__name__, "kind": type(error).__name__})
            await writer.drain()
        except (ConnectionError, json.JSONDecodeError):
            return
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    listener = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return await asyncio.start_unix_server(connected, sock=listener, limit=MAX_LINE_BYTES)


def call(
    path: Path, request: Answer, on_progress: Callable[[Answer], None] = lambda _: None, timeout_s: float = 600.0
) -> Any:
    """Send a request and return its result.

    Raises ControlError with the supervisor's message, ConnectionError when it ended without one.
    """
    for line in _exchange(path, request, timeout_s):
        if "error" in line:
            raise ControlError(line["error"])
        if "result" in line:
            return line["result"]
        on_progress(line)
    raise ConnectionError("the supervisor ended before it answered; its log tells why")


def answers(path: Path) -> bool:
    """Whether a supervisor answers on the socket."""
    try:
        return bool(call(path, {"verb": "ping"}, timeout_s=2.0))
    except (OSError, ControlError, ConnectionError):
        return False


def _exchange(path: Path, request: Answer, timeout_s: float) -> Iterator[Answer]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                yield json.loads(line)
