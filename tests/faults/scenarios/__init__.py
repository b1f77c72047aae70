"""Every scenario, in the order in which a run tries them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.run import Run
from tests.faults.scenarios import accounts, broker, clock, instances, network, processes, restore, runners, stores


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
        "`kill -9`, SIGTERM, and SIGSTOP for 2 s then SIGCONT, of each of the six services in turn",
        "the other services' reads do not fail; what fails is 502, 503 or 504 as a problem document, 503 with "
        "Retry-After, never a stack trace; healthy again without a hand",
        ("each signal once a service", "20 times"),
        processes.services,
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
        "`kill -9` of NATS with at least 1,000 events on their way; NATS down for 60 s; the JetStream "
        "directory deleted while NATS is down",
        "no request fails; the outboxes drain afterwards; every event is applied exactly once",
        ("3 kills, 1 outage, 1 deletion", "20 kills, 1 outage, 20 deletions"),
        broker.broker,
    ),
    Scenario(
        "network",
        "what a service needs made 10 times as slow, or black (nothing answers, nothing is refused), for 4 s each, by "
        "a proxy: NATS, PostgreSQL and billing for workflow, workflow and identity for agents, Redis for identity",
        "no request takes longer than four times its deadlines; what cannot be had is refused early with 503 or 504, "
        "no more than 120 requests wait at once, nobody else notices, and all is well when it passes again",
        ("7 links, once each", "20 times"),
        network.network,
    ),
    Scenario(
        "runner",
        "`kill -9` of a runner at work and SIGSTOP of another for longer than its lease, then SIGTERM of one, while a "
        "third works on",
        "its tasks are done again elsewhere, each completed once, by its newest attempt",
        ("once each", "20 times"),
        runners.runner,
    ),
    Scenario(
        "clock",
        "the clock of one service five minutes fast, then slow (libfaketime)",
        "no request fails; a new session is let in everywhere at once and shut out everywhere at once; no lease lost",
        ("identity and agents", "all six services"),
        clock.clock,
    ),
    Scenario(
        "instances",
        "two instances of every service: claims, relays, a revoked session, a removed member, WebSockets, rolling "
        "restarts (SIGTERM) of two services at a time, `kill -9` of one of two of three services at once",
        "exactly one relay a service; a revocation and a removal reach every process; a rolling restart fails no "
        "request at all; a kill is answered as promised",
        ("once a service", "20 times"),
        instances.instances,
    ),
    Scenario(
        "accounts",
        "`kill -9` of identity between the intent of a mail and its sending, and while mails are sent; the signing key "
        "turned over three times; 400 clients with up to 200 wrong passwords a second for 10 s",
        "one mail for every acknowledged registration, never two; no answer 401 to a valid token; each attempt is "
        "judged or refused with 503 and Retry-After, `/livez` answers meanwhile, memory bounded, no other service "
        "notices, the owner signs in right after it",
        ("once each", "20 times; keys and flood once"),
        accounts.accounts,
    ),
    Scenario(
        "restore",
        "`make backup`, further work, `make restore` of one database, `make rebuild`",
        "costs, reservations and projections are those of before; everything the checker asks of any scenario",
        ("billing", "billing, monitoring, vcs"),
        restore.restore,
    ),
)
