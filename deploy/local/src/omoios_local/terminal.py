"""What every command shares: where it writes, and how expected errors are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from omoios_local.control import ControlError
from omoios_local.state import StateError

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, style="red")


@contextmanager
def failures() -> Iterator[None]:
    """Turns expected errors into a message and exit code 1."""
    try:
        yield
    except typer.Exit:
        # A RuntimeError, too, but its code is said already.
        raise
    except (ControlError, StateError, OSError, RuntimeError, ValueError) as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(1) from None
