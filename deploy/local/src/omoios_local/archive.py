"""Reads a backup's file and refuses one that cannot be put in place."""

from __future__ import annotations

import base64
import json
import re
import tarfile
from pathlib import Path
from typing import Any

from omoios_local.state import repository_root

FORMAT = 1
MANIFEST = "manifest.json"
ENVELOPE_KEY = "envelope-key"
ENVELOPE_KEY_BYTES = 32
REVISION = re.compile(r'^revision = "(.+)"$', re.MULTILINE)


class BackupError(RuntimeError):
    """The backup cannot be made or read; the message says why."""


def refuse_newer(manifest: dict[str, Any], chosen: list[str]) -> None:
    """Raises BackupError for a database at a revision that no migration here leads to: no service could read it."""
    for name in chosen:
        revision = manifest.get("revisions", {}).get(name)
        if revision and revision not in revisions(repository_root() / "services" / name / "migrations"):
            raise BackupError(
                f"the backup has {name} at revision {revision}, which this version does not know; "
                "restore it with the version that made it or a newer one"
            )


def revisions(migrations: Path) -> set[str]:
    """Every revision of a folder of migrations."""
    found = (REVISION.search(path.read_text()) for path in (migrations / "versions").glob("*.py"))
    return {match[1] for match in found if match}


def backup_key(content: Path, present: str, *, whole: bool) -> str:
    """The backup's envelope key. One service alone cannot change the key that all of them use. Raises BackupError."""
    try:
        key = (content / ENVELOPE_KEY).read_text().strip()
        sound = {len(base64.b64decode(one, validate=True)) for one in key.split()} == {ENVELOPE_KEY_BYTES}
    except (OSError, ValueError):
        sound = False
    if not sound:
        raise BackupError("the backup's envelope key is missing or damaged")
    if key != present and not whole:
        raise BackupError("the backup was made with another envelope key; restore all services or none")
    return key


def unpack(file: Path, folder: Path) -> dict[str, Any]:
    try:
        with tarfile.open(file) as archive:
            extract(archive, folder.resolve())
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (OSError, tarfile.TarError, ValueError) as error:
        raise BackupError(f"{file} is not a backup of this stack: {error}") from error
    if not isinstance(manifest, dict):
        raise BackupError(f"{file} is not a backup of this stack: its manifest is no object")
    if manifest.get("format") != FORMAT:
        raise BackupError(f"{file} has format {manifest.get('format')}; this program reads format {FORMAT}")
    return manifest


def extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract files, folders and links that stay below `folder`. Raises TarError for anything else.

    The standard library's own filters are missing before Python 3.11.4.
    """
    archive.extraction_filter = lambda member, _: member
    for member in archive:
        place = folder / member.name
        # Resolved at this moment: a link that came before may lead elsewhere.
        reached = [place.parent.resolve()]
        if member.issym():
            reached.append((place.parent / member.linkname).resolve())
        elif member.islnk():
            reached.append((folder / member.linkname).resolve())
        elif not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name} is neither a file nor a folder")
        if place.is_symlink() or not all(one.is_relative_to(folder) for one in reached):
            raise tarfile.TarError(f"{member.name} leads out of the backup")
        member.mode &= 0o755
        archive.extract(member, folder)
