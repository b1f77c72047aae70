"""Settings of a runner, from the environment (prefix `OMOIOS_RUNNER_`) and from files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class RunnerSettings(BaseSettings):
    """How a runner joins. One of token (an API key or an access token), or email and password, is needed."""

    model_config = SettingsConfigDict(env_prefix="OMOIOS_RUNNER_", env_ignore_empty=True, frozen=True)

    url: str = "http://127.0.0.1:18000"
    """The gateway."""
    token: SecretStr | None = None
    """An API key or access token of a user with `agent:write`. It is needed again when the agent was given up."""
    token_file: Path | None = None
    """A file with the token."""
    email: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    """A file with the password."""
    organization: str | None = None
    """Organization to work for; not needed by a member of exactly one."""
    name: str = "runner"
    slots: int = Field(default=2, ge=1, le=50)
    """Tasks at the same time."""
    labels: list[str] = Field(default_factory=list)
    """Capabilities offered, a JSON list."""
    workdir: Path = Field(default_factory=lambda: Path(tempfile.gettempdir()) / f"omoios-runner-{os.getuid()}")
    """Where sandboxes live; when the runner is root, every folder above must be open to other users."""
    sandbox_uid_base: int = Field(default=61_000, ge=1_000)
    """First of the user ids that sandboxes get when the runner is root."""
    path: str | None = None
    """PATH of the commands; the runner's own when it is not set."""
    tools: Path | None = None
    """A folder of programs that comes first on the commands' PATH, readable also inside a hidden home folder."""
    bubblewrap: Literal["auto", "off"] = "auto"
    hidden: list[Path] = Field(default_factory=list)
    """More folders that wrapped commands may not read, a JSON list: the own and the home folder are hidden anyway."""
    network: bool = True
    """Whether commands may use the network. A runner that may not give it and has no bubblewrap does not start."""
    wait_s: float = Field(default=20.0, ge=0, le=30)
    """How long a claim waits at the API."""
    keep_folders: bool = False
    """Keep the folders of finished sandboxes, for looking into them."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    def hidden_from(self, uid: int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """`(folders, files)` that a wrapped command of this user (None: the runner's own) does not see.

        From another user than root's the files' modes protect the rest, and bubblewrap cannot cover what that user
        does not reach.
        """
        folders = [self.workdir, Path.home()]
        if uid is not None:
            return to_hide(folders), ()
        folders += [path for path in self.hidden if path.is_dir()]
        hidden = to_hide(path.absolute() for path in folders)
        covered = {Path(path) for path in hidden}
        files = [path.absolute() for path in (self.token_file, self.password_file) if path and path.is_file()]
        return hidden, tuple(str(path) for path in files if not covered.intersection(path.parents))


def to_hide(paths: Iterable[Path]) -> tuple[str, ...]:
    """Folders to cover, each once and none inside another; never all of the machine."""
    found = {path for path in paths if path != path.parent}
    return tuple(sorted(str(path) for path in found if not found.intersection(path.parents)))


def load(**values: Any) -> RunnerSettings:
    """The settings of this process; the files that it names are read. Raises ValueError when one cannot be read."""
    settings = RunnerSettings(**values)
    read: dict[str, SecretStr] = {}
    for name, path in (("token", settings.token_file), ("password", settings.password_file)):
        if path is not None and name not in values:
            try:
                read[name] = SecretStr(path.read_text(encoding="utf-8").strip())
            except OSError as error:
                raise ValueError(f"OMOIOS_RUNNER_{name.upper()}_FILE cannot be read: {error}") from error
    return settings.model_copy(update=read)
