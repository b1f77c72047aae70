"""Decisions about work in a sandbox: a task's plan, its environment and limits, the confinement's command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ENGINES = ("command", "cli")
MAX_LINE_BYTES = 8_000
"""A longer line of output becomes several events, marked as continued."""
MAX_SHOWN = 8_000
"""Characters of a command in events, errors and the result: the task has the whole of it."""
ENVIRONMENT_ALLOWED = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM"})
RESERVED = ("OMOIOS_", "GIT_", "LD_", "DYLD_", "PYTHONSTARTUP")
"""A task's own environment cannot set these: they would reach into the runner or its git."""
OPEN_FILES = 4_096
PROCESSES = 1_024
FILE_BYTES = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """What an engine is to do. `commands` run in order until one fails; `template` is the CLI engine's command line."""

    engine: str
    commands: tuple[str, ...] = ()
    template: str = ""
    prompt: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Confinement:
    """Where (absolute paths) and as whom commands run. `uid` None: as the runner itself, which is no root then."""

    workdir: str
    home: str
    uid: int | None
    gid: int | None
    hidden: tuple[str, ...] = ()
    hidden_files: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    bubblewrap: bool = False
    network: bool = True
    """Without it commands reach nothing but themselves; only bubblewrap can take it away."""


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """One command as it ran. `exit_code` is negative when a signal ended it; `stopped` says why the runner ended it."""

    command: str
    exit_code: int
    duration_ms: int
    stopped: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The outcome as it is recorded in the task's result."""
        found: dict[str, Any] = {
            "command": shown(self.command),
            "exit_code": self.exit_code,
            "duration_ms": self.duration_ms,
        }
        if self.stopped is not None:
            found["stopped"] = self.stopped
        return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine achieved."""

    success: bool
    engine: str
    commands: tuple[CommandOutcome, ...] = ()
    error: str | None = None
    permanent: bool = False

    def result(self) -> dict[str, Any]:
        """`{engine, commands: [{command, exit_code, duration_ms}]}`: what ran, for the task's result."""
        return {"engine": self.engine, "commands": [command.as_dict() for command in self.commands]}


def plan_of(task: Mapping[str, Any], context: Mapping[str, Any]) -> WorkPlan:
    """The plan in a task's `execution_config`; a plan with `error` cannot be worked on."""
    config = task.get("execution_config")
    config = config if isinstance(config, Mapping) else {}
    engine = str(config.get("engine") or "command")
    if engine not in ENGINES:
        return WorkPlan(engine, error=f"This runner has no engine named {engine!r}.")
    environment = config.get("env")
    environment = environment if isinstance(environment, Mapping) else {}
    own = {
        str(name): str(value)
        for name, value in environment.items()
        if str(name).isidentifier() and not str(name).upper().startswith(RESERVED)
    }
    if engine == "cli":
        template = config.get("template")
        if not isinstance(template, str) or not template.strip():
            return WorkPlan(engine, error="The cli engine needs a command template.")
        return WorkPlan(engine, template=template, prompt=prompt_of(task, context), environment=own)
    commands = config.get("commands")
    if not isinstance(commands, Sequence) or isinstance(commands, str) or not commands:
        return WorkPlan(engine, error="The command engine needs a list of commands.")
    if not all(isinstance(command, str) and command.strip() for command in commands):
        return WorkPlan(engine, error="Each command must be a text that is not empty.")
    return WorkPlan(engine, commands=tuple(commands), environment=own)


def prompt_of(task: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """What a coding CLI is told: title, description, and the ticket around it."""
    parts = [f"# {task.get('title') or task.get('id')}", str(task.get("description") or "")]
    ticket = context.get("ticket")
    if isinstance(ticket, Mapping) and ticket.get("title"):
        parts.append(f"## Ticket\n{ticket['title']}\n{ticket.get('description') or ''}")
    revision = context.get("revision")
    if isinstance(revision, Mapping) and revision.get("feedback"):
        parts.append(f"## Feedback on the last attempt\n{revision['feedback']}")
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def fill_template(template: str, prompt_file: str, workdir: str) -> str:
    """The command line of a CLI: `{prompt_file}` and `{workdir}` replaced by quoted paths, nothing else touched."""
    return template.replace("{prompt_file}", shlex.quote(prompt_file)).replace("{workdir}", shlex.quote(workdir))


def environment_of(
    inherited: Mapping[str, str], own: Mapping[str, str], *, home: str, tmp: str, ids: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a command: an allow-list of the runner's, the task's own, and who it is working for."""
    found = {name: value for name, value in inherited.items() if name in ENVIRONMENT_ALLOWED}
    found.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    found.setdefault("LANG", "C.UTF-8")
    found["TERM"] = "dumb"
    found |= own
    found |= {"HOME": home, "TMPDIR": tmp, "USER": "sandbox", "IS_SANDBOX": "1"}
    # A commit made by a command must not ask who is committing.
    found |= {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    return found | dict(ids)


def split_line(line: bytes) -> list[tuple[str, bool]]:
    """A line of output as `(text, continued)` pieces of bounded length; bytes that are no UTF-8 are replaced."""
    pieces = [line[start : start + MAX_LINE_BYTES] for start in range(0, len(line), MAX_LINE_BYTES)] or [b""]
    return [
        (piece.decode("utf-8", "replace").replace("\x00", "\ufffd"), index < len(pieces) - 1)
        for index, piece in enumerate(pieces)
    ]


def bubblewrap(
    argv: Sequence[str],
    *,
    workdir: str,
    home: str,
    hidden: Sequence[str],
    hidden_files: Sequence[str] = (),
    shown: Sequence[str] = (),
    network: bool = True,
) -> list[str]:
    """`argv` inside bubblewrap: everything read-only but its own folders, other sandboxes and secrets hidden.

    `shown`: folders inside hidden ones that can be read all the same. Without `network` there is a loopback device of
    its own and nothing else.
    """
    command = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--new-session"]
    if not network:
        command.append("--unshare-net")
    command += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for path in hidden:
        command += ["--tmpfs", path]
    for path in hidden_files:
        command += ["--ro-bind", "/dev/null", path]
    for path in shown:
        command += ["--ro-bind-try", path, path]
    return [*command, "--bind", workdir, workdir, "--bind", home, home, "--chdir", workdir, "--", *argv]


def shown(text: str) -> str:
    """`text` as it is told to others: cut where it is long, which the cut says."""
    if len(text) <= MAX_SHOWN:
        return text
    return f"{text[:MAX_SHOWN]}… ({len(text) - MAX_SHOWN} more characters)"


def error_of(commands: Sequence[CommandOutcome]) -> str | None:
    """Why the last command was not a success; None when it was."""
    if not commands:
        return None
    last = commands[-1]
    command = shown(last.command)
    if last.stopped is not None:
        return f"{last.stopped}: {command}"
    if last.exit_code == 0:
        return None
    if last.exit_code < 0:
        return f"Command ended by signal {-last.exit_code}: {command}"
    return f"Command failed with exit code {last.exit_code}: {command}"
