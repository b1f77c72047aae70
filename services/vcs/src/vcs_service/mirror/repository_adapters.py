"""What is done to one bare repository: fetch, refs, files."""

from __future__ import annotations

import re
from pathlib import Path

from vcs_service.errors import FILE_NOT_FOUND, FILE_TOO_LARGE, GIT_FAILED
from vcs_service.mirror import rules
from vcs_service.mirror.adapters import FETCH_TIMEOUT_S, Git
from vcs_service.mirror.rules import Source

MAX_FILE = 4 * 1024 * 1024
# git hands no configuration down to the process that serves a local repository. Reading one that belongs to another
# user is what an operator allows by listing its folder; writing there would leave files that its owner cannot change.
_READ_BY = "--upload-pack=git -c 'safe.directory=*' upload-pack"
_WRITE_BY = "--receive-pack=git -c core.hooksPath=/dev/null -c core.fsmonitor=false receive-pack"
_HEAD = re.compile(r"^ref: refs/heads/(?P<branch>\S+)\tHEAD$", re.MULTILINE)


class Mirrors:
    """Bare repositories: the user's branches below `refs/upstream/heads/`, ours below `refs/heads/`.

    The two never mix: a fetch cannot overwrite our branches, and ours are not offered as the user's.
    """

    def __init__(self, git: Git, *, public_only: bool) -> None:
        self.git = git
        self._public_only = public_only

    async def prepare(self, project_id: str) -> Path:
        """The repository's folder, made when it is not there."""
        path = self.git.path(project_id)
        if not (path / "HEAD").exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            await self.git.run("init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(path))
        return path

    async def default_branch(self, source: Source) -> str:
        """The branch that the remote's HEAD names. Raises `vcs.git_failed` when it has none."""
        config = await self.git.pin(source, public_only=self._public_only)
        result = await self.git.run(
            "ls-remote", "--symref", _READ_BY, "--", source.url, "HEAD", config=config, timeout_s=60
        )
        match = _HEAD.search(result.text)
        if match is None:
            raise GIT_FAILED("The repository has no branch that its HEAD names; it may be empty.")
        return match["branch"]

    async def fetch(self, project_id: str, source: Source, *, timeout_s: float = FETCH_TIMEOUT_S) -> None:
        """Brings the user's branches and tags; branches gone there go here, too."""
        path = await self.prepare(project_id)
        config = await self.git.pin(source, public_only=self._public_only)
        await self.git.run(
            "fetch",
            "--quiet",
            "--prune",
            "--no-tags",
            "--no-auto-maintenance",
            _READ_BY,
            "--",
            source.url,
            f"+refs/heads/*:{rules.UPSTREAM}*",
            repository=path,
            config=config,
            timeout_s=timeout_s,
        )

    async def push(self, project_id: str, source: Source, branch: str) -> None:
        """Pushes one of our branches to the user's repository, never by force."""
        config = await self.git.pin(source, public_only=self._public_only)
        ref = rules.head_ref(branch)
        await self.git.run(
            "push",
            "--quiet",
            _WRITE_BY,
            "--",
            source.url,
            f"{ref}:{ref}",
            repository=self.git.path(project_id),
            config=config,
            timeout_s=FETCH_TIMEOUT_S,
        )

    async def resolve(self, project_id: str, ref: str) -> str | None:
        """The commit that a full ref or an object id names, None when there is none."""
        result = await self.git.run(
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            f"{ref}^{{commit}}",
            repository=self.git.path(project_id),
            ok=(0, 1, 128),
        )
        return result.text if result.code == 0 and rules.is_sha(result.text) else None

    async def tree_of(self, project_id: str, commit: str) -> str:
        """The tree of a commit."""
        result = await self.git.run("rev-parse", f"{commit}^{{tree}}", repository=self.git.path(project_id))
        return result.text

    async def find_base(self, project_id: str, branch: str, default_branch: str) -> str | None:
        """The commit a new branch starts from: our branch of that name, else the user's, else his default branch."""
        for ref in (rules.head_ref(branch), rules.UPSTREAM + branch, rules.UPSTREAM + default_branch):
            sha = await self.resolve(project_id, ref)
            if sha is not None:
                return sha
        return None

    async def set_ref(self, project_id: str, ref: str, new: str, old: str) -> bool:
        """Moves a ref from `old` (zeros: it must not exist) to `new`; False when it stood elsewhere."""
        result = await self.git.run(
            "update-ref", "--", ref, new, old, repository=self.git.path(project_id), ok=(0, 1, 128)
        )
        return result.code == 0

    async def delete_ref(self, project_id: str, ref: str, old: str) -> bool:
        """Deletes a ref that stands at `old`; False when it stood elsewhere."""
        result = await self.git.run(
            "update-ref", "-d", "--", ref, old, repository=self.git.path(project_id), ok=(0, 1, 128)
        )
        return result.code == 0

    async def is_ancestor(self, project_id: str, ancestor: str, descendant: str) -> bool:
        """Whether `descendant` contains `ancestor`."""
        result = await self.git.run(
            "merge-base", "--is-ancestor", ancestor, descendant, repository=self.git.path(project_id), ok=(0, 1)
        )
        return result.code == 0

    async def distance(self, project_id: str, base: str, head: str) -> tuple[int, int]:
        """(ahead, behind): commits that `head` has and `base` lacks, and the other way round."""
        result = await self.git.run(
            "rev-list", "--left-right", "--count", f"{base}...{head}", repository=self.git.path(project_id)
        )
        behind, ahead = result.text.split()
        return int(ahead), int(behind)

    async def read_file(self, project_id: str, commit: str, path: str) -> bytes:
        """A file's content at a commit. Raises `vcs.file_not_found`, `vcs.file_too_large` (4 MiB)."""
        repository = self.git.path(project_id)
        entry = await self.git.run(
            "ls-tree", "-z", "--long", "--full-tree", commit, "--", path, repository=repository, ok=(0, 128)
        )
        fields = entry.out.partition(b"\t")[0].split()
        # A symbolic link is a blob as well; its target is text, and following it is nobody's business here.
        if len(fields) != 4 or fields[1] != b"blob" or entry.out.partition(b"\t")[2].rstrip(b"\0") != path.encode():
            raise FILE_NOT_FOUND()
        if int(fields[3]) > MAX_FILE:
            raise FILE_TOO_LARGE()
        return (await self.git.run("cat-file", "blob", fields[2].decode(), repository=repository)).out
