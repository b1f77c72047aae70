"""`python -m omoios_local`: start, look at and operate the embedded stack."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from omoios_local import operations, screen
from omoios_local.client import StackClient, log_files
from omoios_local.ports import LARGEST_OFFSET
from omoios_local.terminal import console, failures

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None)
Part = Annotated[str, typer.Argument(help="postgres, nats, redis, mail, edge, gateway, runner or a service")]
InstanceNumber = Annotated[int | None, typer.Option("--instance", help="only this instance, counted from 1")]


@app.callback()
def choose(
    context: typer.Context,
    port_offset: Annotated[
        int | None, typer.Option(help="shift every port; the same as OMOIOS_PORT_OFFSET", min=0, max=LARGEST_OFFSET)
    ] = None,
) -> None:
    """Everything below works on the stack of this clone, or on the one in OMOIOS_STATE_DIR."""
    with failures():
        context.obj = StackClient.here(port_offset)


@app.command()
def up(
    context: typer.Context,
    only: Annotated[
        list[str] | None, typer.Option(help="only this part and what it needs; repeat or use commas")
    ] = None,
    instances: Annotated[list[str] | None, typer.Option(help="number of processes, as in workflow=2")] = None,
) -> None:
    """Start what does not run yet, migrate, and wait until everything is ready. Twice is a no-op."""
    client: StackClient = context.obj
    with failures():
        began = time.monotonic()
        chosen = [name for item in only or [] for name in item.split(",") if name]
        units = client.up(chosen or None, parse_instances(instances or []), screen.progress_printer(console))
        running = sum(1 for unit in units if unit.get("pid"))
        console.print(f"{running} processes ready after {time.monotonic() - began:.1f} s")
        if any(unit["part"] == "gateway" for unit in units):
            url = client.stack().environments.public_url
            console.print(f"gateway {url}   documentation {url}/docs")
            console.print(f"mails {client.stack().mail_page_url}", soft_wrap=True)


def parse_instances(given: list[str]) -> dict[str, int]:
    """`["workflow=2"]` → `{"workflow": 2}`. Raises ValueError."""
    found = {}
    for item in (part for text in given for part in text.split(",") if part):
        name, separator, number = item.partition("=")
        if not separator or not number.isdigit():
            raise ValueError(f"--instances takes name=number, not {item!r}")
        found[name] = int(number)
    return found


@app.command()
def down(context: typer.Context) -> None:
    """End every process of the stack and the supervisor. Data stay."""
    client: StackClient = context.obj
    with failures():
        was_running = client.state.supervised()
        left = client.down(screen.progress_printer(console))
        for line in left:
            console.print(f"ended {line}, left by a supervisor that died")
        console.print("the stack is down" if was_running or left else "nothing was running")


@app.command()
def reset(context: typer.Context, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """End the stack and delete its data, secrets and logs."""
    client: StackClient = context.obj
    with failures():
        if not client.state.exists():
            console.print(f"there is nothing in {client.state.directory}")
            return
        if not yes and not typer.confirm(f"Delete all data in {client.state.directory}?"):
            raise typer.Exit(1)
        client.down()
        client.state.delete()
        console.print(f"deleted {client.state.directory}")


@app.command()
def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Processes, memory, outbox age, consumer lag, dead letters, disk use, and last what is wrong.

    Exit code 3 when nothing runs.
    """
    from omoios_local import observe, problems

    client: StackClient = context.obj
    with failures():
        units = observe.add_process_figures(client.status())
        figures = observe.collect(client) if units else None
        found = problems.find(units, figures.as_dict()) if figures else []
        if as_json:
            content = {
                "state_directory": str(client.state.directory),
                "port_offset": client.offset,
                "running": bool(units),
                "units": units,
                **(figures.as_dict() if figures else {}),
                "problems": [problem.as_dict() for problem in found],
            }
            print(json.dumps(content, indent=1))
        elif figures is None:
            console.print("the stack is not running; start it with `make up`")
        else:
            console.print(screen.processes_table(units))
            console.print(screen.steps_text(units))
            console.print()
            console.print(screen.figures_view(figures))
            console.print()
            console.print(screen.problems_text(found), soft_wrap=True)
    if not units:
        raise typer.Exit(3)


@app.command()
def logs(
    context: typer.Context,
    part: Annotated[str | None, typer.Argument(help="one part; everything without it")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as lines are written")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="lines per file to begin with", min=0)] = 40,
    problems: Annotated[bool, typer.Option("--problems", help="only warnings and errors; does not follow")] = False,
) -> None:
    """Print logs."""
    from omoios_local import logview

    client: StackClient = context.obj
    with failures():
        files = log_files(client.state, part)
        if problems:
            logview.show_problems(files, lines)
        else:
            logview.show(files, lines, follow)


@app.command()
def kill(
    context: typer.Context,
    part: Part,
    signal_name: Annotated[str, typer.Option("--signal", help="STOP, CONT, KILL or TERM")] = "KILL",
    instance: InstanceNumber = None,
) -> None:
    """Send a signal to a part's processes; the supervisor starts again what ends."""
    client: StackClient = context.obj
    with failures():
        name = signal_name.upper().removeprefix("SIG")
        if name not in ("STOP", "CONT", "KILL", "TERM"):
            raise ValueError(f"signal {signal_name} is not one of STOP, CONT, KILL, TERM")
        pids = client.kill(part, name, instance)
        console.print(f"sent {name} to {part}, pid {', '.join(map(str, pids))}")


@app.command()
def restart(context: typer.Context, part: Part, instance: InstanceNumber = None) -> None:
    """End a part's processes one after the other and wait until each is ready again."""
    client: StackClient = context.obj
    with failures():
        for unit in client.restart(part, instance):
            console.print(f"{screen.part_name(unit)} is ready, pid {unit['pid']}")


@app.command("allow-repositories")
def allow_repositories(
    context: typer.Context, folder: Annotated[Path, typer.Argument(help="a folder on this machine")]
) -> None:
    """Let projects name repositories below a folder by their path. A running vcs is restarted."""
    client: StackClient = context.obj
    with failures():
        new = client.allow_repositories(folder)
        console.print(f"repositories below {folder.resolve()} {'are now' if new else 'were already'} allowed")


@app.command()
def migrate(context: typer.Context) -> None:
    """Bring the databases of the running stack to the newest revision."""
    client: StackClient = context.obj
    with failures():
        for unit in client.migrate():
            if unit["part"].startswith("migrate-"):
                console.print(f"{unit['part'].removeprefix('migrate-')}: {unit['detail']}")


app.add_typer(operations.app)
