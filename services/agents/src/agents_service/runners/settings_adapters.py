"""Settings of a runner, from the environment (prefix `OMOIOS_RUNNER_`) and from files."""

from __future__ import annotations

import os
import tempfile
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
    """An access token or API key of a user with `agent:write`; also from the file `OMOIOS_RUNNER_TOKEN_FILE`."""
    email: str | None = None
    password: SecretStr | None = None
    """Also from the file `OMOIOS_RUNNER_PASSWORD_FILE`."""
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
    network: bool = True
    """Whether commands may use the network. A runner that may not give it and has no bubblewrap does not start."""
    wait_s: float = Field(default=20.0, ge=0, le=30)
    """How long a claim waits at the API."""
    keep_folders: bool = False
    """Keep the folders of finished sandboxes, for looking into them."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def load(**values: Any) -> RunnerSettings:
    """The settings of this process; `*_FILE` variables are read. Raises ValueError when a file cannot be read."""
    for name in ("token", "password"):
        path = os.environ.get(f"OMOIOS_RUNNER_{name.upper()}_FILE")
        if path and name not in values:
            try:
                values[name] = SecretStr(Path(path).read_text(encoding="utf-8").strip())
            except OSError as error:
                raise ValueError(f"OMOIOS_RUNNER_{name.upper()}_FILE cannot be read: {error}") from error
    return RunnerSettings(**values)
