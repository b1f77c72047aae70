"""Which organization a resource of another service belongs to."""

from __future__ import annotations

import asyncio
import importlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from servicekit.clock import monotonic_s
from servicekit.context import assert_no_transaction
from servicekit.db import Database, Tx, resources
from servicekit.db.event_options import event_type
from servicekit.errors import AppError, ErrorSpec, Kind
from servicekit.events.consumers import Consumers
from servicekit.events.envelope import Event
from servicekit.events.registry import SERVICES, events_of

if TYPE_CHECKING:
    from servicekit.rpc import RpcChannels

RESOURCE_NOT_FOUND = ErrorSpec("resource.not_found", Kind.NOT_FOUND, "This does not exist.")

WAIT_S = 1.0
RPC_TIMEOUT_S = 2.0
# Looks at the table while it waits: another process may be the one that consumes the event.
_LOOKS_S = (0.05, 0.1, 0.15, 0.3, 0.4)
_CACHED = 50_000
# Someone who walks through ids that do not exist must not keep the owner busy.
_UNKNOWN_S = 2.0


class Resources:
    """The projection resource → organization: memory, then the table, then ≤ 1 s for the event, then the owner.

    A resource never changes its organization, so that what is known stays known.
    """

    def __init__(self, database: Database, channels: RpcChannels | None = None) -> None:
        self._database = database
        self._channels = channels
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._unknown: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._waiting: dict[tuple[str, str], asyncio.Event] = {}

    async def start(self) -> None:
        """Nothing to connect: database and channels are parts of their own."""

    async def close(self) -> None:
        """Forget what is in memory."""
        self._known.clear()
        self._unknown.clear()

    async def organization_of(
        self, resource_type: str, resource_id: str, missing: ErrorSpec | Callable[[], AppError] = RESOURCE_NOT_FOUND
    ) -> str:
        """Return the organization's id.

        Call it before the transaction. Raises `missing()` for an unknown resource, UNAVAILABLE when neither the table
        knows it nor its owner answers.
        """
        assert_no_transaction("a resource look-up")
        key = (resource_type, resource_id)
        found = self._known.get(key)
        if found is not None:
            return found
        if self._unknown.get(key, 0.0) > monotonic_s():
            raise missing()
        found = await self._read(key) or await self._await_event(key) or await self._ask(key)
        if found is None:
            _bounded(self._unknown, key, monotonic_s() + _UNKNOWN_S)
            raise missing()
        _bounded(self._known, key, found)
        return found

    async def remember(self, tx: Tx, facts: Sequence[resources.Fact]) -> None:
        """Write facts in a transaction; those who wait for them in this process go on after its commit."""
        await resources.remember(await tx.connection(), facts)

        def announce() -> None:
            for resource_type, resource_id, organization_id, _parent in facts:
                key = (resource_type, resource_id)
                self._unknown.pop(key, None)
                waiting = self._waiting.get(key)
                if waiting is not None:
                    _bounded(self._known, key, organization_id)
                    waiting.set()

        tx.on_commit(announce)

    def consumers(self, owner: str) -> Consumers:
        """Return what feeds the projection of service `owner`: every other service's events marked `resource`."""
        group = Consumers("resources")
        types = [
            message_class
            for service in SERVICES
            if service != owner
            for message_class in events_of(service).values()
            if event_type(message_class).resource
        ]
        if types:
            group.on_batch(*types)(self._project)
        return group

    async def _project(self, tx: Tx, events: Sequence[Event[Any]]) -> None:
        await self.remember(
            tx,
            [
                (event.aggregate_type, event.aggregate_id, event.organization_id, None)
                for event in events
                if event.organization_id is not None
            ],
        )

    async def _read(self, key: tuple[str, str]) -> str | None:
        async with self._database.reader() as tx:
            found = await resources.organizations_of(await tx.connection(), key[0], [key[1]])
        return found.get(key[1])

    async def _await_event(self, key: tuple[str, str]) -> str | None:
        event = self._waiting.setdefault(key, asyncio.Event())
        try:
            for pause in _LOOKS_S:
                try:
                    async with asyncio.timeout(pause):
                        await event.wait()
                except TimeoutError:
                    found = await self._read(key)
                    if found is not None:
                        return found
                else:
                    return self._known.get(key) or await self._read(key)
        finally:
            if self._waiting.get(key) is event:
                del self._waiting[key]
        return None

    async def _ask(self, key: tuple[str, str]) -> str | None:
        owner = owner_of(key[0])
        if owner is None or self._channels is None:
            return None
        try:
            channel = self._channels.channel(owner)
        except KeyError:
            # This process was given no address of the owner; what its events told is all there is.
            return None
        module: Any = importlib.import_module(f"omoios.{owner}.v1.{owner}_pb2")
        method = f"/omoios.{owner}.v1.{owner.capitalize()}Service/ResolveResources"
        call = channel.unary_unary(
            method,
            request_serializer=module.ResolveResourcesRequest.SerializeToString,
            response_deserializer=module.ResolveResourcesResponse.FromString,
        )
        reference = module.ResourceReference(resource_type=key[0], resource_id=key[1])
        answer: Any = await call(module.ResolveResourcesRequest(references=[reference]), timeout=RPC_TIMEOUT_S)
        for item in answer.resources:
            if (item.resource_type, item.resource_id) == key and item.organization_id:
                async with self._database.uow() as tx:
                    await self.remember(tx, [(*key, item.organization_id, None)])
                return str(item.organization_id)
        return None


def owner_of(resource_type: str) -> str | None:
    """Return the service whose events make resources of this type known, None where there is none."""
    if not _owners:
        for service in SERVICES:
            for message_class in events_of(service).values():
                kind = event_type(message_class)
                if kind.resource:
                    _owners[kind.aggregate] = service
    return _owners.get(resource_type)


_owners: dict[str, str] = {}


def _bounded(memory: OrderedDict[tuple[str, str], Any], key: tuple[str, str], value: Any) -> None:
    memory[key] = value
    if len(memory) > _CACHED:
        memory.popitem(last=False)
