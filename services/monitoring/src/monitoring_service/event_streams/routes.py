"""`/api/v1/ws/events` and `/api/v1/events` (WebSocket), `/api/v1/events/stream` (Server-Sent Events)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from monitoring_service.errors import STREAMS_EXHAUSTED
from monitoring_service.event_streams.service import BadFilter, End, Ended, EventStreams, Stream, from_query, subscribed
from servicekit.auth import USERS, CurrentUser
from servicekit.clock import wall_s
from servicekit.errors import AppError, Kind, invalid
from servicekit.http import problems

PATHS = ("/api/v1/ws/events", "/api/v1/events")

BAD_TOKEN = 4401
# The web client stays away after 4401 and connects anew after this one; with the expired token it then meets 4401.
TOKEN_EXPIRED = 4408
TOO_SLOW = 4408
POLICY = 1008
RESTART = 1012
TRY_AGAIN = 1013
CLOSE_CODES = {
    End.SLOW: TOO_SLOW,
    End.EXPIRED: TOKEN_EXPIRED,
    End.REVOKED: BAD_TOKEN,
    End.REMOVED: POLICY,
    End.STOPPING: RESTART,
}
NOT_READY = "Service not ready, please retry"
SEQUENCE_MAX = (1 << 63) - 1
# A client that reads again within this time learns why it was dropped.
CLOSE_S = 5.0

_log = structlog.get_logger(__name__)


def routes(streams: EventStreams) -> list[BaseRoute]:
    """The WebSocket at both paths; it guards itself."""

    async def events(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            principal = await websocket.app.state.authenticator.authenticate_websocket(websocket)
        except AppError as error:
            ready = error.kind is not Kind.UNAVAILABLE
            await _refuse(websocket, *((error.detail, BAD_TOKEN) if ready else (NOT_READY, TRY_AGAIN)))
            return
        if principal.expires_at is not None and principal.expires_at <= wall_s():
            # Signatures are taken for a moment longer, but a stream would end at once and be opened again and again.
            await _refuse(websocket, "The token has expired.", BAD_TOKEN)
            return
        try:
            if principal.type not in USERS:
                raise BadFilter("Event streams are for users and their API keys.")
            query = websocket.query_params
            filters, after = from_query(query), _number(query.get("after"))
        except BadFilter as error:
            await _refuse(websocket, str(error), POLICY)
            return
        try:
            async with streams.open(websocket.app.state.authenticator, principal, filters, after) as stream:
                await _serve(websocket, stream, streams.settings.stream_ping_s, streams.settings.stream_write_s)
        except AppError as error:
            _log.info("event_stream_refused", code=error.code)
            await _refuse(websocket, NOT_READY, TRY_AGAIN)

    return [WebSocketRoute(path, events) for path in PATHS]


def router(streams: EventStreams) -> APIRouter:
    """The same stream as Server-Sent Events."""
    found = APIRouter(prefix="/api/v1/events", tags=["events"])

    @found.get("/stream", response_class=StreamingResponse, responses=problems(STREAMS_EXHAUSTED))
    async def stream_events(
        request: Request,
        user: CurrentUser,
        event_types: Annotated[str | None, Query(max_length=20_000)] = None,
        entity_types: Annotated[str | None, Query(max_length=20_000)] = None,
        entity_ids: Annotated[str | None, Query(max_length=20_000)] = None,
        after: Annotated[int | None, Query(ge=0, le=SEQUENCE_MAX)] = None,
        last_event_id: Annotated[str | None, Header(max_length=32)] = None,
    ) -> StreamingResponse:
        """Frames as `data:` with their number as `id:`; resumes after `Last-Event-ID` or `after`.

        Filters are comma lists. What can no longer be resumed begins with `{"type":"reset"}`. Comments keep the
        connection alive. The stream ends with the credential.
        """
        given = {"event_types": event_types, "entity_types": entity_types, "entity_ids": entity_ids}
        try:
            filters = from_query({key: text for key, text in given.items() if text is not None})
        except BadFilter as error:
            raise invalid(error.key, str(error), where="query") from error
        try:
            start = _number(last_event_id) if last_event_id else after
        except BadFilter as error:
            raise invalid("last-event-id", str(error), last_event_id, where="header") from error
        opened = contextlib.AsyncExitStack()
        stream = await opened.enter_async_context(streams.open(request.app.state.authenticator, user, filters, start))
        return ServerSentEvents(opened, stream, streams.settings.stream_heartbeat_s)

    return found


class ServerSentEvents(StreamingResponse):
    """A stream as the body of an answer; the stream ends with the answer, also where it was never begun."""

    def __init__(self, opened: contextlib.AsyncExitStack, stream: Stream, heartbeat_s: float) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_server_sent(stream, heartbeat_s), media_type="text/event-stream", headers=headers)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client or the stream ends."""
        async with self._opened:
            await super().__call__(scope, receive, send)


