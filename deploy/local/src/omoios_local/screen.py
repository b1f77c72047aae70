"""How the command line shows a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    # Importing it here would load the NATS client, half a second of CPU that only `status` needs.
    from collections.abc import Sequence

    from omoios_local.observe import Figures
    from omoios_local.problems import Problem

COLOURS = {"ready": "green", "done": "green", "backoff": "red", "suspended": "yellow", "starting": "yellow"}


def bytes_text(count: float | None) -> str:
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def coloured(state: str) -> Text:
    return Text(state, COLOURS.get(state, "dim"))


def part_name(unit: dict[str, Any]) -> str:
    return unit["part"] if unit["instance"] == 1 else f"{unit['part']} #{unit['instance']}"


def processes_table(units: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("part", "state", "pid", "ports", "memory", "cpu", "restarts", ""):
        table.add_column(heading, justify="right" if heading in ("pid", "memory", "cpu", "restarts") else "left")
    for unit in units:
        if "pid" not in unit:
            continue
        ports = " ".join(str(port) for port in unit["ports"])
        pid = "–" if unit["pid"] is None else str(unit["pid"])
        cpu = "–" if unit["cpu_s"] is None else f"{unit['cpu_s']:.1f} s"
        memory = bytes_text(unit["pss_bytes"])
        table.add_row(
            part_name(unit),
            coloured(unit["state"]),
            pid,
            ports,
            memory,
            cpu,
            str(unit["restarts"]),
            unit["detail"][:60],
        )
    return table


def steps_text(units: list[dict[str, Any]]) -> Text:
    steps = [unit for unit in units if "pid" not in unit]
    open_steps = [
        f"{unit['part']} {unit['state']} {unit['detail'][:100]}".strip() for unit in steps if unit["state"] != "done"
    ]
    done = f"steps done: {len(steps) - len(open_steps)} of {len(steps)}"
    return Text("\n".join([done, *open_steps]), "dim" if not open_steps else "red")


def figures_view(figures: Figures) -> Group:
    outbox = Table(box=None, pad_edge=False)
    for heading in ("database", "size", "outbox rows", "oldest"):
        outbox.add_column(heading, justify="left" if heading == "database" else "right")
    for name, found in figures.outbox.items():
        if "error" in found:
            outbox.add_row(name, Text(found["error"][:70], "red"), "", "")
        else:
            outbox.add_row(name, bytes_text(found["bytes"]), str(found["pending"]), f"{found['oldest_s']:.1f} s")
    durables = Table(box=None, pad_edge=False)
    for heading in ("durable", "stream", "lag", "unacknowledged", "redelivered"):
        durables.add_column(heading, justify="left" if heading in ("durable", "stream") else "right")
    busy = [row for row in figures.consumers if row["pending"] or row["unacknowledged"] or row["redelivered"]]
    for row in busy:
        numbers = (str(row["pending"]), str(row["unacknowledged"]), str(row["redelivered"]))
        durables.add_row(row["durable"], row["stream"], *numbers)
    idle = Text(f"{len(figures.consumers) - len(busy)} of {len(figures.consumers)} durables have no lag", "dim")
    dead = "unknown" if figures.dead_letters is None else str(figures.dead_letters)
    colour = "red" if figures.dead_letters else "dim"
    disk = ", ".join(f"{name} {bytes_text(size)}" for name, size in figures.disk.items() if size > 100_000)
    shown: list[Table | Text] = [outbox, Text()]
    if busy:
        shown.append(durables)
    return Group(*shown, idle, Text(f"dead letters: {dead}", colour), Text(f"disk: {disk}", "dim"))


def problems_text(problems: Sequence[Problem]) -> Text:
    """One line each: where, what, what to do."""
    if not problems:
        return Text("nothing is wrong", "green")
    lines = []
    for problem in problems:
        page = f" ({problem.page})" if problem.page else ""
        lines.append(
            Text.assemble(
                (f"{problem.part:<14}", "bold red"), problem.what, (" → ", "dim"), problem.todo, (page, "dim")
            )
        )
    return Text("\n").join(lines)


def progress_printer(console: Console) -> Any:
    """Prints one line when a part is ready or fails, nothing in between."""

    def show(unit: dict[str, Any]) -> None:
        state = unit["state"]
        if state in ("ready", "done", "backoff", "stopped"):
            after = unit["ready_after_s"]
            when = f"after {after:.1f} s" if state in ("ready", "done") and after is not None else ""
            line = Text.assemble(f"  {part_name(unit):<20}", coloured(state), f"  {when} {unit['detail']}".rstrip())
            console.print(line, soft_wrap=True)

    return show
