"""JetStream's streams and durables as data: `python -m servicekit.events.topology write|check|apply|map`.

`deploy/nats/topology.yaml` is written from what the services declare and applied by one job; services only bind.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from servicekit.db.event_options import event_type
from servicekit.describe import describe
from servicekit.events import deadletters
from servicekit.events.loop import BACKOFF_METADATA, MAX_DELIVER_METADATA
from servicekit.events.registry import SERVICES, events_of
from servicekit.events.worker import consumers_of
from servicekit.settings import STREAM_DAYS

if TYPE_CHECKING:
    from servicekit.events.bus import Bus
    from servicekit.host import Service

FILE = Path("deploy/nats/topology.yaml")
_HEADER = """\
# JetStream's streams and durables. Written by `python -m servicekit.events.topology write` from the services'
# declarations and the limits in that module; applied by `... apply`. Do not edit.
"""
DAY_S = 86_400


@dataclass(frozen=True)
class Durable:
    """One consumer of one service. Times in seconds; `backoff_s` are the pauses after the 1st, 2nd, … failure.

    `max_deliver` and `backoff_s` are the loop's own rules, which it reads from the durable's metadata.
    """

    filter_subjects: list[str]
    # Longer than any handler works between two of the loop's heartbeats, which come three times within it.
    ack_wait_s: float = 30.0
    max_deliver: int = 8
    max_ack_pending: int = 1_000
    backoff_s: list[float] = field(default_factory=lambda: [1.0, 5.0, 15.0, 60.0, 120.0, 300.0])


@dataclass(frozen=True)
class Stream:
    """One stream. Sizes in bytes, times in seconds."""

    subjects: list[str]
    # Less than the outboxes keep what they have published, so that they can send again what a durable missed.
    max_age_s: float = STREAM_DAYS * DAY_S
    max_bytes: int = 2 * 1024**3
    max_msg_size: int = 1024**2
    # A relay that died between publishing and marking is replaced within seconds.
    duplicate_window_s: float = 120.0
    allow_atomic: bool = True
    durables: dict[str, Durable] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Everything that JetStream is to have, and what its server's configuration must say."""

    streams: dict[str, Stream]
    server: dict[str, str] = field(default_factory=lambda: {"sync_interval": "always"})

    def text(self) -> str:
        """Return the file's content."""
        body = yaml.safe_dump(asdict(self), sort_keys=True, width=120, default_flow_style=False)
        return _HEADER + str(body)

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Read the file's content; `TypeError` for a key that nothing knows."""
        data = yaml.safe_load(text)
        streams = {
            name: Stream(
                **{k: v for k, v in item.items() if k != "durables"},
                durables={n: Durable(**d) for n, d in (item.get("durables") or {}).items()},
            )
            for name, item in data["streams"].items()
        }
        return cls(streams=streams, server=dict(data.get("server") or {}))


def plan_of(services: Iterable[Service]) -> Plan:
    """Return the plan of the given services: all streams, and the durables that these declare.

    Raises `ValueError` for a filter subject that no contract knows.
    """
    streams = {name.upper(): Stream(subjects=[f"{name}.>"]) for name in SERVICES}
    streams[deadletters.STREAM] = Stream(
        subjects=[deadletters.PREFIX + ">"], max_age_s=30 * DAY_S, allow_atomic=False, max_msg_size=1024**2 + 16_384
    )
    for service in services:
        for group in consumers_of(service):
            for source in group.sources.values():
                stream = streams.setdefault(source.stream, Stream(subjects=[f"{source.service}.>"]))
                name = group.durable(service.name, source)
                if name in stream.durables:
                    raise ValueError(f"two groups of consumers share the durable {name}")
                stream.durables[name] = Durable(filter_subjects=source.subjects)
        # The service's own stream, which its relay writes.
        streams.setdefault(service.name.upper(), Stream(subjects=[f"{service.name}.>"]))
    return Plan(streams)


async def apply(js: JetStreamContext, plan: Plan) -> list[str]:
    """Make, change and remove until JetStream has what the plan says; return what was done, one line each.

    Raises `ValueError`, before anything is done, for a stream that keeps events longer than inboxes know them.
    """
    for name, stream in plan.streams.items():
        if not 0 < stream.max_age_s <= STREAM_DAYS * DAY_S and name != deadletters.STREAM:
            raise ValueError(
                f"stream {name}: max_age_s must be at most {STREAM_DAYS} days, for outboxes and inboxes follow it"
            )
    done: list[str] = []
    for name, stream in plan.streams.items():
        config = _stream_config(name, stream)
        try:
            before = (await js.stream_info(name)).config
        except NotFoundError:
            await js.add_stream(config)
            done.append(f"stream {name} made")
        else:
            after = (await js.update_stream(config)).config
            if _comparable(after) != _comparable(before):
                done.append(f"stream {name} changed")
        existing = {info.name: info for info in await js.consumers_info(name)}
        for durable, item in stream.durables.items():
            known = existing.pop(durable, None)
            info = await js.add_consumer(name, _consumer_config(durable, item))
            if known is None:
                done.append(f"durable {durable} made")
            elif _comparable(known.config) != _comparable(info.config):
                done.append(f"durable {durable} changed")
        for stale in existing:
            await js.delete_consumer(name, stale)
            done.append(f"durable {stale} removed")
    return done