async def _server_sent(stream: Stream, heartbeat_s: float) -> AsyncIterator[str]:
    yield ": open\n\n"
    with contextlib.suppress(Ended):
        async with contextlib.aclosing(stream.texts(heartbeat_s)) as batches:
            async for batch in batches:
                if batch:
                    yield "".join(f"id: {sequence}\ndata: {text}\n\n" for sequence, text in batch)
                else:
                    await stream.recheck()
                    yield ": ping\n\n"


async def _serve(websocket: WebSocket, stream: Stream, ping_s: float, write_s: float) -> None:
    """Send and receive until one side ends it."""
    heard = _Heard()
    sender = asyncio.create_task(_send(websocket, stream, heard, ping_s, write_s), name="event-stream-send")
    receiver = asyncio.create_task(_receive(websocket, stream, heard), name="event-stream-receive")
    try:
        watched: set[asyncio.Future[Any]] = {sender, receiver, stream.ended}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sender, receiver):
            task.cancel()
        results = await asyncio.gather(sender, receiver, return_exceptions=True)
    if stream.ended.done():
        await _close(websocket, stream.ended.result())
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, Ended | WebSocketDisconnect):
            raise result


class _Heard:
    """When the client last said something."""

    def __init__(self) -> None:
        self.at = time.monotonic()


async def _send(websocket: WebSocket, stream: Stream, heard: _Heard, ping_s: float, write_s: float) -> None:
    pinged = heard.at

    async def write(text: str) -> None:
        try:
            async with asyncio.timeout(write_s):
                await websocket.send_text(text)
        except TimeoutError:
            stream.subscription.end(End.SLOW)
            raise Ended(End.SLOW) from None

    # Looked at four times a period, because frames that go out do not put a ping off.
    async with contextlib.aclosing(stream.texts(ping_s / 4)) as batches:
        async for batch in batches:
            for _, text in batch:
                await write(text)
            now = time.monotonic()
            if now - max(heard.at, pinged) >= ping_s:
                pinged = now
                await write('{"type":"ping"}')
                await stream.recheck()


async def _receive(websocket: WebSocket, stream: Stream, heard: _Heard) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1005)
        text = message.get("text")
        if text is None:
            continue
        heard.at = time.monotonic()
        answer = _answer(text, stream)
        if answer is not None:
            stream.subscription.put(0, json.dumps(answer))


def _answer(text: str, stream: Stream) -> dict[str, Any] | None:
    """What a client's frame is answered with; None for one that is not ours to understand."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {"error": "Invalid JSON message"}
    if not isinstance(message, dict):
        return {"error": "Invalid JSON message"}
    if message.get("type") != "subscribe":
        return None
    try:
        wanted = subscribed(message)
    except BadFilter as error:
        return {"error": str(error)}
    stream.narrow(stream.subscription.filters.changed(wanted))
    return {"status": "subscribed", "filters": wanted}


def _number(text: str | None) -> int | None:
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or int(text[:20]) > SEQUENCE_MAX:
        raise BadFilter("after must be the number of a frame")
    return int(text[:20])


async def _refuse(websocket: WebSocket, text: str, code: int) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await websocket.send_json({"error": text})
        await websocket.close(code)


async def _close(websocket: WebSocket, reason: End) -> None:
    """Say why; a client that reads nothing is cut off, or what waits for it would stay in memory for as long."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await websocket.close(CLOSE_CODES[reason], reason.value)
    except TimeoutError:
        transport = getattr(getattr(websocket._receive, "__self__", None), "transport", None)
        if transport is not None:
            transport.abort()
    except (WebSocketDisconnect, RuntimeError):
        return
