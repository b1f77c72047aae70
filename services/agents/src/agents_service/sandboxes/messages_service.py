"""Messages to the worker in a sandbox: queued by people and services, delivered once, in order."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agents_service import events
from agents_service.errors import MESSAGE_QUEUE_FULL, SANDBOX_ENDED
from agents_service.sandboxes import rules, store
from agents_service.sandboxes.schemas import MessageCreate, MessageOut, MessageQueued
from agents_service.sandboxes.service import SandboxService
from agents_service.sandboxes.tables import Sandbox, SandboxMessage
from agents_service.sandboxes.wakeups_service import Wakeups
from servicekit.auth import Principal, PrincipalType
from servicekit.db import Tx
from servicekit.errors import invalid
from servicekit.ids import new_id

POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class ServiceMessage:
    """A message from another service; the same id twice is one message."""

    message_id: str
    sandbox_id: str
    content: str
    message_type: str
    sender_id: str


class MessageService:
    """The queues of all sandboxes."""

    def __init__(self, sandboxes: SandboxService, wakeups: Wakeups) -> None:
        self.sandboxes = sandboxes
        self.wakeups = wakeups

    async def post(self, principal: Principal, sandbox_id: str, body: MessageCreate) -> MessageQueued:
        """Queue a message. Raises 404, 409 for an ended sandbox or a full queue, 422 for a long one."""
        if len(body.content.encode()) > rules.MESSAGE_MAX_BYTES:
            raise invalid("content", f"must have at most {rules.MESSAGE_MAX_BYTES} bytes")
        sandbox = await self.sandboxes.readable(principal, sandbox_id, "task:write")
        message_id = new_id("msg-")
        async with self.sandboxes.db.uow() as tx:
            await self._queue(tx, sandbox, message_id, body.content, body.message_type, principal.subject)
            return tx.result(MessageQueued(message_id=message_id, sandbox_id=sandbox_id))

    async def read(
        self,
        principal: Principal,
        sandbox_id: str,
        wait_s: float,
        gone: Callable[[], Awaitable[bool]],
        after: str | None = None,
    ) -> list[MessageOut]:
        """The waiting messages: the sandbox (or its agent) takes them, anyone else only sees them.

        `after`: the last message that the sandbox got, empty before the first. Only those up to it are taken then, so
        that an answer that was lost is given again. Without it (None) what is answered is taken at once.
        `wait_s`: how long a sandbox waits for the first one. `gone` tells whether the client has left. Raises 404.
        """
        sandbox = await self.sandboxes.readable(principal, sandbox_id)
        takes = principal.type in {PrincipalType.SANDBOX, PrincipalType.AGENT}
        if takes and after:
            async with self.sandboxes.db.uow() as tx:
                await store.acknowledge(tx, sandbox_id, after)
        deadline = time.monotonic() + (wait_s if takes else 0.0)
        while True:
            if not takes or after is not None:
                async with self.sandboxes.db.reader() as tx:
                    seen = await store.waiting(tx, sandbox_id)
                if seen or not takes:
                    return [_out(row) for row in seen]
            else:
                async with self.sandboxes.db.reader() as tx:
                    pending = await store.count_waiting(tx, sandbox_id)
            if after is None and pending:
                async with self.sandboxes.db.uow() as tx:
                    rows = await store.take(tx, sandbox_id)
                if rows:
                    return [_out(row) for row in rows]
            left = deadline - time.monotonic()
            if left <= 0 or sandbox.state == rules.ENDED or self.wakeups.closed or await gone():
                return []
            await self.wakeups.wait(sandbox_id, min(POLL_S, left))

    async def send(self, messages: Sequence[ServiceMessage]) -> list[str]:
        """Queue messages for another service; returns the ids of those that wait now, known ones included."""
        accepted: list[str] = []
        found = {sandbox.id: sandbox for sandbox in await self.sandboxes.batch([item.sandbox_id for item in messages])}
        for message in messages:
            sandbox = found.get(message.sandbox_id)
            if sandbox is None or sandbox.state == rules.ENDED or message.message_type not in rules.MESSAGE_TYPES:
                continue
            async with self.sandboxes.db.uow() as tx:
                await self._queue(
                    tx, sandbox, message.message_id, message.content, message.message_type, message.sender_id
                )
            accepted.append(message.message_id)
        return accepted

    async def _queue(
        self, tx: Tx, sandbox: Sandbox, message_id: str, content: str, message_type: str, sender_id: str
    ) -> None:
        if sandbox.state == rules.ENDED:
            raise SANDBOX_ENDED()
        if await store.count_waiting(tx, sandbox.id) >= rules.MESSAGES_WAITING_MAX:
            raise MESSAGE_QUEUE_FULL()
        added = await store.add_message(
            tx,
            id=message_id,
            sandbox_id=sandbox.id,
            content=content,
            message_type=message_type,
            sender_id=sender_id,
        )
        if added:
            tx.emit(
                events.message_queued(sandbox, message_id, message_type, sender_id),
                aggregate_id=sandbox.id,
                organization_id=sandbox.organization_id,
            )
            tx.on_commit(lambda: self.wakeups.notify(sandbox.id))


def _out(row: SandboxMessage) -> MessageOut:
    return MessageOut(
        id=row.id,
        content=row.content,
        message_type=row.message_type,
        timestamp=row.created_at,
        sender_id=row.sender_id,
    )
