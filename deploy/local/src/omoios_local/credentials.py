"""The secrets of one stack: one 0600 file per part and purpose, made on first use and kept."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from omoios_local.embedded.process import secret_file, write_private
from omoios_local.ports import SERVICES


@dataclass(frozen=True)
class Credentials:
    """Files below `directory` (0700). Each process is told the paths of its own and of no other."""

    directory: Path

    def database(self, service: str) -> str:
        """Password of the service's database role."""
        return secret_file(self._path(service, "database-password"))

    def nats(self, user: str) -> str:
        """Password of a NATS user: a service, `topology` or `operator`."""
        return secret_file(self._path(user, "nats-password"))

    def nats_file(self, user: str) -> Path:
        return self._existing(user, "nats-password")

    def redis(self, service: str) -> str:
        """Password of the service's Redis user."""
        return secret_file(self._path(service, "redis-password"))

    def service(self, service: str) -> str:
        """What the service exchanges at identity for a service token."""
        return secret_file(self._path(service, "service-secret"))

    def service_file(self, service: str) -> Path:
        return self._existing(service, "service-secret")

    @property
    def envelope_file(self) -> Path:
        """Base64 of the 32 bytes that encrypt secrets at rest."""
        path = self.directory / "envelope-key"
        secret_file(path, lambda: base64.b64encode(secrets.token_bytes(32)).decode())
        return path

    @property
    def mail_page_file(self) -> Path:
        """The key of the page that shows the mails of this stack."""
        path = self.directory / "mail-page-key"
        secret_file(path)
        return path

    def service_digests(self) -> dict[str, str]:
        """Service → SHA-256 (hex) of its secret, by which identity knows callers."""
        return {name: hashlib.sha256(self.service(name).encode()).hexdigest() for name in SERVICES}

    def database_url_file(self, service: str, url: str) -> Path:
        return self._rendered(service, "database-url", url)

    def redis_url_file(self, service: str, url: str) -> Path:
        return self._rendered(service, "redis-url", url)

    def _path(self, owner: str, purpose: str) -> Path:
        return self.directory / f"{owner}.{purpose}"

    def _existing(self, owner: str, purpose: str) -> Path:
        path = self._path(owner, purpose)
        secret_file(path)
        return path

    def _rendered(self, owner: str, purpose: str, text: str) -> Path:
        """A file whose content follows from other secrets and the ports; written only when it changes."""
        path = self._path(owner, purpose)
        if not path.exists() or path.read_text() != text:
            write_private(path, text)
        return path

    def open_files(self) -> list[Path]:
        """Files that others than the owner may read: none, ever."""
        found = [(path, path.stat()) for path in self.directory.iterdir()]
        return [path for path, status in found if status.st_mode & 0o077 or status.st_uid != os.geteuid()]
