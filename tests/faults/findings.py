"""What runs found in the product, and where it was mended; the results page lists it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`by`: the scenario. `mended`: what was changed, or why it stays."""

    by: str
    found: str
    mended: str


FINDINGS: tuple[Finding, ...] = (
    Finding(
        "services",
        "A billing account could not be read (503 after 3 s) while charges of its organization were being written: the "
        "read locked the row.",
        "It is read without a lock; only the turn of a month takes one.",
    ),
    Finding(
        "services",
        "Two consumers of billing deadlocked: each locked the accounts of a batch in the order of its events.",
        "Both lock accounts in one order.",
    ),
    Finding(
        "services",
        "Acknowledged writes were lost: a request cancelled while its BEGIN was under way left the connection in a "
        "transaction that nobody knew of; all later commits on it were only savepoints, undone when the process died.",
        "The pool replaces a connection that was left in a transaction before anybody gets it.",
    ),
    Finding(
        "stores",
        "`kill -9` of PostgreSQL just where a transaction begins was answered 500 instead of 503.",
        "The kit knows this failure of the driver, too.",
    ),
    Finding(
        "clock",
        "Seen while the scenario was written: identity signed by its own clock, the others judged by theirs, and "
        "revocations carry the database's. Five minutes fast, every new token was refused as one of the future and "
        "outlived its revocation; five minutes slow, a new one was dead at once after a revocation.",
        "Every process corrects its clock to the database's, once a second.",
    ),
    Finding(
        "broker",
        "NATS was down for longer than a reservation lives: it expired, the start that came late took it again, and "
        "what was said of it then had an older version than its expiry.",
        "The version of a reservation rises with every change, whatever the change is.",
    ),
    Finding(
        "instances",
        "`make restart` of a part with two instances ended the second before the gateway had noticed that the first "
        "was back: a few requests were answered 502.",
        "The next instance waits until callers have had time to notice the one before.",
    ),
    Finding(
        "instances",
        "Requests went into connections that a stopping process just closed, and to processes that stopped before a "
        "busy gateway had noticed: a write in 200 was answered 502.",
        "A stopping process ends each connection with an answer and serves until no request comes any more; while no "
        "instance is ready, the gateway asks those that live.",
    ),
    Finding(
        "instances",
        "A service that started while the first of two instances of identity was away answered 503 for lack of keys: "
        "the embedded stack told it that one's address alone.",
        "It is told the addresses of all instances, and asks them in turn.",
    ),
    Finding(
        "accounts",
        "Under a flood of sign-ins identity answered its readiness probe late; the gateway left its only instance out "
        "and told everybody 502.",
        "While no instance is ready the gateway asks those that live: a busy one is late, or says 503 itself.",
    ),
    Finding(
        "accounts",
        "Hundreds of sign-ins at once left identity so busy that even `/livez` was once late by 20 s.",
        "A process refuses requests beyond a number that runs at once, probes excepted; a sign-in that could not hash "
        "asks neither Redis nor the database.",
    ),
)
