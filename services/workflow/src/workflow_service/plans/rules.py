"""The plan parser: markdown in, requirements, design and a DAG of tasks out. Deterministic; errors name the line.

The format is described in `docs/conventions/plan-format.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from servicekit.errors import AppError, FieldError, invalid_fields
from workflow_service.dag import rules as dag
from workflow_service.plans.model import Plan, PlannedRequirement, PlannedTask, Problems

MAX_CHARACTERS = 3_000_000
MAX_REQUIREMENTS = 2_000
MAX_TASKS = 10_000
MAX_TITLE = 500
MAX_DESCRIPTION = 100_000
"""Characters of a task's description, as many as `POST /tasks` takes: its event has to hold them."""
MAX_RETRIES = 20
MAX_TIMEOUT_S = 86_400
DEFAULT_RETRIES = 3
# One execution may reserve at most this much, in USD; larger numbers are typing errors.
MAX_BUDGET_USD = 1_000_000

PRIORITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW")

_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r"^\s{0,3}(`{3,}|~{3,})\s*([A-Za-z0-9_+-]*)\s*$")
_FIELD = re.compile(r"^\s{0,3}[-*]\s+\**([A-Za-z][A-Za-z _-]*?)\**\s*:\**\s*(.*)$")
_HEAD_FIELD = re.compile(r"^\s{0,3}(?:[-*>]\s+)?\**(Budget)\**\s*:\**\s*(.*)$", re.IGNORECASE)
_KEY = re.compile(r"^([A-Za-z][A-Za-z0-9_]*(?:[-.][A-Za-z0-9_]+)*)\s*(?:(?::|–|—|\s-\s)\s*(.*))?$")
_ITEM = re.compile(r"^\s{0,5}(?:[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?(.+)$")
_DURATION = re.compile(r"^(\d+)\s*(s|sec|seconds?|m|min|minutes?|h|hours?)?$", re.IGNORECASE)
_MONEY = re.compile(r"^(?:\$\s*([0-9][0-9_,]*(?:\.[0-9]+)?)|([0-9][0-9_,]*(?:\.[0-9]+)?)\s*(?:USD|\$))$", re.IGNORECASE)
_ENV = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)=(.*)$")
_SHELL = frozenset({"", "sh", "bash", "shell"})
_EARS = re.compile(
    r"^(?:(?P<keyword>WHEN|WHILE|WHERE|IF)\s+(?P<condition>.+?)[,;]?\s+(?:THEN,?\s+)?)?"
    r"(?P<subject>THE\s+.+?)\s+SHALL\s+(?P<action>.+)$",
    re.DOTALL,
)
_FIELDS = {
    "depends": "depends",
    "depends on": "depends",
    "dependencies": "depends",
    "requirement": "requirements",
    "requirements": "requirements",
    "files": "files",
    "file": "files",
    "command": "command",
    "commands": "command",
    "env": "env",
    "environment": "env",
    "capabilities": "capabilities",
    "labels": "capabilities",
    "priority": "priority",
    "type": "type",
    "retries": "retries",
    "timeout": "timeout",
}
_REPEATABLE = frozenset({"command", "env", "files"})
_TASK_TYPE = re.compile(r"^[a-z][a-z0-9_]{0,63}$")


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its number from 1. `fence`: the opening or closing line of a code block, `code`: inside one."""

    number: int
    text: str
    code: bool = False
    fence: bool = False
    language: str = ""

    def heading(self) -> tuple[int, str] | None:
        """Level and text of a heading outside code."""
        if self.code or self.fence:
            return None
        match = _HEADING.match(self.text)
        return (len(match[1]), match[2]) if match else None


def parse(markdown: str) -> Plan:
    """The plan in `markdown`. Raises a 422 AppError whose fields are `body.plan`, each naming a line."""
    problems = Problems()
    if len(markdown) > MAX_CHARACTERS:
        problems.add(1, f"a plan has at most {MAX_CHARACTERS} characters")
        raise refusal(problems)
    lines = _lines(markdown, problems)
    title, head, sections = _split(lines, problems)
    budget, description = _head(head, problems)
    requirements = _requirements(sections.get("requirements", []), problems)
    tasks = _tasks(sections.get("tasks", []), {requirement.key for requirement in requirements}, problems)
    if not tasks:
        problems.add(len(lines) or 1, "a plan needs a section '## Tasks' with at least one task")
    order = _order(tasks, problems)
    if problems.found:
        raise refusal(problems)
    return Plan(
        title=title,
        description=description,
        budget_micro_usd=budget,
        requirements=tuple(requirements),
        design=_text(sections.get("design", [])),
        tasks=tuple(tasks),
        order=tuple(order),
    )


def refusal(problems: Problems) -> AppError:
    """The 422 for these problems, in the order of their lines."""
    found = sorted(problems.found, key=lambda problem: problem.line)
    return invalid_fields(
        FieldError(
            ("body", "plan"), f"line {problem.line}: {problem.message}", "plan_error", ctx={"line": problem.line}
        )
        for problem in found
    )


def parse_ears(text: str) -> tuple[str, str] | None:
    """Condition and action of an EARS sentence, None when it is none. Without a condition it is "General"."""
    match = _EARS.match(" ".join(text.split()))
    if match is None:
        return None
    condition = match["condition"]
    keyword = match["keyword"]
    action = match["action"].rstrip(". ")
    if condition is None:
        return "General", action
    return (condition.strip() if keyword == "WHEN" else f"{keyword} {condition.strip()}"), action


def _lines(markdown: str, problems: Problems) -> list[Line]:
    lines: list[Line] = []
    fence: str | None = None
    opened = 0
    for number, text in enumerate(markdown.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        match = _FENCE.match(text)
        if fence is None and match:
            fence, opened = match[1], number
            lines.append(Line(number, text, fence=True, language=match[2].lower()))
        elif fence is not None and match and match[1][0] == fence[0] and len(match[1]) >= len(fence) and not match[2]:
            fence = None
            lines.append(Line(number, text, fence=True))
        else:
            lines.append(Line(number, text, code=fence is not None))
    if fence is not None:
        problems.add(opened, "this code block is never closed")
    return lines


def _split(lines: list[Line], problems: Problems) -> tuple[str, list[Line], dict[str, list[Line]]]:
    """Title, the lines before the first section, and the lines of each section by its name in lower case."""
    title = ""
    head: list[Line] = []
    sections: dict[str, list[Line]] = {}
    current = head
    for line in lines:
        heading = line.heading()
        if heading and heading[0] == 1:
            if title:
                problems.add(line.number, "a plan has one title; use '##' for a section")
            title = title or heading[1]
            if len(title) > MAX_TITLE:
                problems.add(line.number, f"the title has at most {MAX_TITLE} characters")
        elif heading and heading[0] == 2:
            name = heading[1].lower()
            if name not in ("requirements", "design", "tasks"):
                problems.add(line.number, f"unknown section '{heading[1]}': Requirements, Design and Tasks are known")
            elif name in sections:
                problems.add(line.number, f"the section '{heading[1]}' is there twice")
            current = sections.setdefault(name, [])
        else:
            current.append(line)
    if not title:
        problems.add(1, "a plan starts with its title: '# Title'")
    return title, head, sections


def _head(lines: list[Line], problems: Problems) -> tuple[int, str]:
    budget: int | None = None
    rest: list[Line] = []
    for line in lines:
        match = None if line.code or line.fence else _HEAD_FIELD.match(line.text)
        if match is None:
            rest.append(line)
        elif budget is not None:
            problems.add(line.number, "the budget is there twice")
        else:
            budget = _money(match[2].strip(), line.number, problems)
    return budget or 0, _text(rest)


def _money(text: str, number: int, problems: Problems) -> int:
    match = _MONEY.match(text)
    try:
        amount = Decimal((match[1] or match[2]).replace(",", "").replace("_", "")) if match else None
    except InvalidOperation:
        amount = None
    if amount is None:
        problems.add(number, f"'{text}' is no amount; write '2.50 USD' or '$2.50'")
        return 0
    micro = amount * 1_000_000
    if micro != micro.to_integral_value():
        problems.add(number, "a budget has at most six decimals")
        return 0
    if not 0 < amount <= MAX_BUDGET_USD:
        problems.add(number, f"a budget is more than 0 and at most {MAX_BUDGET_USD} USD")
        return 0
    return int(micro)


def _blocks(lines: list[Line], what: str, problems: Problems) -> list[tuple[Line, str, str, list[Line]]]:
    """The `###` blocks of a section: heading line, key, title, body. A key is there once."""
    blocks: list[tuple[Line, str, str, list[Line]]] = []
    seen: dict[str, int] = {}
    for line in lines:
        heading = line.heading()
        if heading and heading[0] == 3:
            match = _KEY.match(heading[1])
            if match is None:
                problems.add(
                    line.number, f"a {what} is headed '### ID: title', its id being letters, digits, '-', '_', '.'"
                )
                blocks.append((line, f"?{line.number}", heading[1], []))
                continue
            key, title = match[1], (match[2] or "").strip()
            if key in seen:
                problems.add(line.number, f"the id '{key}' is used in line {seen[key]} already")
            seen.setdefault(key, line.number)
            if len(title) > MAX_TITLE:
                problems.add(line.number, f"a title has at most {MAX_TITLE} characters")
            blocks.append((line, key, title, []))
        elif blocks:
            blocks[-1][3].append(line)
        elif line.text.strip() and (line.heading() or line.fence or line.code):
            problems.add(line.number, f"expected a {what}: '### ID: title'")
    return blocks


def _requirements(lines: list[Line], problems: Problems) -> list[PlannedRequirement]:
    found: list[PlannedRequirement] = []
    for line, key, title, body in _blocks(lines, "requirement", problems):
        sentence: list[str] = []
        criteria: list[str] = []
        first = line.number
        for part in body:
            if part.code or part.fence:
                continue
            text = part.text.strip()
            item = _ITEM.match(part.text)
            if item:
                criteria.append(item[1].strip())
            elif criteria and text and part.text.startswith((" ", "\t")):
                criteria[-1] += f" {text}"
            elif text and not criteria and not re.match(r"^\**acceptance( criteria)?\**:?\**$", text, re.IGNORECASE):
                if not sentence:
                    first = part.number
                sentence.append(text)
        ears = parse_ears(" ".join(sentence))
        if ears is None:
            problems.add(first, f"requirement '{key}' needs a sentence 'WHEN … THE SYSTEM SHALL …'")
            continue
        condition, action = ears
        found.append(PlannedRequirement(key, title or action[:60], condition, action, tuple(criteria), line.number))
    if len(found) > MAX_REQUIREMENTS:
        problems.add(found[MAX_REQUIREMENTS].line, f"a plan has at most {MAX_REQUIREMENTS} requirements")
    return found


def _tasks(lines: list[Line], requirement_keys: set[str], problems: Problems) -> list[PlannedTask]:
    blocks = _blocks(lines, "task", problems)
    if len(blocks) > MAX_TASKS:
        problems.add(blocks[MAX_TASKS][0].number, f"a plan has at most {MAX_TASKS} tasks")
        return []
    keys = {key for _, key, _, _ in blocks}
    return [_task(line, key, title, body, keys, requirement_keys, problems) for line, key, title, body in blocks]


def _task(
    line: Line,
    key: str,
    title: str,
    body: list[Line],
    keys: set[str],
    requirement_keys: set[str],
    problems: Problems,
) -> PlannedTask:
    values, numbers, rest = _field_list(body, problems)
    environment = _environment(body[: len(body) - len(rest)], problems) if "env" in values else {}
    commands, description = _commands(rest)
    commands = [value for value in values.get("command", []) if value] + commands

    def names(name: str) -> tuple[str, ...]:
        text = ",".join(values.get(name, []))
        parts = (part.strip().strip("`") for part in text.split(","))
        return tuple(dict.fromkeys(part for part in parts if part and part.lower() not in ("none", "-")))

    for dependency in names("depends"):
        if dependency == key:
            problems.add(numbers["depends"], f"task '{key}' depends on itself")
        elif dependency not in keys:
            problems.add(numbers["depends"], f"task '{key}' depends on '{dependency}', which no task is called")
    for requirement in names("requirements"):
        if requirement not in requirement_keys:
            problems.add(numbers["requirements"], f"'{requirement}' is no requirement of this plan")
    priority = (values.get("priority", ["MEDIUM"])[-1] or "MEDIUM").upper()
    if priority not in PRIORITIES:
        problems.add(numbers["priority"], f"'{priority.lower()}' is no priority: critical, high, medium or low")
    task_type = values.get("type", ["implement_feature"])[-1]
    if not _TASK_TYPE.match(task_type):
        problems.add(numbers["type"], f"'{task_type}' is no task type: small letters, digits and '_'")
    if not commands:
        problems.add(line.number, f"task '{key}' has no command: add '- Command: …' or a block of shell code")
    if not title:
        problems.add(line.number, f"task '{key}' has no title: '### {key}: title'")
    if len(description) > MAX_DESCRIPTION:
        problems.add(line.number, f"the description of task '{key}' has more than {MAX_DESCRIPTION} characters")
    return PlannedTask(
        key=key,
        title=title,
        description=description,
        depends_on=tuple(name for name in names("depends") if name != key),
        requirements=names("requirements"),
        files=names("files"),
        commands=tuple(commands),
        environment=environment,
        capabilities=names("capabilities"),
        priority=priority,
        task_type=task_type,
        retries=_retries(values.get("retries"), numbers.get("retries", line.number), problems),
        timeout_s=_timeout(values.get("timeout"), numbers.get("timeout", line.number), problems),
        line=line.number,
    )


def _field_list(body: list[Line], problems: Problems) -> tuple[dict[str, list[str]], dict[str, int], list[Line]]:
    """The list of `- Name: value` right below a heading: values and line numbers by name, and the lines after it."""
    values: dict[str, list[str]] = {}
    numbers: dict[str, int] = {}
    for place, line in enumerate(body):
        if line.code or line.fence or line.heading():
            return values, numbers, body[place:]
        match = _FIELD.match(line.text)
        if match is None:
            if line.text.strip():
                return values, numbers, body[place:]
            continue
        name = _FIELDS.get(match[1].strip().lower())
        if name is None:
            known = "Depends, Requirements, Files, Command, Env, Capabilities, Priority, Type, Retries, Timeout"
            problems.add(line.number, f"unknown field '{match[1].strip()}': {known} are known")
            continue
        if name in values and name not in _REPEATABLE:
            problems.add(line.number, f"the field '{match[1].strip()}' is there twice")
        value = match[2].strip()
        if name == "command" and len(value) > 1 and value[0] == value[-1] == "`":
            value = value[1:-1]
        values.setdefault(name, []).append(value)
        numbers[name] = line.number
    return values, numbers, []


def _environment(body: list[Line], problems: Problems) -> dict[str, str]:
    """The `Env:` fields of a task."""
    found: dict[str, str] = {}
    for line in body:
        field = None if line.code or line.fence else _FIELD.match(line.text)
        if field is None or _FIELDS.get(field[1].strip().lower()) != "env":
            continue
        match = _ENV.match(field[2].strip().strip("`"))
        if match is None:
            problems.add(line.number, "an environment entry is NAME=value")
        else:
            found[match[1]] = match[2]
    return found


def _commands(lines: list[Line]) -> tuple[list[str], str]:
    """The shell blocks, each one command, and everything else as text."""
    commands: list[str] = []
    text: list[Line] = []
    block: list[str] | None = None
    for line in lines:
        if line.fence and block is None and not line.code and line.language in _SHELL and _opens(line, lines):
            block = []
        elif line.fence and block is not None:
            script = [part for part in block if part.strip()]
            if len(script) == 1:
                commands.append(script[0].strip())
            elif script:
                # The exit code of a script is that of its last line; a step that fails must end it.
                commands.append("set -e\n" + "\n".join(block))
            block = None
        elif block is not None:
            block.append(line.text)
        else:
            text.append(line)
    return commands, _text(text)


def _opens(line: Line, lines: list[Line]) -> bool:
    """Whether this fence opens a block: an even number of fences stands before it."""
    return sum(1 for other in lines if other.fence and other.number < line.number) % 2 == 0


def _retries(given: list[str] | None, number: int, problems: Problems) -> int:
    if given is None:
        return DEFAULT_RETRIES
    if not given[-1].isdecimal() or int(given[-1]) > MAX_RETRIES:
        problems.add(number, f"retries is a number from 0 to {MAX_RETRIES}")
        return DEFAULT_RETRIES
    return int(given[-1])


def _timeout(given: list[str] | None, number: int, problems: Problems) -> int | None:
    if given is None:
        return None
    match = _DURATION.match(given[-1])
    unit = (match[2] or "s").lower()[0] if match else "s"
    seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600}[unit] if match else 0
    if not 0 < seconds <= MAX_TIMEOUT_S:
        problems.add(number, f"a timeout is a duration like '90s', '10m' or '1h', at most {MAX_TIMEOUT_S // 3600}h")
        return None
    return seconds


def _order(tasks: list[PlannedTask], problems: Problems) -> list[str]:
    keys = list(dict.fromkeys(task.key for task in tasks))
    edges = [(before, task.key) for task in tasks for before in task.depends_on]
    cycle = dag.find_cycle(keys, edges)
    if cycle is None:
        return dag.topological(keys, edges)
    by_key = {task.key: task for task in tasks}
    problems.add(
        min(by_key[key].line for key in cycle), "these tasks depend on each other: " + " → ".join([*cycle, cycle[0]])
    )
    return []


def _text(lines: list[Line]) -> str:
    return "\n".join(line.text for line in lines).strip()
