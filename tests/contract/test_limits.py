"""Limits and names that one service states and another one goes by."""

from __future__ import annotations

from billing_service.costs import rules as cost_rules
from identity_service.directory.rules import MAX_TASK_DURATION_MINUTES
from workflow_service.engine.rules import FOREIGN_PHASES, PHASES
from workflow_service.tasks.schemas import TaskCreate


def test_the_longest_task_is_as_long_as_workflow_takes_it() -> None:
    schema = TaskCreate.model_json_schema()["properties"]["timeout_seconds"]
    longest = next(option["maximum"] for option in schema["anyOf"] if "maximum" in option)
    assert longest == MAX_TASK_DURATION_MINUTES * 60


def test_costs_are_told_of_each_phase_that_workflow_knows() -> None:
    assert set(PHASES) == cost_rules.PHASES
    assert FOREIGN_PHASES == cost_rules.OLDER_PHASES