def _comparable(config: StreamConfig | ConsumerConfig | None) -> StreamConfig | ConsumerConfig | None:
    """Leave out the metadata that the server adds to some of its answers."""
    if config is None:
        return None
    own = {name: value for name, value in (config.metadata or {}).items() if not name.startswith("_nats.")}
    return replace(config, metadata=own)


def _stream_config(name: str, stream: Stream) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=stream.subjects,
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=stream.max_age_s,
        max_bytes=stream.max_bytes,
        max_msg_size=stream.max_msg_size,
        duplicate_window=stream.duplicate_window_s,
        allow_atomic=stream.allow_atomic,
        allow_direct=True,
        num_replicas=1,
    )


def _consumer_config(name: str, durable: Durable) -> ConsumerConfig:
    return ConsumerConfig(
        name=name,
        durable_name=name,
        filter_subjects=durable.filter_subjects,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=durable.ack_wait_s,
        max_deliver=-1,
        max_ack_pending=durable.max_ack_pending,
        metadata={
            BACKOFF_METADATA: ",".join(f"{pause:g}" for pause in durable.backoff_s),
            MAX_DELIVER_METADATA: str(durable.max_deliver),
        },
    )


def event_map(services: Sequence[Service]) -> dict[str, tuple[str, list[str]]]:
    """Return subject → (reason of `audit_only` or "", the groups that make something of it)."""
    sources = [
        (f"{service.name}.{group.name}", source)
        for service in services
        for group in consumers_of(service)
        for source in group.sources.values()
    ]
    live = [
        (f"{service.name} (live)", cast("Bus", service.bus).live_subjects)
        for service in services
        if service.bus is not None
    ]
    found: dict[str, tuple[str, list[str]]] = {}
    for owner in SERVICES:
        for subject, message_class in sorted(events_of(owner).items()):
            readers = [name for name, source in sources if source.uses(subject)]
            readers += [name for name, followed in live if subject in followed]
            found[subject] = (event_type(message_class).audit_only, readers)
    return found


async def _apply_to(plan: Plan, options: Mapping[str, Any], url: str) -> list[str]:
    client = Client()
    await client.connect(url, connect_timeout=5, max_reconnect_attempts=5, **options)
    try:
        return await apply(client.jetstream(timeout=10), plan)
    finally:
        await client.close()


def nats_address() -> tuple[str, dict[str, Any]]:
    """Return address and credentials of NATS from the environment (`OMOIOS_NATS_*`)."""
    from servicekit.settings import ServiceSettings

    settings = ServiceSettings()
    options: dict[str, Any] = {}
    if settings.nats_user is not None:
        options["user"] = settings.nats_user
    if settings.nats_password is not None:
        options["password"] = settings.nats_password.get_secret_value()
    return settings.nats_url, options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the process' exit code."""
    parser = argparse.ArgumentParser(prog="python -m servicekit.events.topology", description=__doc__)
    parser.add_argument("command", choices=["write", "check", "apply", "map"])
    parser.add_argument("--file", type=Path, default=FILE)
    options = parser.parse_args(arguments)
    if options.command == "apply":
        url, credentials = nats_address()
        for line in asyncio.run(_apply_to(Plan.parse(options.file.read_text(encoding="utf-8")), credentials, url)):
            print(line)
        return 0
    services = describe()
    if options.command == "map":
        return _print_map(services)
    wanted = plan_of(services).text()
    if options.command == "write":
        options.file.parent.mkdir(parents=True, exist_ok=True)
        options.file.write_text(wanted, encoding="utf-8")
        return 0
    if not options.file.exists() or options.file.read_text(encoding="utf-8") != wanted:
        print(f"{options.file} is not what the services declare; run `make topology`", file=sys.stderr)
        return 1
    return 0


def _print_map(services: list[Service]) -> int:
    unheard = 0
    for subject, (audit_only, readers) in event_map(services).items():
        if not readers and not audit_only:
            unheard += 1
        told = ", ".join(readers) or (f"audit only: {audit_only}" if audit_only else "NOBODY")
        print(f"{subject:<52} {told}")
    return 1 if unheard else 0


if __name__ == "__main__":
    sys.exit(main())
