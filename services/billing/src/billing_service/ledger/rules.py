"""Pure rules of plans, reservations and the ledger.

A reservation is held, then confirmed when the execution has begun, then settled, released or expired. Each step is a
balanced posting: what leaves one of an organization's accounts enters another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

UNLIMITED = -1
UNLIMITED_COLUMNS = frozenset({"workflows_limit", "agents_limit", "storage_limit_gb"})
"""Columns of a plan in which -1 means: no limit."""
MAX_VALUE = 2_000_000_000

HELD = "held"
CONFIRMED = "confirmed"
SETTLED = "settled"
RELEASED = "released"
EXPIRED = "expired"
GOES_ON = frozenset({"running", "paused"})
"""States of an execution that has not ended."""
OPEN = frozenset({HELD, CONFIRMED})

# Accounts of an organization's ledger. `granted` is where allowances come from, so it only falls.
GRANTED = "granted"
AVAILABLE = "available"
RESERVED = "reserved"
SPENT = "spent"


@dataclass(frozen=True, slots=True)
class Tier:
    """What a plan allows in a calendar month; -1 is unlimited. `included_micro_usd` is the monthly allowance."""

    name: str
    price_micro_usd: int
    workflows: int
    agents: int
    storage_gb: int
    included_micro_usd: int


# Limits as in the contract's tier table; an operator changes the rows, not this list.
TIERS = (
    Tier("free", 0, 5, 1, 2, 5_000_000),
    Tier("pro", 299_000_000, 100, 5, 50, 50_000_000),
    Tier("team", 999_000_000, 500, 10, 500, 200_000_000),
    Tier("enterprise", 0, UNLIMITED, UNLIMITED, UNLIMITED, 1_000_000_000),
    Tier("lifetime", 499_000_000, 50, 5, 50, 25_000_000),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an account may use in a calendar month; -1 is unlimited."""

    workflows_limit: int
    agents_limit: int
    included_micro_usd: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an account stands when somebody wants to reserve."""

    suspended: bool
    workflows_limit: int
    workflows_used: int
    workflows_reserved: int
    available_micro_usd: int


def refusal(standing: Standing, budget_micro_usd: int) -> tuple[str, str] | None:
    """(limit, sentence) that stops a reservation, None when it may be made."""
    if standing.suspended:
        return "account", "The account is suspended."
    taken = standing.workflows_used + standing.workflows_reserved
    if standing.workflows_limit != UNLIMITED and taken >= standing.workflows_limit:
        return "workflows", f"All {standing.workflows_limit} executions of this month are used or reserved."
    if budget_micro_usd > 0 and budget_micro_usd > standing.available_micro_usd:
        return "credit", "The budget is larger than what the account has left."
    return None


def scaled(limit: int, factor: int) -> int:
    """A limit times a factor; unlimited stays unlimited."""
    return limit if limit == UNLIMITED else limit * factor


Posting = Mapping[str, int]
"""Ledger account → signed micro-USD; the sum is zero."""


def grant(amount: int) -> Posting:
    """An allowance or a credit."""
    return {GRANTED: -amount, AVAILABLE: amount}


def hold(amount: int) -> Posting:
    """A budget set aside."""
    return {AVAILABLE: -amount, RESERVED: amount}


def close(reserved: int, from_reserved: int) -> Posting:
    """The end of a reservation: `from_reserved` of it was spent, the rest is available again."""
    return {RESERVED: -reserved, SPENT: from_reserved, AVAILABLE: reserved - from_reserved}


def spend(amount: int) -> Posting:
    """A cost that no open reservation covers."""
    return {AVAILABLE: -amount, SPENT: amount}


def given(allowance: int | None, plan: Plan) -> int:
    """The micro-USD that an account was given for this month; what its plan includes where nobody noted it."""
    return plan.included_micro_usd if allowance is None else allowance


def left(available: int, allowance: int) -> int:
    """What is left of an allowance and ends with its month; credit beyond it stays, and so does a debt."""
    return max(0, min(available, allowance))


def is_of_an_earlier_month(moment: datetime, period_ends_at: datetime) -> bool:
    """Whether `moment` lies before the calendar month at whose end the period ends."""
    return next_month(moment) < period_ends_at


def is_balanced(posting: Posting) -> bool:
    """Whether nothing appears or vanishes."""
    return sum(posting.values()) == 0


def next_month(moment: datetime) -> datetime:
    """The first moment of the month after `moment`, UTC."""
    year, month = (moment.year + 1, 1) if moment.month == 12 else (moment.year, moment.month + 1)
    return moment.replace(year=year, month=month, day=1, hour=0, minute=0, second=0, microsecond=0)
