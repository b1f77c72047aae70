"""NATS with JetStream, every acknowledged message on disk (`sync_interval: always`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omoios_local.embedded.process import (
    LOOPBACK,
    Command,
    EmbeddedPart,
    base_environment,
    exchange,
    program,
    write_private,
)

MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
MAX_STORE_BYTES = 20 * 1024**3


@dataclass(frozen=True)
class NatsUser:
    """A user with the subjects it may publish to and subscribe to; None means every subject."""

    name: str
    password: str
    publish: tuple[str, ...] | None = None
    subscribe: tuple[str, ...] | None = None


def service_user(name: str, password: str, services: Sequence[str]) -> NatsUser:
    """What one service needs and no more.

    It publishes its own facts and dead letters, reads every service's facts, fetches from and acknowledges to
    durables, and looks streams and consumers up. It can neither create, change, purge nor delete any of them,
    nor speak in another service's name.
    """
    publish = (
        f"{name}.>",
        "dlq.>",
        "$JS.ACK.>",
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.STREAM.MSG.GET.*",
        "$JS.API.DIRECT.GET.>",
        "$JS.API.CONSUMER.NAMES.*",
        "$JS.API.CONSUMER.LIST.*",
        "$JS.API.CONSUMER.INFO.*.*",
        "$JS.API.CONSUMER.MSG.NEXT.*.*",
    )
    subscribe = ("_INBOX.>", "dlq.>", *(f"{service}.>" for service in services))
    return NatsUser(name, password, publish, subscribe)


def server_config(
    *,
    store: str,
    listen: str,
    http: str | None,
    users: Sequence[NatsUser],
    sync_always: bool = True,
    max_store_bytes: int = MAX_STORE_BYTES,
) -> str:
    """A NATS configuration; values are JSON, which NATS's own format contains but for `\\u` escapes.

    ``listen``, ``http``: `host:port` of clients and of the unauthenticated statistics. ``store``: JetStream's folder.
    """
    jetstream: dict[str, object] = {"store_dir": store, "max_file_store": max_store_bytes}
    if sync_always:
        jetstream["sync_interval"] = "always"
    settings: dict[str, object] = {
        "server_name": "omoios-local",
        "listen": listen,
        "max_payload": MAX_PAYLOAD_BYTES,
        "jetstream": jetstream,
    }
    if http is not None:
        settings["http"] = http
    if users:
        settings["authorization"] = {"users": [_user(user) for user in users]}
    return "".join(f"{name}: {json.dumps(value, indent=1, ensure_ascii=False)}\n" for name, value in settings.items())


class EmbeddedNats(EmbeddedPart):
    """One NATS server below `directory`. Without `users` it is open to every local client (tests).

    `monitoring_port` opens the unauthenticated HTTP statistics on loopback; none by default.
    """

    name = "nats"

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        users: Sequence[NatsUser] = (),
        monitoring_port: int | None = None,
        sync_always: bool = True,
        max_store_bytes: int = MAX_STORE_BYTES,
    ) -> None:
        super().__init__(directory, port)
        self.users = tuple(users)
        self.monitoring_port = monitoring_port
        self.sync_always = sync_always
        self.max_store_bytes = max_store_bytes

    @property
    def url(self) -> str:
        return f"nats://{LOOPBACK}:{self.port}"

    @property
    def config_file(self) -> Path:
        return self.directory / "nats.conf"

    def prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self.config_file, self.config())

    def config(self) -> str:
        """The configuration file's text."""
        http = None if self.monitoring_port is None else f"{LOOPBACK}:{self.monitoring_port}"
        return server_config(
            store=str(self.directory / "data"),
            listen=f"{LOOPBACK}:{self.port}",
            http=http,
            users=self.users,
            sync_always=self.sync_always,
            max_store_bytes=self.max_store_bytes,
        )

    def command(self) -> Command:
        return Command((str(program("nats-server")), "-c", str(self.config_file)), base_environment(), self.directory)

    def ready(self) -> bool:
        """True when the server greets a client and has finished recovering its streams."""
        answer = exchange(self.port, b"")
        return answer.startswith(b"INFO ") and b'"jetstream":true' in answer


def _user(user: NatsUser) -> dict[str, object]:
    permissions = {
        kind: {"allow": list(subjects)}
        for kind, subjects in (("publish", user.publish), ("subscribe", user.subscribe))
        if subjects is not None
    }
    return {"user": user.name, "password": user.password} | ({"permissions": permissions} if permissions else {})
