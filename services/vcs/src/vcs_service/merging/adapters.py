"""Merging in a bare repository, without a work tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vcs_service.errors import GIT_FAILED
from vcs_service.mirror import rules
from vcs_service.mirror.repository_adapters import Mirrors

# Somebody else may move the target between reading and writing it; each round merges anew on top.
MAX_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Merged:
    """What came of one branch. `outcome`: merged, empty or conflicted; `sha`: where the target stands now."""

    outcome: str
    sha: str
    files: Sequence[str] = field(default_factory=tuple)


class Merger:
    """Merges commits into branches of ours."""

    def __init__(self, mirrors: Mirrors) -> None:
        self._mirrors = mirrors

    async def merge(
        self, project_id: str, target_branch: str, head: str, message: str, *, squash: bool = False
    ) -> Merged:
        """Merges commit `head` into `target_branch`, which must exist; a merge that was made already is found again.

        `squash`: as one commit whose only parent is the target; made already where it would change nothing.
        Raises `vcs.git_failed` for anything that is neither a clean merge nor a conflict.
        """
        ref = rules.head_ref(target_branch)
        for _ in range(MAX_ROUNDS):
            target = await self._mirrors.resolve(project_id, ref)
            if target is None:
                raise GIT_FAILED(f"The branch {target_branch} does not exist.")
            if await self._mirrors.is_ancestor(project_id, head, target):
                return Merged("empty", target)
            tree, conflicts = await self.try_merge(project_id, target, head)
            if tree is None:
                return Merged("conflicted", target, conflicts)
            if squash and tree == await self._mirrors.tree_of(project_id, target):
                return Merged("empty", target)
            commit = await self._commit(project_id, tree, (target,) if squash else (target, head), message)
            if await self._mirrors.set_ref(project_id, ref, commit, target):
                return Merged("merged", commit)
        raise GIT_FAILED(f"The branch {target_branch} kept moving.")

    async def try_merge(self, project_id: str, ours: str, theirs: str) -> tuple[str | None, list[str]]:
        """(tree, []) of a clean merge, (None, conflicting paths) otherwise; nothing is changed.

        `git merge-tree` answers 0 for clean and 1 for conflicts; everything else is an error.
        """
        git = self._mirrors.git
        result = await git.run(
            "merge-tree",
            "--write-tree",
            "--name-only",
            "--no-messages",
            "-z",
            ours,
            theirs,
            repository=git.path(project_id),
            ok=(0, 1),
            timeout_s=120,
        )
        tree, *paths = result.out.decode("utf-8", "replace").split("\0")
        if not rules.is_sha(tree):
            raise GIT_FAILED("git merge-tree answered without a tree.")
        if result.code == 0:
            return tree, []
        return None, sorted({path for path in paths if path})

    async def _commit(self, project_id: str, tree: str, parents: Sequence[str], message: str) -> str:
        git = self._mirrors.git
        arguments = [argument for parent in parents for argument in ("-p", parent)]
        result = await git.run(
            "commit-tree", tree, *arguments, "-F", "-", repository=git.path(project_id), stdin=message.encode()
        )
        return result.text
