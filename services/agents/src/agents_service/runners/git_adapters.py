"""git in a sandbox.

Two repositories per attempt: the runner's own bare one, which alone ever sees the token, and the sandbox's clone of it,
which commands may change as they like. What a command wrote into its clone's configuration is never read by a git
that runs as the runner: commits are made in the confinement and come over as a bundle.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from agents_service.runners import rules

GIT_TIMEOUT_S = 600.0
STEP_TIMEOUT_S = 120.0


class GitFailed(Exception):
    """A git command failed; its message holds what it said, never a credential."""


class Workspace:
    """The folders of one attempt: `repo.git` and `bundle` are the runner's, `work` and `home` the sandbox's."""

    def __init__(self, root: Path, uid: int | None) -> None:
        self.root = root
        self.uid = uid
        self.bare = root / "repo.git"
        self.work = root / "sandbox" / "work"
        self.home = root / "sandbox" / "home"
        self.tmp = root / "sandbox" / "home" / "tmp"

    def make(self) -> None:
        """Makes the folders; the sandbox's own belong to its user."""
        # Others may pass through these two, not look into them: the sandbox's user has to reach its folders.
        self.root.mkdir(parents=True, mode=0o711)
        (self.root / "sandbox").mkdir(mode=0o711)
        for folder in (self.work, self.home, self.tmp):
            folder.mkdir(mode=0o700)

    def hand_over(self) -> None:
        """Gives the sandbox's folders to its user; links are not followed."""
        if self.uid is None:
            return
        for top in (self.work, self.home):
            os.lchown(top, self.uid, self.uid)
            for folder, folders, names in os.walk(top, followlinks=False):
                for name in [*folders, *names]:
                    os.lchown(os.path.join(folder, name), self.uid, self.uid)

    def remove(self) -> None:
        """Removes everything of the attempt."""
        shutil.rmtree(self.root, ignore_errors=True)

    async def clone(self, clone_url: str, branch: str, base_sha: str, token: str) -> str:
        """Fetch the branch with the token and check it out for the sandbox; returns the commit it starts from."""
        await self._git(["init", "--quiet", "--bare", str(self.bare)])
        self.bare.chmod(0o700)
        reference = f"refs/heads/{branch}"
        await self._git(
            ["-C", str(self.bare), "fetch", "--quiet", "--no-tags", clone_url, f"+{reference}:{reference}"],
            pairs=[rules.authorization(clone_url, token)],
            timeout_s=GIT_TIMEOUT_S,
        )
        await self._git(["-C", str(self.bare), "symbolic-ref", "HEAD", reference])
        await self._git(
            ["clone", "--quiet", "--no-hardlinks", "--single-branch", str(self.bare), str(self.work)],
            pairs=[("protocol.file.allow", "always")],
            timeout_s=GIT_TIMEOUT_S,
        )
        await self._git(["-C", str(self.work), "remote", "remove", "origin"])
        head = (await self._git(["-C", str(self.bare), "rev-parse", reference])).decode().strip()
        await asyncio.to_thread(self.hand_over)
        return head or base_sha

    async def commit(self, message: str, author: str, start: str) -> str:
        """Commit all changes of the sandbox, as the sandbox; returns the new head, `""` when nothing changed.

        What a command committed itself counts, too.
        """
        inside = ["-C", str(self.work)]
        identity = [("user.name", author), ("user.email", "agent@omoios.invalid"), ("safe.directory", "*")]
        names = await self._inside([*inside, "config", "--list", "--name-only", "-z"], identity)
        identity += rules.without_filters(names.decode("utf-8", "replace").split("\0"))
        await self._git([*inside, "add", "--all"], pairs=identity, confined=True)
        staged = await self._inside([*inside, "diff", "--cached", "--name-only", "--no-ext-diff", "-z"], identity)
        if staged:
            await self._git(
                [*inside, "commit", "--quiet", "--no-verify", "--file", "-"],
                pairs=identity,
                confined=True,
                stdin=message.encode(),
            )
        head = (await self._inside([*inside, "rev-parse", "HEAD"], identity)).decode().strip()
        return "" if head == start else head

    async def push(self, clone_url: str, branch: str, start: str, head: str, token: str) -> None:
        """Bring the sandbox's commits over as a bundle and push them with the token."""
        safe = [("safe.directory", "*")]
        bundle = await self._inside(
            ["-C", str(self.work), "bundle", "create", "--quiet", "-", f"{start}..HEAD"], safe, GIT_TIMEOUT_S
        )
        path = self.root / "bundle"
        await asyncio.to_thread(path.write_bytes, bundle)
        await self._git(["-C", str(self.bare), "bundle", "unbundle", str(path)], timeout_s=GIT_TIMEOUT_S)
        kind = await self._git(["-C", str(self.bare), "cat-file", "-t", head])
        if kind.strip() != b"commit":
            raise GitFailed("the sandbox's head is not among its commits")
        await self._git(
            ["-C", str(self.bare), "push", "--quiet", "--no-verify", clone_url, f"{head}:refs/heads/{branch}"],
            pairs=[rules.authorization(clone_url, token)],
            timeout_s=GIT_TIMEOUT_S,
        )

    async def _inside(
        self, arguments: Sequence[str], pairs: Sequence[tuple[str, str]], timeout_s: float = STEP_TIMEOUT_S
    ) -> bytes:
        return await self._git(arguments, pairs=pairs, confined=True, timeout_s=timeout_s)

    async def _git(
        self,
        arguments: Sequence[str],
        *,
        pairs: Sequence[tuple[str, str]] = (),
        confined: bool = False,
        stdin: bytes = b"",
        timeout_s: float = STEP_TIMEOUT_S,
    ) -> bytes:
        """Run git; `confined` as the sandbox's user. Returns its output, raises GitFailed."""
        identity = {"user": self.uid, "group": self.uid, "extra_groups": []} if confined and self.uid else {}
        process = await asyncio.create_subprocess_exec(
            "git",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=rules.git_environment(str(self.home if confined else self.root), pairs),
            cwd=str(self.root if self.root.exists() else "/"),
            start_new_session=True,
            **identity,  # type: ignore[arg-type]
        )
        try:
            async with asyncio.timeout(timeout_s):
                output, said = await process.communicate(stdin)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            raise
        if process.returncode != 0:
            text = said.decode("utf-8", "replace").strip()[-2_000:]
            raise GitFailed(f"git {arguments[2] if arguments[0] == '-C' else arguments[0]}: {text}")
        return output
