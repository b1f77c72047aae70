"""What the person sees: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

EVENTS_SHOWN = 6
COLOURS = {"completed": "green", "merged": "green", "running": "cyan", "retry": "yellow", "failed": "red"}


@dataclass(frozen=True)
class TaskLine:
    """One task as it stands. `state`: waiting, running, retry, merging, completed or failed."""

    key: str
    title: str
    state: str
    attempts: int
    needs: Sequence[str]
    note: str = ""


@dataclass
class Step:
    """One step of the demo with the time that it took, in seconds."""

    name: str
    doing: str
    began: float = field(default_factory=time.monotonic)
    took_s: float | None = None
    said: str = ""

    def done(self, said: str) -> None:
        self.said = said


class Screen:
    """Steps, tasks and events. With `plain` every change is one line; else all is one picture that stays current."""

    def __init__(self, console: Console, *, plain: bool) -> None:
        self.console = console
        self.plain = plain
        self.began = time.monotonic()
        self.steps: list[Step] = []
        self._tasks: dict[str, TaskLine] = {}
        self._events: deque[str] = deque(maxlen=EVENTS_SHOWN)
        self._lock = threading.Lock()
        self._live: Live | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.began

    @contextlib.contextmanager
    def running(self) -> Iterator[Screen]:
        """Show until the block ends; what stands then stays on the screen."""
        if self.plain:
            yield self
            return
        with Live(get_renderable=self._picture, console=self.console, refresh_per_second=8) as live:
            self._live = live
            yield self
            self._events.clear()

    @contextlib.contextmanager
    def step(self, name: str, doing: str) -> Iterator[Step]:
        """One step; its time is taken, and what it says at its end is shown."""
        step = Step(name, doing)
        with self._lock:
            self.steps.append(step)
        if self.plain:
            self._line(f"{name}: {doing}")
        yield step
        step.took_s = time.monotonic() - step.began
        if self.plain and step.said:
            self._line(f"{name}: {step.said} ({step.took_s:.1f} s)")

    def tasks(self, lines: Sequence[TaskLine]) -> None:
        """How the tasks stand now."""
        for line in lines:
            before = self._tasks.get(line.key)
            if self.plain and (before is None or (before.state, before.attempts) != (line.state, line.attempts)):
                attempt = f", attempt {line.attempts}" if line.attempts else ""
                self._line(f"task {line.key}: {line.state}{attempt} {line.note}".rstrip())
        with self._lock:
            self._tasks = {line.key: line for line in lines}

    def event(self, text: str, *, loud: bool) -> None:
        """One live event. Plain output shows `loud` ones only: every line of output is an event, too."""
        with self._lock:
            self._events.append(text)
        if self.plain and loud:
            self._line(f"event {text}")

    def say(self, text: str) -> None:
        """One line that stays."""
        if self.plain:
            self._line(text)
        else:
            self.console.print(text, highlight=False, markup=False)

    def _line(self, text: str) -> None:
        self.console.print(f"[{self.elapsed_s:6.1f} s] {text}", markup=False, highlight=False, soft_wrap=True)

    def _picture(self) -> RenderableType:
        with self._lock:
            steps, tasks, events = list(self.steps), list(self._tasks.values()), list(self._events)
        picture: list[RenderableType] = [self._steps_table(steps)]
        if tasks:
            picture += [Text(), self._tasks_table(tasks)]
        if events:
            picture += [Text(), *(Text(f"  {text}", "dim", no_wrap=True, overflow="ellipsis") for text in events)]
        return Group(*picture)

    def _steps_table(self, steps: Sequence[Step]) -> Table:
        table = Table.grid(padding=(0, 1))
        for step in steps:
            if step.took_s is None:
                took = time.monotonic() - step.began
                table.add_row(Spinner("dots", style="cyan"), Text(step.name, "bold"), step.doing, _seconds(took))
            else:
                table.add_row(Text("✓", "green"), Text(step.name, "bold"), step.said, _seconds(step.took_s))
        return table

    def _tasks_table(self, tasks: Sequence[TaskLine]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("task", "state", "attempts", "after", "title"):
            table.add_column(heading, justify="right" if heading == "attempts" else "left", no_wrap=heading != "title")
        for task in tasks:
            state = Text(task.state, COLOURS.get(task.state, "dim"))
            table.add_row(task.key, state, str(task.attempts or ""), ", ".join(task.needs), task.title)
        return table


def _seconds(seconds: float) -> Text:
    return Text(f"{seconds:.1f} s", "dim")
