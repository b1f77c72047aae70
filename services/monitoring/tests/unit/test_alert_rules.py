"""Conditions, fingerprints and readings of alerts; the severity of silence."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring_service.alerts.rules import anomaly_readings, fingerprint, parse_condition, ticket_readings
from monitoring_service.anomalies.rules import silence_description, silence_severity

OPERATORS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


@given(st.sampled_from(sorted(OPERATORS)), st.integers(-50, 50), st.integers(-50, 50))
def test_a_condition_compares_as_written(name: str, threshold: int, value: int) -> None:
    condition = parse_condition(f" value{name} {threshold / 4} ")
    assert condition.threshold == threshold / 4
    assert condition.holds(value / 4) is OPERATORS[name](value / 4, threshold / 4)


@pytest.mark.parametrize(
    "text", ["", "value", "value >", "value > x", "1 > value", "value > 1; x", "__import__('os')", "value => 1"]
)
def test_nothing_else_is_a_condition(text: str) -> None:
    with pytest.raises(ValueError, match="not a condition"):
        parse_condition(text)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5))
def test_a_fingerprint_knows_no_order(labels: dict[str, str]) -> None:
    assert fingerprint(labels) == fingerprint(dict(reversed(labels.items())))
    assert fingerprint(labels) != fingerprint({**labels, "one more": "x"})


def test_readings() -> None:
    assert anomaly_readings("agent.heartbeat.missed", 2.0) == {
        "agent.heartbeat.missed": 2.0,
        "agent.status.unresponsive": 0.0,
    }
    assert anomaly_readings("agent.heartbeat.missed", 3.0)["agent.status.unresponsive"] == 1.0
    assert anomaly_readings("other", 5.0) == {"other": 5.0}
    assert set(ticket_readings("critical")) == {"ticket.blocked", "ticket.blocked.critical"}
    assert set(ticket_readings(None)) == {"ticket.blocked"}


def test_silence_grows_worse() -> None:
    assert [silence_severity(missed) for missed in (1, 2, 3, 9)] == ["warning", "error", "critical", "critical"]
    assert silence_description("a", 1) == "Agent a has missed 1 heartbeat."
    assert silence_description("a", 2) == "Agent a has missed 2 heartbeats."
