"""Delays between restarts, the order of parts."""

import pytest

from omoios_local.instance import backoff_s
from omoios_local.ports import SERVICES, PortPlan
from omoios_local.runnable import StepSpec, closure, order
from omoios_local.stack import Stack
from omoios_local.state import State, repository_root


def test_delays_double_from_200_ms_to_30_s():
    assert [backoff_s(failures) for failures in range(1, 6)] == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert backoff_s(9) == backoff_s(1000) == 30.0


def spec(name, *needs):
    return StepSpec(name, lambda: "", needs)


def test_order_puts_needs_first():
    specs = [spec("gateway", "edge", "workflow"), spec("workflow", "postgres"), spec("edge"), spec("postgres")]
    found = order(specs)
    assert found.index("postgres") < found.index("workflow") < found.index("gateway")
    assert closure(specs, ["workflow"]) == {"workflow", "postgres"}


def test_cycles_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match="needs itself"):
        order([spec("a", "b"), spec("b", "a")])
    with pytest.raises(ValueError, match="unknown part ghost"):
        order([spec("a", "ghost")])
    with pytest.raises(ValueError, match="unknown part ghost; known are a"):
        closure([spec("a")], ["ghost"])


def test_each_service_waits_for_its_own_migrations_and_the_streams(tmp_path):
    state = State(tmp_path / "state")
    state.create()
    specs = Stack(repository_root(), state, PortPlan()).specs()
    for name in SERVICES:
        needed = closure(specs, [name])
        assert needed == {name, f"migrate-{name}", "databases", "postgres", "topology", "nats", "redis"}
