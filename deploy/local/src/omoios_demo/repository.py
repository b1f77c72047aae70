"""The repository that the demo works on: a bare clone of the user's, made by the user and left to the service."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from omoios_demo.errors import DemoError

CLONE_TIMEOUT_S = 600.0
IMPORTER = {
    "GIT_AUTHOR_NAME": "OmoiOS demo",
    "GIT_AUTHOR_EMAIL": "demo@omoios.invalid",
    "GIT_COMMITTER_NAME": "OmoiOS demo",
    "GIT_COMMITTER_EMAIL": "demo@omoios.invalid",
}
# Folders that hold what can be made again; a folder of files without git has no list of its own.
NOT_SOURCE = (".git", ".venv", "venv", "node_modules", "__pycache__", ".omoios", "build", "dist")
# git hands no configuration down to the process that reads a local repository; without it git refuses one that belongs
# to another user, as a checkout that is mounted into a container does.
READ_BY = "--upload-pack=git -c 'safe.directory=*' upload-pack"


@dataclass(frozen=True)
class Repository:
    """A bare repository below a folder that the service may read. `origin`: where its branches may be pushed to."""

    path: Path
    name: str
    branch: str
    commits: int
    how: str
    origin: str | None


def git(
    *arguments: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
    secret: Sequence[tuple[str, str]] = (),
    stdin: bytes | None = None,
) -> str:
    """The output of a git command. `secret`: configuration that must not be seen in a list of processes.

    Raises DemoError with what git said.
    """
    given = dict(os.environ if environment is None else environment)
    pairs = [("safe.directory", "*"), *secret]
    given |= {"GIT_CONFIG_COUNT": str(len(pairs)), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
    for number, (name, value) in enumerate(pairs):
        given |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=cwd, env=given, input=stdin, capture_output=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError as error:
        raise DemoError("git is needed and was not found") from error
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"git {arguments[0]} took longer than {timeout_s:g} s") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[-1000:]
        raise DemoError(f"git {' '.join(arguments[:3])}: {said}")
    return done.stdout.decode("utf-8", "surrogateescape")


def prepare(source: str, folder: Path) -> Repository:
    """A bare clone of `source` (path or URL) below `folder`; made anew each time.

    Where the source is a folder without a whole history, a repository is built from its files. Raises DemoError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The service compares resolved paths with the folders that it may read.
    folder = folder.resolve()
    if is_url(source):
        name = name_of(urlsplit(source).path or source)
        target = _empty(folder / f"{name}.git")
        git("clone", "--quiet", "--bare", *_reading(source), source, str(target), timeout_s=CLONE_TIMEOUT_S)
        return _described(target, name, f"cloned from {without_credentials(source)}", source)
    path = Path(source).expanduser().resolve()
    if not path.is_dir():
        raise DemoError(f"{source} is neither a folder nor a URL")
    name = name_of(path.name)
    target = _empty(folder / f"{name}.git")
    state = history_of(path)
    if state == "whole":
        git("clone", "--quiet", "--bare", "--no-hardlinks", READ_BY, str(path), str(target), timeout_s=CLONE_TIMEOUT_S)
        how = f"cloned from {path}"
        if made := _name_detached_head(target):
            how += f"; its HEAD is detached, branch {made} was made there"
        return _described(target, name, how, str(path))
    _from_files(path, target)
    return _described(target, name, f"built from the files in {path}, because {state}", None)


def is_url(source: str) -> bool:
    """Whether git would take this from the network: a URL, or `user@host:path`."""
    return "://" in source or re.match(r"^[\w.-]+@[\w.-]+:", source) is not None


def _reading(url: str) -> list[str]:
    return [READ_BY] if url.startswith("file://") else []


def _name_detached_head(repository: Path) -> str | None:
    """The branch made where HEAD names a commit and no branch; None where it names one."""
    here = f"--git-dir={repository}"
    try:
        git(here, "symbolic-ref", "--quiet", "HEAD")
        return None
    except DemoError:
        pass
    sha = git(here, "rev-parse", "--verify", "HEAD^{commit}").strip()
    taken = set(git(here, "for-each-ref", "--format=%(refname:short)", "refs/heads").split())
    branch = next(name for name in ("main", f"detached-{sha[:12]}", f"detached-{sha}") if name not in taken)
    git(here, "update-ref", f"refs/heads/{branch}", sha)
    git(here, "symbolic-ref", "HEAD", f"refs/heads/{branch}")
    return branch


