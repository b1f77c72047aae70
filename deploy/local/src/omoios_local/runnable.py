"""What the supervisor runs: processes with readiness, and steps that run once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from omoios_local.embedded.process import Command
from omoios_local.ports import PortClaim


class Runnable(Protocol):
    """One process: made ready to start, described, and asked whether it answers. All three may block for a second."""

    def prepare(self) -> None:
        """Files and folders that the process needs; called before every start. Raises when it cannot start."""

    def command(self) -> Command:
        """The command to run in the foreground."""

    def ready(self) -> bool:
        """Whether the process answers now. Never raises."""


@dataclass(frozen=True)
class PartSpec:
    """A part of the stack that runs as one or several processes."""

    name: str
    make: Callable[[int], Runnable]
    """Instance number (from 1) → the process."""
    needs: tuple[str, ...] = ()
    """Parts and steps that must be ready before a process of this part starts."""
    claims: Callable[[int], list[PortClaim]] = lambda _: []
    """Instance number → ports it listens on, checked before the stack starts."""
    ends_before: tuple[str, ...] = ()
    """Parts that must outlive this one although it starts without them."""
    instances: int = 1
    scalable: bool = False
    """Whether a second instance makes sense."""
    ready_within_s: float = 60.0
    stop_within_s: float = 15.0


@dataclass(frozen=True)
class StepSpec:
    """Work that must be done once before others start; retried with backoff until it succeeds."""

    name: str
    run: Callable[[], str]
    """Blocking; returns what it did in a few words, raises with the reason when it failed."""
    needs: tuple[str, ...] = ()


def order(specs: list[PartSpec | StepSpec]) -> list[str]:
    """Names so that everything comes after what it needs. Raises ValueError on an unknown name or a cycle."""
    needs = {spec.name: spec.needs for spec in specs}
    done: list[str] = []
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in done:
            return
        if name not in needs:
            raise ValueError(f"unknown part {name}")
        if name in visiting:
            raise ValueError(f"{name} needs itself")
        visiting.add(name)
        for needed in needs[name]:
            visit(needed)
        visiting.remove(name)
        done.append(name)

    for name in needs:
        visit(name)
    return done


def closure(specs: list[PartSpec | StepSpec], names: list[str]) -> set[str]:
    """The named parts with everything that they need. Raises ValueError on an unknown name."""
    needs = {spec.name: spec.needs for spec in specs}
    found: set[str] = set()
    open_names = list(names)
    while open_names:
        name = open_names.pop()
        if name not in needs:
            raise ValueError(f"unknown part {name}; known are {', '.join(sorted(needs))}")
        if name not in found:
            found.add(name)
            open_names.extend(needs[name])
    return found
