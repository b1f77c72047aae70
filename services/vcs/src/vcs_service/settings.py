"""Settings of this service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The base settings and what only vcs needs. `data_dir` holds the mirrors; all instances share it."""

    http_port: int = Field(default=18106, ge=0, le=65535)
    rpc_port: int = Field(default=18206, ge=0, le=65535)

    repository_roots: list[Path] = Field(default_factory=list)
    """Folders below which repositories may be mirrored by path; none in production unless the operator says so."""
    public_hosts_only: bool | None = None
    """Whether URLs must lead to public addresses; None means: in production."""
    git_processes: int = Field(default=8, ge=1, le=64)
    push_max_bytes: int = Field(default=512 * 1024 * 1024, ge=1024)

    @field_validator("repository_roots")
    @classmethod
    def _resolved(cls, value: list[Path]) -> list[Path]:
        return [path.resolve() for path in value]

    @property
    def mirrors(self) -> Path:
        """The folder of the bare repositories."""
        if self.data_dir is None:
            raise ValueError("OMOIOS_DATA_DIR is needed: it holds the mirrors")
        return self.data_dir / "mirrors"
