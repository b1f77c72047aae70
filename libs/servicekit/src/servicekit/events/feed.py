"""A pull consumer that is bound to a durable, never made: topology belongs to one job."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from servicekit.events.bus import Bus

BATCH = 100
REQUEST_S = 20.0
# The longest that a delivered event waits for its followers, and only while there are some.
GATHER_S = 0.01
# Bounds the memory of one answer; a longer message ends the request early.
MAX_BYTES = 8 * 1024 * 1024


class PullFeed:
    """Keeps one request for up to 100 messages open at the server and buffers what arrives."""

    def __init__(self, bus: Bus, stream: str, durable: str) -> None:
        self._bus = bus
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._buffer: deque[Msg] = deque()
        self._arrived = asyncio.Event()
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._wanted = 0
        self._expires = 0.0
        self._interrupted = False

    @property
    def buffered(self) -> list[Msg]:
        """The messages that were delivered and not yet taken."""
        return list(self._buffer)

    async def open(self) -> None:
        """Subscribe on the connection of now; what was buffered from an older one is dropped."""
        await self.close()
        self._client = self._bus.client
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(
            self._inbox, cb=self._receive, pending_msgs_limit=BATCH * 4, pending_bytes_limit=MAX_BYTES * 4
        )

    async def close(self) -> None:
        """Unsubscribe and give back what was not taken, so that another instance gets it at once."""
        left, self._buffer = self._buffer, deque()
        subscription, self._subscription = self._subscription, None
        self._wanted = 0
        if self._client is not None and self._client.is_connected:
            with contextlib.suppress(Exception):
                for message in left:
                    await message.nak()
                if subscription is not None:
                    await subscription.unsubscribe()

    def interrupted(self) -> None:
        """Forget the open request, for the connection it was made on is gone, and let `take` return."""
        self._wanted = 0
        self._interrupted = True
        self._arrived.set()

    async def take(self, timeout_s: float) -> list[Msg]:
        """Return up to 100 messages in their order.

        The list is empty when none came within `timeout_s`, or before `interrupted`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            await self._request()
            if self._buffer:
                await self._gather()
                count = min(BATCH, len(self._buffer))
                return [self._buffer.popleft() for _ in range(count)]
            left = deadline - time.monotonic()
            if left <= 0 or self._interrupted:
                self._interrupted = False
                return []
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._arrived.wait()

    async def _gather(self) -> None:
        """Let a batch grow while the server has more: a transaction of 100 events costs little more than one of 5."""
        until = time.monotonic() + GATHER_S
        while len(self._buffer) < BATCH and self._buffer[-1].metadata.num_pending > 0:
            left = until - time.monotonic()
            if left <= 0 or self._interrupted:
                return
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._arrived.wait()

    async def _request(self) -> None:
        """Ask for the next messages as soon as the last request is used up, also while a batch is being handled."""
        now = time.monotonic()
        if self._wanted > 0 and now < self._expires:
            return
        if len(self._buffer) >= BATCH:
            return
        assert self._client is not None
        self._wanted = BATCH
        # The server ends the request by itself; the second covers an answer that was lost with a connection.
        self._expires = now + REQUEST_S + 1.0
        ask = {"batch": BATCH, "expires": int(REQUEST_S * 1e9), "max_bytes": MAX_BYTES}
        await self._client.publish(self._next, json.dumps(ask).encode(), reply=self._inbox)

    async def _receive(self, message: Msg) -> None:
        if message.reply:
            self._buffer.append(message)
            self._wanted -= 1
        elif message.headers and message.headers.get("Status", "100") != "100":
            # 404, 408 and 409 end the request: nothing there, expired, or the server's limits.
            self._wanted = 0
        self._arrived.set()
        if self._wanted <= 0 and message.reply:
            await self._request()
