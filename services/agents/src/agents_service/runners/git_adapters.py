"""git in a sandbox.

Three repositories per attempt: the runner's own bare one, which alone ever sees the token; the sandbox's clone of it,
which commands may change as they like; and `own.git`, which commands cannot write. The commit is made in the
confinement of the commands, with `own.git`: its configuration is the runner's, so that nothing a command wrote names a
program. Of the clone it takes HEAD, the index, the excludes and the objects, which are data. The commits come over as
a pack.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from agents_service.engines import adapters as engines
from agents_service.engines.rules import Confinement
from agents_service.runners import folders_adapters, rules

GIT_TIMEOUT_S = 600.0
STEP_TIMEOUT_S = 120.0
SAID_BYTES = 2_000


class GitFailed(Exception):
    """A git command failed; its message holds what it said, never a credential."""


class Workspace:
    """The folders of one attempt: `work` and `home` are the sandbox's, the others the runner's."""

    def __init__(self, root: Path, uid: int | None) -> None:
        self.root = root
        self.uid = uid
        self.bare = root / "repo.git"
        self.own = root / "own.git"
        self.pack = root / "commits.pack"
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
        (self.home / ".gitconfig").write_text(rules.SANDBOX_CONFIG, encoding="ascii")

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
        folders_adapters.remove(self.root)

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

    async def commit(self, message: str, author: str, start: str, confinement: Confinement) -> str:
        """Commit all changes of the sandbox, in its confinement; returns the new head, `""` when nothing changed.

        What a command committed itself counts, too. The commits since `start` are kept for `push`.
        """
        await asyncio.to_thread(self._make_own)
        environment = rules.commit_environment(str(self.home), str(self.own), str(self.work), author)
        confined = replace(confinement, shown=(*confinement.shown, str(self.own)))
        with await asyncio.to_thread(self.pack.open, "w+b") as pack:
            argv = ["/bin/sh", "-c", rules.COMMIT_SCRIPT, "commit", start, message]
            await _confined(argv, environment, confined, pack)
            pack.seek(0)
            head = pack.readline(rules.HEAD_LINE_BYTES).decode("ascii", "replace").strip()
        if not rules.is_commit_id(head):
            raise GitFailed("the sandbox's repository names no commit")
        return "" if head == start else head

    async def push(self, clone_url: str, branch: str, head: str, token: str) -> None:
        """Bring the commits that `commit` kept into the runner's repository and push them with the token."""
        with await asyncio.to_thread(self.pack.open, "rb", buffering=0) as pack:
            pack.seek(len(head) + 1)
            await self._git(
                ["-C", str(self.bare), "index-pack", "--stdin", "--fix-thin"], stdin=pack, timeout_s=GIT_TIMEOUT_S
            )
        kind = await self._git(["-C", str(self.bare), "cat-file", "-t", head])
        if kind.strip() != b"commit":
            raise GitFailed("the sandbox's head is not among its commits")
        await self._git(
            ["-C", str(self.bare), "push", "--quiet", "--no-verify", clone_url, f"{head}:refs/heads/{branch}"],
            pairs=[rules.authorization(clone_url, token)],
            timeout_s=GIT_TIMEOUT_S,
        )

    def _make_own(self) -> None:
        """The repository whose configuration counts at the commit: the sandbox's user reads it and cannot write it."""
        for folder in (self.own, self.own / "objects", self.own / "refs"):
            folder.mkdir()
            folder.chmod(0o755)
        for name, text in (("HEAD", "ref: refs/heads/none\n"), ("config", rules.OWN_CONFIG)):
            (self.own / name).write_text(text, encoding="ascii")
            (self.own / name).chmod(0o644)

    async def _git(
        self,
        arguments: Sequence[str],
        *,
        pairs: Sequence[tuple[str, str]] = (),
        stdin: BinaryIO | int = asyncio.subprocess.DEVNULL,
        timeout_s: float = STEP_TIMEOUT_S,
    ) -> bytes:
        """Run git in a repository that no command can write. Returns its output, raises GitFailed."""
        process = await asyncio.create_subprocess_exec(
            "git",
            *arguments,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=rules.git_environment(str(self.root), pairs),
            cwd=str(self.root if self.root.exists() else "/"),
            start_new_session=True,
        )
        command = arguments[2] if arguments[0] == "-C" else arguments[0]
        try:
            async with asyncio.timeout(timeout_s):
                output, said = await process.communicate()
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            if isinstance(error, TimeoutError):
                raise GitFailed(f"git {command} took longer than {timeout_s:g} s") from error
            raise
        if process.returncode != 0:
            raise GitFailed(f"git {command}: {said.decode('utf-8', 'replace').strip()[-SAID_BYTES:]}")
        return output


async def _confined(
    argv: Sequence[str], environment: dict[str, str], confinement: Confinement, stdout: BinaryIO
) -> None:
    """Run a command as the sandbox's commands run; its output goes to the file. Raises GitFailed."""
    said: deque[str] = deque(maxlen=20)

    async def line(_stream: str, text: bytes) -> None:
        said.append(text[-SAID_BYTES:].decode("utf-8", "replace"))

    process = await engines.start(argv, environment, confinement, stdout=stdout.fileno())
    try:
        async with asyncio.timeout(GIT_TIMEOUT_S):
            code = await process.output(line)
    except TimeoutError as error:
        raise GitFailed(f"git took longer than {GIT_TIMEOUT_S:g} s in the sandbox's repository") from error
    finally:
        await asyncio.shield(process.stop())
    if code != 0:
        raise GitFailed("\n".join(said).strip()[-SAID_BYTES:] or f"git ended with exit code {code}")
