"""The runner as a process of its own, against the running service and a real git server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

ORGANIZATION = "org-1"


async def test_tasks_are_worked_on_side_by_side_and_pushed(working: Any) -> None:
    working.add("task-a", "echo made > made.txt", "cat made.txt", "env | sort", "ps -ef || true", "id -u")
    working.add("task-b", "seq 1 2500", "echo problem >&2")
    working.add("task-c", "echo first", "exit 3", "echo never")
    working.runners.start(slots="2", labels='["python"]')
    queue = working.workflow.queue
    await working.until(lambda: all(queue[name].status in {"completed", "failed"} for name in queue))

    made = queue["task-a"]
    assert made.status == "completed", working.runners.said()
    assert [command["exit_code"] for command in made.result["commands"]] == [0] * 5
    assert made.result["engine"] == "command"
    assert working.git.show("omoios/task-a-1:made.txt") == "made"
    message = working.git.show("omoios/task-a-1")
    assert "Task: task-a" in message
    assert "Ticket: ticket-1" in message
    assert working.vcs.finished[0][2] or working.vcs.finished[1][2]

    said = "\n".join(event["event_data"]["line"] for event in await working.events(made.sandbox_id, "agent.output"))
    assert "IS_SANDBOX=1" in said
    assert "do-not-tell" not in said
    assert "OMOIOS_RUNNER" not in said
    if os.geteuid() == 0:
        assert int(said.splitlines()[-1]) >= 61_000
    for token in [working.owner, *working.git.passwords]:
        assert token not in said
        assert token not in working.runners.said()
    assert working.git.passwords
    assert working.owner not in working.git.passwords

    (began,) = await working.events(made.sandbox_id, "agent.started")
    assert began["event_data"]["ticket_title"] == "Ticket"

    numbers = queue["task-b"]
    events = await working.events(numbers.sandbox_id, "agent.output")
    lines = [event["event_data"]["line"] for event in events if event["event_data"]["stream"] == "stdout"]
    assert lines == [str(number) for number in range(1, 2501)]
    assert [event["event_data"]["line"] for event in events if event["event_data"]["stream"] == "stderr"] == ["problem"]
    assert numbers.head_sha == ""

    failed = queue["task-c"]
    assert failed.status == "failed"
    assert failed.error == "Command failed with exit code 3: exit 3"
    assert [command["exit_code"] for command in failed.result["commands"]] == [0, 3]


async def test_output_survives_an_api_that_is_away(working: Any) -> None:
    task = working.add("task-a", "for n in $(seq 1 60); do echo $n; sleep 0.03; done")
    working.runners.start()
    await working.until(lambda: task.status == "running")
    await asyncio.sleep(0.4)
    working.door.close_door()
    await asyncio.sleep(2.0)
    working.door.shut = False
    await working.until(lambda: task.status == "completed")
    lines = [event["event_data"]["line"] for event in await working.events(task.sandbox_id, "agent.output")]
    assert lines == [str(number) for number in range(1, 61)]


def _alive(marker: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{name}/cmdline").read_bytes()
                if marker.encode() in command.split(b"\0"):
                    found.append(int(name))
    return found


async def test_a_cancel_kills_the_whole_tree(working: Any) -> None:
    task = working.add("task-a", "(setsid sleep 7341 &) ; sleep 7341 & sleep 7341")
    working.runners.start()
    await working.until(lambda: len(_alive("7341")) == 3)
    task.status = "cancelled"
    await working.until(lambda: not _alive("7341"), 5)
    await working.until(lambda: not list((working.runners.folder / "work").iterdir()), 5)
    assert working.git.log("omoios/task-a-1") == []


async def test_a_killed_runner_takes_its_commands_along_and_its_task_is_done_once(working: Any) -> None:
    task = working.add("task-a", "echo $OMOIOS_SANDBOX_ID > who.txt", "sleep 7342", attempts=9)
    dead = working.runners.start()
    await working.until(lambda: len(_alive("7342")) == 1)
    first = task.sandbox_id
    await working.runners.stop(dead, signal.SIGKILL)
    await working.until(lambda: not _alive("7342"), 5)
    # Its lease runs out: the queue hands the task out again.
    task.config["commands"] = ["echo $OMOIOS_SANDBOX_ID > who.txt"]
    task.status = "pending"
    working.runners.start()
    await working.until(lambda: task.status == "completed")
    # A claim of the dead runner may be under way still: what it gets is given back, and counts as an attempt.
    assert task.attempt >= 2
    assert all(working.git.log(f"omoios/task-a-{attempt}") == [] for attempt in range(1, task.attempt))
    assert working.git.show(f"omoios/task-a-{task.attempt}:who.txt") == task.sandbox_id != first


async def test_sigterm_gives_the_tasks_back(working: Any) -> None:
    task = working.add("task-a", "sleep 7343")
    runner = working.runners.start()
    await working.until(lambda: len(_alive("7343")) == 1)
    assert await working.runners.stop(runner) == 0
    assert task.status == "pending"
    assert not _alive("7343")


async def test_an_interrupt_stops_the_command(working: Any) -> None:
    task = working.add("task-a", "sleep 7344")
    working.runners.start()
    await working.until(lambda: len(_alive("7344")) == 1)
    answer = await working.running.http.post(
        f"/api/v1/sandboxes/{task.sandbox_id}/messages",
        json={"content": "stop", "message_type": "interrupt"},
        headers={"Authorization": f"Bearer {working.owner}"},
    )
    assert answer.status_code == 200, answer.text
    await working.until(lambda: task.status == "failed", 10)
    assert task.error == "Interrupted by a message: sleep 7344"


async def test_a_timeout_and_a_bad_plan_fail_with_their_reason(working: Any) -> None:
    slow = working.add("task-a", "sleep 7345")
    slow.timeout_s = 1
    wrong = working.add("task-b", engine="magic")
    cli = working.add("task-c", engine="cli", template="cp {prompt_file} {workdir}/prompt.md")
    refused = working.add("task-d", "true")
    working.vcs.refuse_finish.add("task-d")
    working.runners.start(slots="4")
    await working.until(lambda: all(task.status in {"failed", "completed"} for task in (slow, wrong, cli, refused)))
    assert slow.error == "Timed out after 1 s: sleep 7345"
    assert refused.error == "The result was refused: 409: The branch does not stand at this commit."
    assert wrong.error == "This runner has no engine named 'magic'."
    assert cli.status == "completed", cli.error
    assert "# Title of task-c" in working.git.show("omoios/task-c-1:prompt.md")


async def test_a_hostile_repository_gains_nothing(working: Any) -> None:
    trap = working.runners.folder / "trapped"
    trap_text = f"touch {trap}-$(id -u)"
    task = working.add(
        "task-a",
        "git config filter.x.clean 'sh -c \"" + trap_text + "; cat\"'; echo '* filter=x' > .gitattributes",
        f"printf '#!/bin/sh\\n{trap_text}\\n' > .git/hooks/pre-push; chmod +x .git/hooks/pre-push",
        "git config url.http://127.0.0.1:1/.insteadOf http://; git config core.sshCommand 'touch nothing'",
        "git config credential.helper '!cat > /dev/null'; echo new > new.txt",
    )
    working.runners.start()
    await working.until(lambda: task.status in {"completed", "failed"})
    assert task.status == "completed", task.error
    assert "new.txt" in working.git.show("omoios/task-a-1")
    assert not [name for name in os.listdir(trap.parent) if name.startswith("trapped-")]


async def test_a_huge_command_runs_and_is_told_in_short(working: Any) -> None:
    """A hundred thousand characters are what a task may have; an event holds no more bytes than that."""
    padding = "é" * 55_000
    good = working.add("task-a", f": {padding}; echo done")
    bad = working.add("task-b", f": {padding}; exit 7")
    working.runners.start(slots="2")
    await working.until(lambda: {good.status, bad.status} <= {"completed", "failed"})
    assert good.status == "completed", good.error
    assert [event["event_data"]["line"] for event in await working.events(good.sandbox_id, "agent.output")] == ["done"]
    assert bad.error.startswith("Command failed with exit code 7: : é")
    assert "more characters" in bad.error
    assert len(bad.error) < 10_000
    assert "more characters" in bad.result["commands"][0]["command"]


async def test_a_command_that_no_system_takes_fails_with_its_reason(working: Any) -> None:
    """Linux takes 128 KiB in one argument."""
    task = working.add("task-a", f": {'é' * 90_000}")
    working.runners.start()
    await working.until(lambda: task.status in {"completed", "failed"})
    assert task.status == "failed"
    assert task.error.startswith("Command failed with exit code")
