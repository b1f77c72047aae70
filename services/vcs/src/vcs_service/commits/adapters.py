"""Reading commits from the mirror."""

from __future__ import annotations

from typing import Any

import structlog

from vcs_service.commits import rules
from vcs_service.commits.rules import CommitFacts
from vcs_service.mirror.adapters import Git

MAX_COMMITS = 5_000
MAX_PATCH = 256 * 1024

_log = structlog.get_logger(__name__)


class CommitReader:
    """What git knows of commits."""

    def __init__(self, git: Git) -> None:
        self._git = git

    async def between(self, project_id: str, base: str, head: str) -> list[CommitFacts]:
        """The commits that `head` has and `base` lacks, newest first, 5,000 at most."""
        result = await self._git.run(
            "log",
            f"--max-count={MAX_COMMITS}",
            f"--format={rules.LOG_FORMAT}",
            "--numstat",
            "--no-renames",
            f"{base}..{head}",
            repository=self._git.path(project_id),
        )
        commits = rules.parse_log(result.out.decode("utf-8", "replace"))
        if len(commits) == MAX_COMMITS:
            _log.warning("commits_cut", project_id=project_id, base=base, head=head, read=MAX_COMMITS)
        return commits

    async def describe(self, project_id: str, sha: str) -> CommitFacts | None:
        """A commit by its full id or a unique prefix of it; None when the mirror does not have it."""
        repository = self._git.path(project_id)
        if not repository.exists():
            return None
        result = await self._git.run(
            *("log", "--max-count=1", f"--format={rules.LOG_FORMAT}", "--numstat", "--no-renames", "--end-of-options"),
            f"{sha}^{{commit}}",
            repository=repository,
            ok=(0, 128),
        )
        if result.code != 0:
            return None
        return next(iter(rules.parse_log(result.out.decode("utf-8", "replace"))), None)

    async def diff(self, project_id: str, sha: str) -> dict[str, dict[str, Any]] | None:
        """Path → {status, additions, deletions, patch} against the first parent; None when the commit is not here."""
        repository = self._git.path(project_id)
        if not repository.exists():
            return None
        common = (
            "diff-tree",
            "--no-commit-id",
            "--root",
            "-r",
            "-m",
            "--first-parent",
            "--no-renames",
            "--no-ext-diff",
        )
        status = await self._git.run(*common, "--name-status", "-z", sha, repository=repository, ok=(0, 128))
        if status.code != 0:
            return None
        numbers = await self._git.run(*common, "--numstat", sha, repository=repository)
        # A patch of which the end is missing tells its first files; the numbers above tell all of them.
        patch = await self._git.run(*common, "-p", "--no-textconv", sha, repository=repository, cut=True)
        counted = rules.parse_numstat(numbers.out.decode("utf-8", "replace"))
        patches = rules.split_patch(patch.out.decode("utf-8", "replace"), MAX_PATCH)
        return {
            path: {**counted.get(path, {"additions": 0, "deletions": 0}), "status": kind, "patch": patches.get(path)}
            for path, kind in rules.parse_name_status(status.out).items()
        }
