"""`python -m omoios_demo [--repo PATH_OR_URL] [--plan FILE] [--push]`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from omoios_demo import outcome
from omoios_demo import repository as repositories
from omoios_demo.account import KEY_FILE
from omoios_demo.errors import DemoError
from omoios_demo.job import DEFAULT_PLAN, Done, Job, Options, logs_hint
from omoios_demo.screen import Screen
from omoios_local.client import StackClient
from omoios_local.control import ControlError
from omoios_local.state import StateError, repository_root

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    repo: Annotated[str, typer.Option(help="path or URL of a git repository; this project's own without it")] = "",
    plan: Annotated[Path, typer.Option(help="a plan, see docs/conventions/plan-format.md")] = DEFAULT_PLAN,
    push: Annotated[bool, typer.Option(help="push the merged branch to the repository that was given")] = False,
    ceiling_s: Annotated[float, typer.Option(help="seconds that the agents may take", min=10)] = 900.0,
) -> None:
    """From a spec to merged commits: the whole stack on a real repository."""
    plain = not sys.stdout.isatty() or os.environ.get("CI", "").lower() in ("1", "true", "yes")
    console = Console(width=None if sys.stdout.isatty() else 160)
    screen = Screen(console, plain=plain)
    client = StackClient.here()
    options = Options(repo or str(repository_root()), plan, push, ceiling_s)
    try:
        job = Job(client, screen, options)
        with screen.running():
            done = job.run()
            assert job.live is not None
            with screen.step("result", "reading everything back through the gateway") as step:
                found = outcome.collect(job.api, client, done, job.live)
                step.done(f"{len(found.merged)} merged commits, each linked to its ticket")
            if push:
                _push(screen, job, done)
        outcome.show(console, screen, job.api, done, found, job.live, client.state.secrets / KEY_FILE)
        took = screen.elapsed_s
        console.print(f"\nDone in {took:.1f} s. The stack stays up; `make down` ends it.", highlight=False)
    except (DemoError, ControlError, StateError, ValueError, RuntimeError) as error:
        console.print(f"\nThe demo failed: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        console.print(logs_hint(client), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("\ninterrupted; the stack stays up, `make down` ends it")
        raise typer.Exit(130) from None


def _push(screen: Screen, job: Job, done: Done) -> None:
    branch = str(done.spec["target_branch"])
    with screen.step("push", f"pushing {branch}") as step:
        job.api.post("/branch-workflow/push", {"project_id": done.project["id"], "branch_name": branch})
        repositories.push(done.repository, branch)
        where = repositories.without_credentials(done.repository.origin or "")
        step.done(f"branch {branch} is in {where}; your checkout was not touched")


def main() -> None:
    app()
