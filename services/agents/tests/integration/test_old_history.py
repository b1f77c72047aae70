"""Repositories whose history holds what git of today would not write."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from git_server import ENVIRONMENT, GitServer, git

from agents_service.runners.git_adapters import GitFailed, Workspace

UID = 61_000 if os.geteuid() == 0 else None
PERSON = b"Ada <ada@example.org>"


@pytest.fixture
def server() -> Iterator[GitServer]:
    folder = Path(tempfile.mkdtemp(prefix="omoios-history-"))
    folder.chmod(0o711)
    found = GitServer(folder)
    yield found
    found.close()
    shutil.rmtree(folder, ignore_errors=True)


def written(server: GitServer, kind: str, content: bytes) -> str:
    """An object as it is given, which git does not look at."""
    command = ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    done = subprocess.run(command, cwd=server.bare, env=ENVIRONMENT, input=content, capture_output=True, check=True)
    return done.stdout.decode().strip()


def branch(server: GitServer, mode: bytes, name: bytes, author: bytes) -> None:
    """A branch whose second commit is one of today and whose first holds one file with this mode, name and author."""
    blob = bytes.fromhex(git(server.bare, "rev-parse", f"{server.base_sha}:README.md"))
    tree = written(server, "tree", mode + b" " + name + b"\0" + blob)
    people = b"author %b\ncommitter %b\n" % (author, author)
    old = written(server, "commit", f"tree {tree}\n".encode() + people + b"\nOld\n")
    new = git(server.bare, "commit-tree", f"{server.base_sha}^{{tree}}", "-p", old, "-m", "New")
    git(server.bare, "update-ref", "refs/heads/omoios/old", new)


async def cloned(server: GitServer) -> Workspace:
    folders = Workspace(server.root / "attempt", UID)
    folders.make()
    await folders.clone(server.clone_url, "omoios/old", "", "token")
    return folders


@pytest.mark.parametrize(
    ("mode", "author"),
    [
        (b"0100644", PERSON + b" 1300000000 +0000"),
        (b"100644", PERSON + b" 1300000000 +051800"),
        (b"100644", b"Ada <ada@example.org>1300000000 +0000"),
        (b"100664", b"Ada 1300000000 +0000"),
    ],
    ids=["zero before a mode", "time zone", "no space before the date", "no address"],
)
async def test_an_untidy_history_is_worked_on(server: GitServer, mode: bytes, author: bytes) -> None:
    branch(server, mode, b"a", author)
    assert (await cloned(server)).work.joinpath("README.md").read_text() == "A repository.\n"


async def test_a_history_that_reaches_into_the_repository_is_refused(server: GitServer) -> None:
    branch(server, b"100644", b".git", PERSON + b" 1300000000 +0000")
    with pytest.raises(GitFailed, match="hasDotgit"):
        await cloned(server)
