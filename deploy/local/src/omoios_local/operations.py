"""Commands on the data and events of a stack: backup, administrators, keys, dead letters, replicas."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from omoios_local import envelope_key, screen
from omoios_local.client import StackClient
from omoios_local.ports import SERVICES
from omoios_local.stack import OPERATOR_USER
from omoios_local.terminal import console, failures

app = typer.Typer()

# The tools behind these commands explain themselves: --help goes through to them, too.
PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


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


@app.command(context_settings=PASS_THROUGH)
def billing(context: typer.Context) -> None:
    """See or change prices and plans. Arguments go to billing_service.admin."""
    with failures():
        become(environment_of(context.obj, "billing"), "billing_service.admin", *context.args)


@app.command("rotate-keys")
def rotate_keys(context: typer.Context) -> None:
    """Put a new signing key in use; the one before stays valid for verification."""
    with failures():
        become(environment_of(context.obj, "identity"), "identity_service.admin", "rotate-signing-key")


@app.command("rotate-envelope-key")
def rotate_envelope_key(
    context: typer.Context,
    forget: Annotated[bool, typer.Option(help="drop the key before as well; open sessions sign in again")] = False,
) -> None:
    """Put a new key for secrets at rest in use and seal all of them anew."""
    with failures():
        envelope_key.rotate(context.obj, forget=forget, say=lambda line: console.print(line, markup=False))


@app.command("audit-verify")
def audit_verify(context: typer.Context) -> None:
    """Walk the chains of the audit trail; names the first broken entry of each."""
    with failures():
        become(environment_of(context.obj, "identity"), "identity_service.admin", "verify-audit")


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
    only: Annotated[list[str] | None, typer.Argument(help="projections, or outbox; all without it")] = None,
) -> None:
    """Rebuild the read-only projections from their owners' snapshots."""
    with failures():
        for name in [service] if service else SERVICES:
            become(environment_of(context.obj, name), "servicekit.events.rebuild", name, *(only or []))
