"""``python -m gateway_edge.following DIRECTORY``: keeps Traefik's configuration true to the instances that DNS names.

Where services are reached by a name with one address per instance (Compose, a headless Kubernetes service), Traefik
alone would dial the name: one server for the health check, connections that stay where they first went. This process
asks DNS every second and rewrites the dynamic file when a service's addresses change, so that each instance is a server
of its own, with its own health check, and new ones get requests at once.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from gateway_edge.recent import STAMP
from gateway_edge.routes import OWNERS
from gateway_edge.settings import Settings
from gateway_edge.traefik_config import DEFAULT_PORTS, Options, render
from servicekit.logging import configure, get_logger

POLL_S = 1.0
ANSWER_S = 1.0

_log = get_logger(__name__)

Lookup = Callable[[str, int], list[str] | None]


def addresses(host: str, port: int) -> list[str] | None:
    """``host:port`` of every instance behind a name, sorted; empty when there is none, None when DNS did not say."""
    try:
        found = socket.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return [] if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA) else None
    return sorted({f"{address[4][0]}:{port}" for address in found})


class Follower:
    """Knows what was written last. ``hosts``: service → DNS name; the service's own name by default."""

    def __init__(
        self,
        directory: Path,
        *,
        environment: str = "local",
        options: Options | None = None,
        hosts: Mapping[str, str] | None = None,
        lookup: Lookup = addresses,
    ) -> None:
        self._directory = directory
        self._environment = environment
        self._options = options
        self._hosts = {owner: owner for owner in OWNERS} | dict(hosts or {})
        self._lookup = lookup
        self._written: dict[str, list[str]] | None = None
        self._pool = ThreadPoolExecutor(len(OWNERS), "dns")
        self._asked: dict[str, Future[list[str] | None]] = {}

    def look(self) -> bool:
        """Asks DNS once; whether the configuration was written anew.

        A name that cannot be resolved for the moment keeps the instances that it had: their health checks tell Traefik
        what is gone, and a failing resolver must not empty a working gateway.
        """
        known = self._written or {}
        answers = self._ask()
        instances = {owner: known.get(owner, []) if found is None else found for owner, found in answers.items()}
        changed = instances != self._written
        if changed:
            render(
                DEFAULT_PORTS,
                self._directory,
                environment=self._environment,
                instances=instances,
                options=self._options,
            )
            _log.info("instances", **{owner: len(found) for owner, found in instances.items()})
            self._written = instances
        (self._directory / STAMP).touch()
        return changed

    def _ask(self) -> dict[str, list[str] | None]:
        """Service → its instances, None where DNS has not answered.

        All names at once: a resolver may take ten seconds over the name of a service that is away, and the others must
        not wait for it. Such a question is left open and its answer taken by a later look.
        """
        for owner in OWNERS:
            if owner not in self._asked:
                self._asked[owner] = self._pool.submit(self._lookup, self._hosts[owner], DEFAULT_PORTS[owner])
        wait(self._asked.values(), timeout=ANSWER_S)
        return {owner: self._asked.pop(owner).result() if self._asked[owner].done() else None for owner in OWNERS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Follows until SIGTERM. Settings come from the edge's environment."""
    parser = argparse.ArgumentParser(prog="python -m gateway_edge.following", description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--trusted-proxy", action="append", default=[], metavar="NETWORK")
    given = parser.parse_args(arguments)
    settings = Settings()
    configure(settings, "gateway-config")
    options = Options(
        listen="",
        rate_limits=settings.rate_limits,
        trusted_proxies=tuple(given.trusted_proxy),
        metrics_port=18008,
        metrics_host="",
    )
    follower = Follower(given.directory, environment=settings.env, options=options)
    stopping = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    while True:
        follower.look()
        if stopping.wait(POLL_S):
            return 0


if __name__ == "__main__":
    sys.exit(main())
