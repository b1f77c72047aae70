"""Targets hand their arguments to the tools as they were given: what the shell would read otherwise is quoted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def recipe(target: str, *given: str) -> list[str]:
    """The arguments that a target's last command is started with, by way of the shell."""
    command = ["make", "--silent", "--old-file=install", "RUN=printf '%s\\n'", target, *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("target", "given", "words"),
    [
        ("events-tail", ["subject=workflow.>"], ["events-tail", "workflow.>"]),
        ("events-tail", ["subject=workflow.> billing.*.*.v1"], ["events-tail", "workflow.>", "billing.*.*.v1"]),
        ("events-tail", [], ["events-tail"]),
        ("dlq-replay", ["args=3 --durable 'billing-*'"], ["dlq-replay", "3", "--durable", "billing-*"]),
        ("demo", ["repo=/a b/c", "plan=p q.md", "push=1"], ["--repo", "/a b/c", "--plan", "p q.md", "--push"]),
        ("restore", ["file=a b.tar", "yes=1"], ["restore", "a b.tar", "--yes"]),
    ],
)
def test_arguments_arrive_whole(target: str, given: list[str], words: list[str]) -> None:
    assert recipe(target, *given)[-len(words) :] == words