def without_credentials(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)


def name_of(path: str) -> str:
    """The last part of a path as a name: letters, digits, dash, underscore and dot."""
    last = path.rstrip("/").rpartition("/")[2].removesuffix(".git")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "repository"


def history_of(path: Path) -> str:
    """`whole`, or why a clone of this folder would not do."""
    try:
        top = git("-C", str(path), "rev-parse", "--git-dir", "--is-shallow-repository").split("\n")
    except DemoError:
        return "it is no git repository"
    # A folder inside another repository is not that repository.
    if not (path / ".git").exists() and not (path / "HEAD").exists():
        return "it is no git repository"
    if top[1].strip() == "true":
        return "its history is shallow"
    try:
        git("-C", str(path), "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except DemoError:
        return "it has no commit"
    return "whole"


def fetch_merged(repository: Repository, url: str, branch: str, token: str) -> None:
    """Bring a branch of the service's mirror into the clone, with the user's own access token."""
    # The protocol takes the token as the password; in the environment it is not seen in a list of processes.
    header = ("http.extraHeader", f"Authorization: Bearer {token}")
    git(
        f"--git-dir={repository.path}",
        "fetch",
        "--quiet",
        "--no-tags",
        url,
        f"+refs/heads/{branch}:refs/heads/{branch}",
        timeout_s=CLONE_TIMEOUT_S,
        secret=[header],
    )


def contains(repository: Repository, branch: str, sha: str) -> bool:
    """Whether a branch of the clone contains a commit."""
    try:
        git(f"--git-dir={repository.path}", "merge-base", "--is-ancestor", sha, branch)
    except DemoError:
        return False
    return True


def push(repository: Repository, branch: str) -> None:
    """Push a branch to where the clone came from, with the user's own git and credentials, never by force."""
    assert repository.origin is not None
    git(f"--git-dir={repository.path}", "push", "--quiet", repository.origin, f"refs/heads/{branch}", timeout_s=300.0)


def _from_files(path: Path, target: Path) -> None:
    git("init", "--quiet", "--bare", "--initial-branch=main", str(target))
    excluded = "".join(f"{name}/\n" for name in NOT_SOURCE)
    (target / "info").mkdir(exist_ok=True)
    (target / "info" / "exclude").write_text(excluded)
    with tempfile.TemporaryDirectory(dir=target.parent) as index:
        given = {**os.environ, **IMPORTER, "GIT_INDEX_FILE": str(Path(index) / "index")}
        here = (f"--git-dir={target}", f"--work-tree={path}", "-c", "core.bare=false")
        if tracked := _tracked(path):
            git(*here, "update-index", "--add", "-z", "--stdin", cwd=path, environment=given, stdin=tracked)
        else:
            git(*here, "add", "--all", ".", cwd=path, environment=given, timeout_s=CLONE_TIMEOUT_S)
        tree = git(*here, "write-tree", environment=given).strip()
        message = "Import the files as they are"
        commit = git(f"--git-dir={target}", "commit-tree", tree, "-m", message, environment=given).strip()
        git(f"--git-dir={target}", "update-ref", "refs/heads/main", commit)


def _tracked(path: Path) -> bytes:
    """The files that git knows in this checkout and that are there, each ended by NUL; empty where git knows none."""
    if not (path / ".git").exists():
        return b""
    known = git("-C", str(path), "ls-files", "-z", timeout_s=CLONE_TIMEOUT_S).split("\0")
    # A folder in this list is a submodule, whose commits are not here.
    there = [name for name in known if name and ((path / name).is_symlink() or (path / name).is_file())]
    return "".join(f"{name}\0" for name in there).encode("utf-8", "surrogateescape")


def _described(path: Path, name: str, how: str, origin: str | None) -> Repository:
    try:
        branch = git(f"--git-dir={path}", "symbolic-ref", "--short", "HEAD").strip()
        commits = int(git(f"--git-dir={path}", "rev-list", "--count", "HEAD"))
    except DemoError as error:
        raise DemoError(f"{name} has no branch with a commit: {error}") from error
    return Repository(path, name, branch, commits, how, origin)


def _empty(path: Path) -> Path:
    """A path at which nothing lies; what an earlier run left there is kept beside it under the next free number.

    Projects of earlier runs stay bound to their clones.
    """
    if not path.exists():
        return path
    numbered = (path.with_name(f"{path.stem}-{number}.git") for number in itertools.count(2))
    return next(other for other in numbered if not other.exists())
