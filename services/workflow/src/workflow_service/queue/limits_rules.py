"""How many agents of an organization may work at once: the least of what plan, organization and used hours allow."""

from __future__ import annotations

from dataclasses import dataclass

MS_PER_HOUR = 3_600_000
NO_LIMIT = -1


@dataclass(frozen=True, slots=True)
class OrganizationLimits:
    """What is known of an organization.

    `plan`: agents at once by its plan, -1 means no limit. `own`, `hours`: what it set for itself, agents at once and
    hours of sandboxes in a calendar month; None means no limit. `ms_used`: time of its sandboxes in this month.
    """

    plan: int
    own: int | None = None
    hours: float | None = None
    ms_used: int = 0

    @property
    def hours_used(self) -> float:
        """Hours of sandboxes in this month."""
        return self.ms_used / MS_PER_HOUR

    @property
    def hours_are_used_up(self) -> bool:
        """Whether nothing may be started any more in this month. What runs goes on."""
        return self.hours is not None and self.ms_used >= self.hours * MS_PER_HOUR

    @property
    def agents(self) -> int:
        """Agents that may work at once while hours are left; -1 means no limit."""
        return min((one for one in (self.plan, self.own) if one is not None and one >= 0), default=NO_LIMIT)

    @property
    def room(self) -> int | None:
        """The number that a claim counts against; None means no limit."""
        if self.hours_are_used_up:
            return 0
        return None if self.agents == NO_LIMIT else self.agents


def at_capacity(limits: OrganizationLimits, active: int) -> str | None:
    """Why no further agent may begin, with the limit, whose it is and the number at work; None while one may."""
    if not 0 <= limits.agents <= active:
        return None
    whose = "its own setting max_concurrent_agents" if limits.agents == limits.own else "its plan"
    return f"The organization runs {active} of {limits.agents} tasks at once, the limit of {whose}."


def out_of_hours(limits: OrganizationLimits) -> str | None:
    """Why nothing may begin in this month, with limit and hours used; None while hours are left."""
    if not limits.hours_are_used_up:
        return None
    used, limit = f"{limits.hours_used:.1f}", f"{limits.hours:g}"
    return (
        f"The organization used {used} of the {limit} hours of agents that its setting max_agent_runtime_hours allows "
        "in a month; they begin anew with the next month (UTC)."
    )
