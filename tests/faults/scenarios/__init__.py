"""Every scenario, in the order in which a run tries them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.run import Run
from tests.faults.scenarios import broker, processes, runners, stores


@dataclass(frozen=True)
class Scenario:
    """`tried`: what is done and what must hold, for the results page; `times`: how often, short and long."""

    name: str
    tried: str
    holds: str
    times: tuple[str, str]
    play: Callable[[Run], None]


SCENARIOS = (
    Scenario(
        "services",
        "`kill -9`, SIGTERM, and SIGSTOP for 3 s then SIGCONT, of each of the six services in turn",
        "the other services' reads do not fail; what fails is 502, 503 or 504 as a problem document, 503 with "
        "Retry-After, never a stack trace; healthy again without a hand",
        ("each signal once a service", "20 times"),
        processes.services,
    ),
    Scenario(
        "runner",
        "`kill -9`, SIGTERM, and SIGSTOP for longer than its lease, of a runner at work, while another one works on",
        "its tasks are done again elsewhere, each completed once, by its newest attempt",
        ("once each", "20 times"),
        runners.runner,
    ),
    Scenario(
        "gateway",
        "`kill -9` of Traefik and of the edge",
        "Traefik: back without a hand; edge: no request to a service fails",
        ("once each", "20 times"),
        processes.gateway,
    ),
    Scenario(
        "stores",
        "`kill -9` of PostgreSQL and of Redis",
        "503 with Retry-After and never a stack trace; every pool is back at its size; Redis: no read fails",
        ("once each", "20 times"),
        stores.stores,
    ),
    Scenario(
        "broker",
        "`kill -9` of NATS with at least 1,000 events on their way; NATS down for 20 s (long: 60 s); the JetStream "
        "directory deleted while NATS is down",
        "no request fails; the outboxes drain afterwards; every event is applied exactly once",
        ("3 kills, 1 outage, 1 deletion", "20 kills, 1 outage, 20 deletions"),
        broker.broker,
    ),
)
