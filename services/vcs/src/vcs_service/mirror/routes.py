"""git over smart HTTP at `/api/v1/git/{project_id}.git`: sandboxes clone and push their own branch with their token.

Requests are authenticated here, because git sends its token as the password of HTTP Basic. Streams pass through in both
directions without being held in memory.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from servicekit.auth import Principal
from servicekit.auth.authenticator import Authenticator
from servicekit.auth.errors import unauthenticated
from servicekit.errors import AppError, Kind
from servicekit.http.body import admit_body
from vcs_service.errors import MALFORMED_PUSH, PUSH_REFUSED
from vcs_service.mirror.service import MirrorService

PATH = "/api/v1/git/{project_id}.git"
READ_SIZE = 64 * 1024
PACK_TIMEOUT_S = 900.0

_log = structlog.get_logger(__name__)
_NO_CACHE = {"Cache-Control": "no-store"}


def routes(mirror: MirrorService, *, max_push_bytes: int) -> list[Route]:
    """The three requests of the protocol."""

    async def info_refs(request: Request) -> Response:
        service = request.query_params.get("service", "")
        if service not in ("git-upload-pack", "git-receive-pack"):
            return PlainTextResponse("Only smart HTTP is served.", status_code=403)
        principal = await _principal(request)
        project_id = request.path_params["project_id"]
        if service == "git-receive-pack":
            repository, _ = await mirror.authorize_push(principal, project_id)
        else:
            repository = await mirror.authorize_fetch(principal, project_id)
        command = service.removeprefix("git-")
        protocol = _protocol(request)
        async with mirror.mirrors.git.serve(
            command, "--stateless-rpc", "--http-backend-info-refs", repository=repository, protocol=protocol
        ) as process:
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(60):
                out, _ = await process.communicate()
        head = b"" if protocol == "version=2" and command == "upload-pack" else _announcement(service)
        return Response(head + out, media_type=f"application/x-{service}-advertisement", headers=_NO_CACHE)

    async def upload_pack(request: Request) -> Response:
        principal = await _principal(request)
        repository = await mirror.authorize_fetch(principal, request.path_params["project_id"])
        return await _exchange(request, mirror, "upload-pack", repository, _body(request, max_push_bytes))

    async def receive_pack(request: Request) -> Response:
        principal = await _principal(request)
        repository, refs = await mirror.authorize_push(principal, request.path_params["project_id"])
        body = _body(request, max_push_bytes)
        head = await _commands(mirror, body, refs)
        return await _exchange(request, mirror, "receive-pack", repository, _chain(head, body))

    return [
        Route(f"{PATH}/info/refs", _answering(info_refs), methods=["GET"]),
        Route(f"{PATH}/git-upload-pack", _answering(upload_pack), methods=["POST"]),
        Route(f"{PATH}/git-receive-pack", _answering(receive_pack), methods=["POST"]),
    ]


def _answering(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turns errors into answers that git shows: one line of text, and the challenge that makes it send its password."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except AppError as error:
            headers = dict(error.headers)
            if error.kind is Kind.UNAUTHENTICATED:
                headers["WWW-Authenticate"] = 'Basic realm="OmoiOS"'
            if error.retry_after_s is not None:
                headers["Retry-After"] = str(int(error.retry_after_s) or 1)
            return PlainTextResponse(f"{error.code}: {error.detail}\n", status_code=error.kind.status, headers=headers)

    return answer


async def _principal(request: Request) -> Principal:
    authenticator: Authenticator = request.app.state.authenticator
    header = request.headers.get("authorization", "")
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return await authenticator.authenticate_credential(value.strip())
    if scheme.lower() != "basic":
        raise unauthenticated()
    try:
        _, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise unauthenticated() from error
    return await authenticator.authenticate_credential(password)


def _protocol(request: Request) -> str | None:
    """`version=2` when the client asks for it; nothing else of the header reaches the process."""
    return "version=2" if request.headers.get("git-protocol", "") == "version=2" else None


def _announcement(service: str) -> bytes:
    line = f"# service={service}\n".encode()
    return f"{len(line) + 4:04x}".encode() + line + b"0000"


async def _body(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body's bytes, unzipped where git zipped them. Raises 413 beyond `limit`, of unzipped bytes as well."""
    admit_body(request.scope, limit)
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS) if request.headers.get("content-encoding") == "gzip" else None
    total = 0
    async for chunk in request.stream():
        while chunk:
            part = unzip.decompress(chunk, READ_SIZE) if unzip is not None else chunk
            chunk = unzip.unconsumed_tail if unzip is not None else b""
            total += len(part)
            if total > limit:
                raise PUSH_REFUSED(f"The push is larger than {limit} bytes.")
            if part:
                yield part
            elif not chunk:
                break


async def _commands(mirror: MirrorService, body: AsyncIterator[bytes], refs: list[str]) -> bytes:
    """What was read of the body until its commands were complete. Raises for any ref but the allowed ones."""
    data = b""
    async for part in body:
        data += part
        if mirror.check_push(data, refs):
            return data
    raise MALFORMED_PUSH()


async def _chain(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for part in rest:
        yield part


class _PackResponse(StreamingResponse):
    """Begins with the first part of its body, and never reads the request.

    The base class would read the request as well, to notice a disconnect, and so take parts of the pack away.
    """

    def __init__(self, parts: AsyncIterator[bytes], media_type: str) -> None:
        super().__init__(parts, media_type=media_type, headers=_NO_CACHE)
        self._parts = parts

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        self.body_iterator = _chain(await anext(self._parts, b""), self._parts)
        await self.stream_response(send)


async def _exchange(
    request: Request, mirror: MirrorService, command: str, repository: Path, body: AsyncIterator[bytes]
) -> Response:
    async def stream() -> AsyncIterator[bytes]:
        async with (
            asyncio.timeout(PACK_TIMEOUT_S),
            mirror.mirrors.git.serve(
                command, "--stateless-rpc", repository=repository, protocol=_protocol(request)
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            feeding = asyncio.create_task(_feed(process, body))
            complaints = asyncio.create_task(process.stderr.read(64 * 1024))
            try:
                part = await process.stdout.read(READ_SIZE)
                # A proxy that is written in Go drops what is left of a request once it passes an answer on: the pack
                # would arrive with a hole.
                await feeding
                while part:
                    yield part
                    part = await process.stdout.read(READ_SIZE)
                await process.wait()
                if process.returncode:
                    _log.info("git_ended", command=command, code=process.returncode, error=(await complaints)[-500:])
            finally:
                for task in (feeding, complaints):
                    task.cancel()
                await asyncio.gather(feeding, complaints, return_exceptions=True)

    return _PackResponse(stream(), f"application/x-git-{command}-result")


async def _feed(process: asyncio.subprocess.Process, body: AsyncIterator[bytes]) -> None:
    """Hands the body on. What cannot be read to its end must not look complete: the process is killed instead."""
    assert process.stdin is not None
    try:
        async for part in body:
            process.stdin.write(part)
            await process.stdin.drain()
        process.stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        # The process has ended before it read all; its answer says why, and the rest is of no use.
        return
    except (ClientDisconnect, AppError) as error:
        _log.info("pack_not_received", error=str(error))
        with contextlib.suppress(ProcessLookupError):
            process.kill()
