"""Limits that one service states and another one enforces."""

from __future__ import annotations

from identity_service.directory.rules import MAX_TASK_DURATION_MINUTES
from workflow_service.tasks.schemas import TaskCreate


def test_the_longest_task_is_as_long_as_workflow_takes_it() -> None:
    schema = TaskCreate.model_json_schema()["properties"]["timeout_seconds"]
    longest = next(option["maximum"] for option in schema["anyOf"] if "maximum" in option)
    assert longest == MAX_TASK_DURATION_MINUTES * 60
