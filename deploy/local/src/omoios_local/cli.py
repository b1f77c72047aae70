"""`python -m omoios_local`: start, look at and operate the embedded stack."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from omoios_local import screen
from omoios_local.client import StackClient, log_files
from omoios_local.control import ControlError
from omoios_local.ports import SERVICES
from omoios_local.stack import OPERATOR_USER
from omoios_local.state import StateError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, style="red")

Part = Annotated[str, typer.Argument(help="postgres, nats, redis, mail, edge, gateway, runner or a service")]
InstanceNumber = Annotated[int | None, typer.Option("--instance", help="only this instance, counted from 1")]


@app.callback()
def choose(
    context: typer.Context,
    port_offset: Annotated[
        int | None, typer.Option(help="shift every port; the same as OMOIOS_PORT_OFFSET", min=0, max=40000)
    ] = None,
) -> None:
    """Everything below works on the stack of this clone, or on the one in OMOIOS_STATE_DIR."""
    with failures():
        context.obj = StackClient.here(port_offset)


@contextmanager
def failures() -> Iterator[None]:
    """Turns expected errors into a message and exit code 1."""
    try:
        yield
    except (ControlError, StateError, ConnectionError, PermissionError, RuntimeError, ValueError) as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None


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
    """Processes, memory, outbox age, consumer lag, dead letters, disk use. Exit code 3 when nothing runs."""
    from omoios_local import observe

    client: StackClient = context.obj
    with failures():
        units = observe.add_process_figures(client.status())
        figures = observe.collect(client) if units else None
        if as_json:
            content = {
                "state_directory": str(client.state.directory),
                "port_offset": client.offset,
                "running": bool(units),
                "units": units,
                **(figures.as_dict() if figures else {}),
            }
            print(json.dumps(content, indent=1))
        elif figures is None:
            console.print("the stack is not running; start it with `make up`")
        else:
            console.print(screen.processes_table(units))
            console.print(screen.steps_text(units))
            console.print()
            console.print(screen.figures_view(figures))
    if not units:
        raise typer.Exit(3)


@app.command()
def logs(
    context: typer.Context,
    part: Annotated[str | None, typer.Argument(help="one part; everything without it")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as lines are written")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="lines per file to begin with", min=0)] = 40,
) -> None:
    """Print logs."""
    from omoios_local import logview

    client: StackClient = context.obj
    with failures():
        logview.show(log_files(client.state, part), lines, follow)


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


@app.command()
def backup(
    context: typer.Context,
    to: Annotated[
        Path | None, typer.Argument(help="file to write, or a folder for one with the time in its name")
    ] = None,
    without_key: Annotated[bool, typer.Option(help="leave the envelope key out; keep it elsewhere")] = False,
) -> None:
    """Save databases, the services' files and the envelope key of the running stack in one file."""
    from omoios_local import backup as backups

    client: StackClient = context.obj
    with failures():
        file = backups.backup(client, to, with_key=not without_key)
        console.print(f"wrote {file} ({screen.bytes_text(file.stat().st_size)})")


@app.command()
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="a file that backup wrote", exists=True, dir_okay=False)],
    only: Annotated[str | None, typer.Option(help="only this service's database and files")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Put a backup back in place of the present data, then start the stack."""
    from omoios_local import backup as backups

    client: StackClient = context.obj
    with failures():
        what = f"the data of {only}" if only else "all data"
        if client.state.exists() and not yes and not typer.confirm(f"Replace {what} by {file}?"):
            raise typer.Exit(1)
        restored = backups.restore(client, file, only)
        console.print(f"restored {', '.join(restored)}")
        client.up(progress=screen.progress_printer(console))


@app.command()
def env(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="a service, edge, topology or operator")],
    instance: Annotated[int, typer.Option(help="which instance's ports", min=1)] = 1,
) -> None:
    """Print the environment of a service, to run one by hand: eval "$(… env workflow)"."""
    client: StackClient = context.obj
    with failures():
        for name, value in sorted(environment_of(client, service, instance).items()):
            if name.startswith("OMOIOS_"):
                print(f"export {name}={shlex.quote(value)}")


def environment_of(client: StackClient, service: str, instance: int = 1) -> dict[str, str]:
    environments = client.stack().environments
    if service == "edge":
        return environments.edge(instance)
    if service in ("topology", OPERATOR_USER):
        return environments.tool(service)
    if service not in SERVICES:
        raise ValueError(f"unknown service {service}; known are {', '.join(SERVICES)}, edge, topology, operator")
    return environments.service(service, instance)


def become(environment: Mapping[str, str], module: str, *arguments: str) -> None:
    """Run a module in the foreground with this terminal; exit with its code."""
    terminal = {name: os.environ[name] for name in ("TERM", "COLUMNS", "NO_COLOR") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments], env={**environment, **terminal}, check=False
    )
    if done.returncode != 0:
        raise typer.Exit(done.returncode)


@app.command()
def admin(
    context: typer.Context, email: Annotated[str, typer.Argument(help="e-mail address of a registered user")]
) -> None:
    """Make a user the platform's super admin."""
    with failures():
        become(environment_of(context.obj, "identity"), "identity_service.admin", "make-admin", "--email", email)


@app.command("rotate-keys")
def rotate_keys(context: typer.Context) -> None:
    """Put a new signing key in use; the one before stays valid for verification."""
    with failures():
        become(environment_of(context.obj, "identity"), "identity_service.admin", "rotate-signing-key")


PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command("events-tail", context_settings=PASS_THROUGH)
def events_tail(context: typer.Context) -> None:
    """Print events as JSON while they happen. Arguments go to servicekit.events.tail."""
    with failures():
        become(environment_of(context.obj, OPERATOR_USER), "servicekit.events.tail", *context.args)


@app.command(context_settings=PASS_THROUGH)
def dlq(context: typer.Context) -> None:
    """List dead letters. Arguments go to servicekit.events.dlq."""
    with failures():
        become(environment_of(context.obj, OPERATOR_USER), "servicekit.events.dlq", "list", *context.args)


@app.command("dlq-replay", context_settings=PASS_THROUGH)
def dlq_replay(context: typer.Context) -> None:
    """Hand dead letters to their consumers again. Arguments go to servicekit.events.dlq."""
    with failures():
        become(environment_of(context.obj, OPERATOR_USER), "servicekit.events.dlq", "replay", *context.args)


@app.command()
def rebuild(
    context: typer.Context,
    service: Annotated[str | None, typer.Argument(help="one service; all of them without it")] = None,
) -> None:
    """Rebuild the read-only projections from their owners' snapshots."""
    with failures():
        for name in [service] if service else SERVICES:
            become(environment_of(context.obj, name), "servicekit.events.rebuild", name)
