"""Pure reading of what git prints about commits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

# Each field has a zero byte before it: the one byte that neither a name nor a message can hold.
LOG_FORMAT = "%x00%H%x00%ct%x00%an%x00%B%x00"
_FIELDS = 5
MAX_MESSAGE = 10_000
MAX_FILES = 2_000

_STATUS = {"A": "added", "M": "modified", "D": "removed", "T": "modified", "R": "renamed", "C": "added"}


@dataclass(frozen=True, slots=True)
class CommitFacts:
    """A commit as git tells it. `files`: path → {status, additions, deletions}."""

    sha: str
    committed_at: datetime
    author: str
    message: str
    files: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def insertions(self) -> int:
        """Lines added over all files."""
        return sum(int(entry["additions"]) for entry in self.files.values())

    @property
    def deletions(self) -> int:
        """Lines removed over all files."""
        return sum(int(entry["deletions"]) for entry in self.files.values())


def parse_log(output: str) -> list[CommitFacts]:
    """The commits of `git log --format=LOG_FORMAT --numstat --no-renames`, newest first."""
    commits = []
    fields = output.split("\0")[1:]
    for start in range(0, len(fields), _FIELDS):
        sha, committed, author, message, rest = fields[start : start + _FIELDS]
        moment = _moment(committed)
        commits.append(CommitFacts(sha, moment, author, message.strip()[:MAX_MESSAGE], parse_numstat(rest)))
    return commits


def _moment(seconds: str) -> datetime:
    """The time of a commit; the beginning of 1970, as git shows it, where the commit names none that a calendar has."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def parse_numstat(output: str) -> dict[str, dict[str, Any]]:
    """Path → {status, additions, deletions} of `--numstat` lines, 2,000 paths at most."""
    files: dict[str, dict[str, Any]] = {}
    for line in output.splitlines():
        parts = line.split("\t", 2)
        if len(parts) == 3 and len(files) < MAX_FILES:
            added, removed, path = parts
            # A binary file has "-" for its counts.
            files[path] = {
                "status": "modified",
                "additions": int(added) if added.isdigit() else 0,
                "deletions": int(removed) if removed.isdigit() else 0,
            }
    return files


def parse_name_status(output: bytes) -> dict[str, str]:
    """Path → status of `git diff-tree --name-status -z --no-renames`."""
    fields = [part.decode("utf-8", "replace") for part in output.split(b"\0") if part]
    return {path: _STATUS.get(code[:1], "modified") for code, path in zip(fields[::2], fields[1::2], strict=False)}


def split_patch(patch: str, limit: int) -> dict[str, str]:
    """Path → its part of a `git diff-tree -p` output, each at most `limit` characters long."""
    parts: dict[str, str] = {}
    for chunk in ("\n" + patch).split("\ndiff --git ")[1:]:
        header, _, _ = chunk.partition("\n")
        path = header.partition(" b/")[2]
        hunks = chunk.find("\n@@")
        if path and hunks >= 0:
            parts[path] = chunk[hunks + 1 :][:limit]
    return parts
