"""Traefik, the gateway's program, started from a static configuration file."""

from __future__ import annotations

from pathlib import Path

from omoios_local.embedded.process import (
    LOOPBACK,
    Command,
    EmbeddedPart,
    base_environment,
    exchange,
    program,
    write_private,
)

STATIC = """\
global:
  checkNewVersion: false
  sendAnonymousUsage: false
entryPoints:
  web:
    address: "{host}:{port}"
providers:
  file:
    directory: "{dynamic}"
    watch: true
log:
  level: INFO
"""


class EmbeddedTraefik(EmbeddedPart):
    """One Traefik below `directory`.

    `static_file` is a rendered configuration whose entry point listens on `port`; without it a minimal one is written
    that reads every file of `directory/dynamic`. With `ready_path`, ready means that a router answers that path.
    """

    name = "traefik"

    def __init__(
        self, directory: Path, port: int, *, static_file: Path | None = None, ready_path: str | None = None
    ) -> None:
        super().__init__(directory, port)
        self.static_file = static_file or self.directory / "traefik.yml"
        self.ready_path = ready_path
        self._own_config = static_file is None

    @property
    def dynamic_directory(self) -> Path:
        return self.directory / "dynamic"

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._own_config:
            self.dynamic_directory.mkdir(exist_ok=True)
            write_private(
                self.static_file, STATIC.format(host=LOOPBACK, port=self.port, dynamic=self.dynamic_directory)
            )

    def command(self) -> Command:
        argv = (str(program("traefik")), f"--configFile={self.static_file}")
        return Command(argv, base_environment(), self.directory)

    def ready(self) -> bool:
        """True when the entry point answers HTTP and, with `ready_path`, a router and its server stand behind it."""
        path = self.ready_path or "/"
        request = f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n"
        answer = exchange(self.port, request.encode())
        if not answer.startswith(b"HTTP/1."):
            return False
        status = int(answer.split(None, 2)[1])
        return self.ready_path is None or (status != 404 and status < 500)
