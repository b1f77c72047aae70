"""Reading commits from the mirror."""

from __future__ import annotations

from typing import Any

from vcs_service.commits import rules
from vcs_service.commits.rules import CommitFacts
from vcs_service.mirror.adapters import Git

MAX_COMMITS = 500
MAX_PATCH = 256 * 1024


class CommitReader:
    """What git knows of commits."""

    def __init__(self, git: Git) -> None:
        self._git = git

    async def between(self, project_id: str, base: str, head: str) -> list[CommitFacts]:
        """The commits that `head` has and `base` lacks, newest first, 500 at most."""
        result = await self._git.run(
            "log",
            f"--max-count={MAX_COMMITS}",
            f"--format={rules.LOG_FORMAT}",
            "--numstat",
            "--no-renames",
            f"{base}..{head}",
            repository=self._git.path(project_id),
        )
        return rules.parse_log(result.out.decode("utf-8", "replace"))

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
        patch = await self._git.run(*common, "-p", "--no-textconv", sha, repository=repository)
        counted = rules.parse_numstat(numbers.out.decode("utf-8", "replace"))
        patches = rules.split_patch(patch.out.decode("utf-8", "replace"), MAX_PATCH)
        return {
            path: {**counted.get(path, {"additions": 0, "deletions": 0}), "status": kind, "patch": patches.get(path)}
            for path, kind in rules.parse_name_status(status.out).items()
        }
