"""Every consumer of every service: what it is told three times, in any order, or over a crash, has one effect."""

from __future__ import annotations

import pytest

from servicekit.events.registry import SERVICES, events_of
from tests.convergence.harness import BACKWARDS, Convergence, difference
from tests.convergence.scenarios import SCENARIOS
from tools import catalogue

ORDERS = (BACKWARDS, 1, 2, 3, 4)
CONSUMERS = [pytest.param(*key, id="-".join(key)) for key in sorted(SCENARIOS)]


def test_every_consumer_has_a_scenario_with_every_event_that_it_takes() -> None:
    services, findings = catalogue.describe()
    assert not findings
    known = {subject for service in SERVICES for subject in events_of(service)}
    wanted: dict[tuple[str, str], set[str]] = {}
    for one in catalogue.listeners(services.values()):
        heard = {subject for subject in known if one.hears(subject)}
        wanted.setdefault((one.service, one.consumer), set()).update(heard)
    assert set(SCENARIOS) == set(wanted), "a scenario is needed for each consumer: tests/convergence/scenarios.py"
    for key, subjects in wanted.items():
        told = {fact.subject for fact in SCENARIOS[key].facts}
        assert subjects <= told, f"the scenario of {key} leaves out {sorted(subjects - told)}"
        if SCENARIOS[key].path or SCENARIOS[key].only:
            assert SCENARIOS[key].why, f"{key} compares less than everything without a reason"


@pytest.mark.parametrize(("service", "consumer"), CONSUMERS)
async def test_thrice_in_any_order_and_over_a_crash_is_once(
    convergence: Convergence, service: str, consumer: str
) -> None:
    scenario = SCENARIOS[service, consumer]
    once = await convergence.run(service, consumer, scenario)
    assert once.dead == []
    assert difference(once.before, once.tables), "the scenario changes nothing"
    again = await convergence.run(service, consumer, scenario, times=3, crash=True)
    assert again.crashes > 0
    assert again.dead == []
    assert difference(once.tables, again.tables) == ""
    assert again.said == once.said
    for order in ORDERS:
        shuffled = await convergence.run(service, consumer, scenario, times=3, order=order)
        assert shuffled.dead == [], f"shuffled by {order}"
        assert difference(once.settled, shuffled.settled) == "", f"shuffled by {order}"
