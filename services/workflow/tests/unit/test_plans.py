"""The plan format: what is read, and what each mistake is answered."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.errors import AppError
from servicekit.testing.profiles import examples
from workflow_service.plans import rules

GOOD = """# Greeting

Budget: $2.50

What it is about.

## Requirements

### REQ-1: Greets
WHEN the tool starts
THE SYSTEM SHALL print a greeting.

Acceptance criteria:
- [ ] names the version
  and the date
- [x] exits with 0

### REQ-2
IF the disk is full THEN THE SYSTEM SHALL stop.

## Design

One module.

```py
# Not a heading
```

## Tasks

### GREET: Write the greeting
- Requirements: REQ-1, REQ-2
- Files: `src/greeting.py`, tests/**
- Priority: high
- Retries: 2
- Timeout: 10m
- Capabilities: python, gpu
- Env: WHO=you
- Env: HOW=a=b

Because one must.

```sh
echo hello
echo again
```

```py
print("text, no command")
```

### CHECK: Check it
- Depends: GREET
- Type: run_tests
- Command: `make test`
"""


def test_a_plan_is_read_whole() -> None:
    plan = rules.parse(GOOD)
    assert (plan.title, plan.description, plan.budget_micro_usd) == ("Greeting", "What it is about.", 2_500_000)
    first, second = plan.requirements
    assert (first.condition, first.action) == ("the tool starts", "print a greeting")
    assert first.criteria == ("names the version and the date", "exits with 0")
    assert (second.title, second.condition, second.action) == ("stop", "IF the disk is full", "stop")
    assert "# Not a heading" in plan.design
    greet, check = plan.tasks
    assert greet.requirements == ("REQ-1", "REQ-2")
    assert greet.files == ("src/greeting.py", "tests/**")
    assert (greet.priority, greet.retries, greet.timeout_s) == ("HIGH", 2, 600)
    assert greet.capabilities == ("python", "gpu")
    assert greet.environment == {"WHO": "you", "HOW": "a=b"}
    assert greet.commands == ("set -e\necho hello\necho again",)
    assert greet.description.startswith("Because one must.")
    assert 'print("text, no command")' in greet.description
    assert (check.depends_on, check.commands, check.task_type) == (("GREET",), ("make test",), "run_tests")
    assert (check.priority, check.retries, check.timeout_s) == ("MEDIUM", 3, None)
    assert plan.order == ("GREET", "CHECK")


def line_of(text: str) -> int:
    return next(n for n, line in enumerate(GOOD.split("\n"), 1) if text in line)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("# Greeting\n", "\n", 1, "a plan starts with its title"),
        ("Budget: $2.50", "Budget: much", None, "is no amount"),
        ("Budget: $2.50", "Budget: 0.0000001 USD", None, "at most six decimals"),
        ("Budget: $2.50", "Budget: 0 USD", None, "more than 0"),
        ("## Design", "## Devign", None, "unknown section 'Devign'"),
        ("THE SYSTEM SHALL stop.", "it stops.", None, "needs a sentence"),
        ("### CHECK:", "### GREET:", None, "is used in line"),
        ("### CHECK: Check it", "### Check it", None, "is headed '### ID: title'"),
        ("- Depends: GREET", "- Depends: NOBODY", None, "which no task is called"),
        ("- Depends: GREET", "- Depends: CHECK", None, "depends on itself"),
        ("- Requirements: REQ-1, REQ-2", "- Requirements: REQ-9", None, "is no requirement of this plan"),
        ("- Retries: 2", "- Retries: many", None, "retries is a number"),
        ("- Timeout: 10m", "- Timeout: 10 days", None, "a timeout is a duration"),
        ("- Priority: high", "- Priority: urgent", None, "is no priority"),
        ("- Env: WHO=you", "- Env: who", None, "NAME=value"),
        ("- Type: run_tests", "- Typ: run_tests", None, "unknown field 'Typ'"),
        ("- Command: `make test`", "", None, "has no command"),
        ("```sh", "````sh", None, "is never closed"),
        (
            "### GREET:",
            f"### LONG: Long\n- Command: `true`\n\n{'word ' * 20_001}\n\n### GREET:",
            None,
            "more than 100000",
        ),
    ],
)
def test_each_mistake_names_its_line(old: str, new: str, line: int | None, message: str) -> None:
    assert old in GOOD
    with pytest.raises(AppError) as refused:
        rules.parse(GOOD.replace(old, new, 1))
    assert refused.value.kind.status == 422
    messages = [field.msg for field in refused.value.fields]
    matching = [one for one in messages if message in one]
    assert matching, messages
    number = line or line_of(old.strip())
    if message not in ("has no command", "is used in line"):
        assert any(one.startswith(f"line {number}:") for one in matching), messages
    assert all(field.loc == ("body", "plan") for field in refused.value.fields)


def test_a_cycle_is_named() -> None:
    plan = "# C\n## Tasks\n### A: a\n- Depends: B\n- Command: x\n### B: b\n- Depends: A\n- Command: x\n"
    with pytest.raises(AppError) as refused:
        rules.parse(plan)
    assert "depend on each other" in refused.value.fields[0].msg


def test_many_mistakes_are_told_at_once_and_bounded() -> None:
    plan = "# M\n## Tasks\n" + "".join(f"### T{n}: t\n" for n in range(200))
    with pytest.raises(AppError) as refused:
        rules.parse(plan)
    assert len(refused.value.fields) == 50


@pytest.mark.parametrize(
    ("sentence", "condition", "action"),
    [
        ("THE SYSTEM SHALL log", "General", "log"),
        ("WHEN a, THE SYSTEM SHALL b.", "a", "b"),
        ("WHILE running THE TOOL SHALL beep", "WHILE running", "beep"),
        ("WHERE licensed THE SYSTEM SHALL c", "WHERE licensed", "c"),
        ("IF x THEN THE SYSTEM SHALL y", "IF x", "y"),
    ],
)
def test_ears_forms(sentence: str, condition: str, action: str) -> None:
    assert rules.parse_ears(sentence) == (condition, action)


@settings(max_examples=examples(200))
@given(st.text(max_size=400) | st.lists(st.sampled_from(GOOD.split("\n")), max_size=40).map("\n".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    refused = None
    try:
        plan = rules.parse(text)
    except AppError as error:
        refused = error
    if refused is None:
        assert plan.tasks
        assert set(plan.order) == {task.key for task in plan.tasks}
    else:
        assert refused.fields
        assert all(field.ctx and field.ctx["line"] >= 1 for field in refused.fields)


def test_a_plan_of_ten_thousand_tasks_is_read_in_reasonable_time() -> None:
    body = "".join(
        f"### T{n}: t\n- Depends: {', '.join(f'T{m}' for m in range(max(0, n - 3), n)) or 'none'}\n- Command: true\n"
        for n in range(10_000)
    )
    started = time.process_time()
    plan = rules.parse("# Big\n## Tasks\n" + body)
    assert len(plan.tasks) == 10_000
    # The reading takes about 0.6 s of CPU; the bound is for a slow machine.
    assert time.process_time() - started < 10
