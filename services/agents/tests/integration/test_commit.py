"""The runner's commit in a repository that the commands of a sandbox were free to change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from git_server import GitServer, git

from agents_service.engines import adapters as engines
from agents_service.engines.rules import Confinement
from agents_service.runners import git_adapters
from agents_service.runners.git_adapters import GitFailed, Workspace

UID = 61_000 if os.geteuid() == 0 else None
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "GIT_AUTHOR_NAME": "Command",
    "GIT_AUTHOR_EMAIL": "command@omoios.invalid",
    "GIT_COMMITTER_NAME": "Command",
    "GIT_COMMITTER_EMAIL": "command@omoios.invalid",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def open_folder(prefix: str) -> Path:
    """A folder that another user may pass through, as sandboxes need it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o711)
    return folder


def write(folder: Path, names: list[bytes]) -> None:
    """A file of each of these names, with the folders above it."""
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")


@pytest.fixture(scope="module")
def server() -> Iterator[GitServer]:
    folder = open_folder("omoios-commit-")
    found = GitServer(folder)
    yield found
    found.close()
    shutil.rmtree(folder, ignore_errors=True)


class Sandbox:
    """A cloned branch, commands that change it, and the runner's commit of it."""

    def __init__(self, server: GitServer, top: Path, branch: str, *, wrapped: bool) -> None:
        self.server = server
        self.branch = branch
        self.top = top
        self.folders = Workspace(top / "attempt", UID)
        self.confinement = Confinement(
            workdir=str(self.folders.work),
            home=str(self.folders.home),
            uid=UID,
            gid=UID,
            hidden=(str(top),),
            bubblewrap=wrapped,
        )
        self.start = ""

    async def clone(self) -> None:
        self.server.branch(self.branch)
        self.folders.make()
        self.start = await self.folders.clone(self.server.clone_url, self.branch, self.server.base_sha, "token")

    async def run(self, script: str) -> str:
        """Run a script as the task's commands run; `$TRAP` is a command that leaves a trace wherever it can."""
        said: list[bytes] = []

        async def line(_stream: str, text: bytes) -> None:
            said.append(text)

        home = str(self.folders.home)
        trap = f"touch {home}/trapped {self.top}/trapped"
        process = await engines.start(
            ["/bin/bash", "-euc", script], ENVIRONMENT | {"HOME": home, "TRAP": trap}, self.confinement
        )
        code = await process.output(line)
        text = b"\n".join(said).decode("utf-8", "replace")
        assert code == 0, text
        assert not self.trapped(), "the script itself sprang the trap"
        return text

    async def commit(self) -> str:
        """Commit and push; the new head."""
        head = await self.folders.commit("The runner's\n", "Agent", self.start, self.confinement)
        if head:
            await self.folders.push(self.server.clone_url, self.branch, head, "token")
        return head

    def trapped(self) -> list[Path]:
        return [path for path in (self.folders.home / "trapped", self.top / "trapped") if path.exists()]

    def pushed(self) -> dict[str, str]:
        """Name and content of every pushed file; links as `-> target`, nested repositories as `commit`."""
        found = {}
        for entry in git(self.server.bare, "ls-tree", "-r", "-z", self.branch).split("\0"):
            if entry:
                about, _, name = entry.partition("\t")
                mode, kind, object_id = about.split()
                content = git(self.server.bare, "cat-file", "blob", object_id) if kind == "blob" else "commit"
                found[name] = f"-> {content}" if mode == "120000" else content
        return found


@pytest.fixture
async def sandbox(server: GitServer, request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """Without bubblewrap, unless a test asks for it: there a command that git starts would leave the most traces."""
    wrapped = getattr(request, "param", "local") == "bubblewrap"
    if wrapped and (why := await engines.why_no_bubblewrap(UID, network=True)) is not None:
        pytest.skip(f"commands cannot be wrapped here: {why}")
    top = open_folder("omoios-sandbox-")
    found = Sandbox(server, top, f"omoios/{top.name}", wrapped=wrapped)
    await found.clone()
    yield found
    shutil.rmtree(top, ignore_errors=True)


HOOKS = (
    "applypatch-msg pre-commit pre-merge-commit prepare-commit-msg commit-msg post-commit post-checkout "
    "post-index-change pre-push pre-auto-gc reference-transaction fsmonitor-watchman post-rewrite sendemail-validate"
)
TRAPS = {
    "hooks": f"""
        for hook in {HOOKS}; do printf '#!/bin/sh\\n%s\\n' "$TRAP" > .git/hooks/$hook; done
        chmod +x .git/hooks/*; git config core.hooksPath .git/hooks""",
    "filters": """
        git config filter.x.clean "$TRAP; cat"; git config filter.x.process "$TRAP"; git config filter.x.required true
        git config filter.X.y.clean "$TRAP; cat"; printf '* filter=x\\n*.txt filter=X.y\\n' > .gitattributes
        cp .gitattributes .git/info/attributes""",
    "a driver in a file that is included": """
        printf '[filter "x"]\\n\\tclean = %s\\n' "$TRAP" > ../home/included; echo '* filter=x' > .gitattributes
        git config include.path "$HOME/included"; git config includeIf.gitdir:/**.path "$HOME/included" """,
    "programs of commit, diff and transport": """
        echo '* diff=x merge=x' > .gitattributes
        for name in core.editor sequence.editor core.sshCommand core.askPass core.pager core.gitProxy gpg.program \\
            gpg.ssh.program gpg.x509.program diff.external diff.x.command diff.x.textconv merge.x.driver \\
            core.alternateRefsCommand uploadpack.packObjectsHook trailer.x.command trailer.x.cmd \\
            interactive.diffFilter ; do git config $name "$TRAP"; done
        git config credential.helper "!$TRAP"; git config commit.gpgSign true; git config trailer.x.key x
        for name in add commit rev-parse update-index diff-files ls-files write-tree commit-tree pack-objects; do
            git config alias.$name "!$TRAP"; done""",
    "fsmonitor": """git config core.fsmonitor "$TRAP"; git config core.untrackedCache true""",
    "submodules": """
        git config -f .gitmodules submodule.s.path s; git config -f .gitmodules submodule.s.update "!$TRAP"
        git config -f .gitmodules submodule.s.url "ext::sh -c '$TRAP'"
        git config submodule.s.update "!$TRAP"; git config submodule.s.url "ext::sh -c '$TRAP'"
        git config submodule.recurse true; git config status.submoduleSummary true""",
    "a configuration for each work tree": """
        git config extensions.worktreeConfig true; git config core.repositoryFormatVersion 1
        git config --worktree filter.x.clean "$TRAP"; git config --worktree core.fsmonitor "$TRAP"
        echo '* filter=x' > .gitattributes""",
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS.keys())
async def test_nothing_that_the_repository_names_is_started(sandbox: Sandbox, trap: str) -> None:
    # The order matters: git itself would spring some of the traps for the commands that come after them.
    await sandbox.run("echo new > new.txt; mkdir deep; echo old >> README.md; " + trap)
    await sandbox.commit()
    assert not sandbox.trapped()
    pushed = sandbox.pushed()
    assert pushed["new.txt"] == "new"
    assert pushed["README.md"] == "A repository.\nold"


async def test_nothing_that_a_nested_repository_names_is_started(sandbox: Sandbox) -> None:
    await sandbox.run(
        """
        for folder in known fresh; do
            git init -q $folder; echo a > $folder/a; git -C $folder add a; git -C $folder commit -q -m 1
            [ $folder = fresh ] || { git add known; git commit -q -m nested; }
        done
        for folder in known fresh; do
            echo x > $folder/x; echo '* filter=x' > $folder/.gitattributes
            git -C $folder config filter.x.clean "$TRAP"; git -C $folder config core.fsmonitor "$TRAP"
        done
        """
    )
    await sandbox.commit()
    assert not sandbox.trapped()
    assert sandbox.pushed() == {"README.md": "A repository.", "known": "commit", "fresh": "commit"}


async def test_objects_that_are_missing_are_asked_of_nobody(sandbox: Sandbox) -> None:
    await sandbox.run(
        """
        git config core.repositoryFormatVersion 1; git config extensions.partialClone origin
        git config remote.origin.promisor true; git config remote.origin.url "$PWD"
        git config remote.origin.uploadPack "$TRAP; false"
        git config protocol.file.allow always; git config protocol.ext.allow always
        echo 1111111111111111111111111111111111111111 > .git/refs/heads/missing
        echo 'ref: refs/heads/missing' > .git/HEAD
        """
    )
    with pytest.raises(GitFailed, match=r"1111\) is no commit"):
        await sandbox.commit()
    assert not sandbox.trapped()


async def test_a_configuration_that_changes_during_the_commit_changes_nothing(sandbox: Sandbox) -> None:
    await sandbox.run("for n in $(seq 300); do echo $n > $n.txt; done; cp .git/config ../home/plain")
    work, home = sandbox.folders.work, sandbox.folders.home
    plain = (home / "plain").read_text()
    trap = f"touch {home}/trapped"
    bad = plain + f'[filter "x"]\n\tclean = {trap}\n[core]\n\tfsmonitor = {trap}\n\thooksPath = {home}\n'
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for text, attributes in ((bad, "* filter=x\n"), (plain, "\n")):
                for path, content in ((work / ".git" / "config", text), (work / ".gitattributes", attributes)):
                    aside = home / "aside"
                    aside.write_text(content)
                    aside.rename(path)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        # What changes below it while it works may be refused; what it takes is right, and nothing is started.
        with contextlib.suppress(GitFailed):
            await sandbox.commit()
            assert {name: text for name, text in sandbox.pushed().items() if name.endswith(".txt")} == {
                f"{number}.txt": str(number) for number in range(1, 301)
            }
    finally:
        done.set()
        swapping.join()
    assert not sandbox.trapped()


@pytest.mark.parametrize("sandbox", ["local", "bubblewrap"], indirect=True)
async def test_every_change_is_in_the_commit(sandbox: Sandbox) -> None:
    await sandbox.run(
        r"""
        mkdir a b; echo 1 > a/1; echo 2 > b/2; echo 3 > c
        echo gone > gone; echo secret > secret; echo '*.log' > .gitignore; echo run > run; ln -s run link
        git add -A; git commit -q -m "The command's own"
        rm -r a; echo file > a
        mv b elsewhere; ln -s elsewhere b
        rm c; mkdir c; echo 3 > c/3
        rm gone; chmod +x run; ln -sf gone link
        echo kept > kept.log; git add -f kept.log; echo left > left.log
        git rm -q --cached secret; echo secret >> .gitignore
        echo excluded > excluded; echo excluded > .git/info/exclude
        """
    )
    head = await sandbox.commit()
    assert sandbox.pushed() == {
        "README.md": "A repository.",
        ".gitignore": "*.log\nsecret",
        "a": "file",
        "b": "-> elsewhere",
        "c/3": "3",
        "elsewhere/2": "2",
        "kept.log": "kept",
        "link": "-> gone",
        "run": "run",
    }
    assert git(sandbox.server.bare, "ls-tree", head, "run").startswith("100755")
    assert sandbox.server.log(sandbox.branch) == ["The runner's", "The command's own"]
    assert git(sandbox.server.bare, "show", "-s", "--format=%an <%ae>", head) == "Agent <agent@omoios.invalid>"


async def test_what_a_command_committed_counts_and_no_change_is_no_commit(sandbox: Sandbox) -> None:
    assert await sandbox.commit() == ""
    shutil.rmtree(sandbox.folders.own)
    await sandbox.run("echo x > x; git add x; git commit -q -m own; touch README.md; git status --short; git log -1")
    head = await sandbox.commit()
    assert head
    assert sandbox.server.log(sandbox.branch) == ["own"]


async def test_a_command_commits_without_saying_who_it_is(sandbox: Sandbox) -> None:
    await sandbox.run("unset ${!GIT_AUTHOR_*} ${!GIT_COMMITTER_*}; echo x > x; git add x; git commit -q -m own")
    head = await sandbox.commit()
    said = git(sandbox.server.bare, "show", "-s", "--format=%s %an <%ae>", head)
    assert said == "own OmoiOS agent <agent@omoios.invalid>"


async def test_a_merge_that_was_begun_keeps_both_parents(sandbox: Sandbox) -> None:
    await sandbox.run(
        """
        git checkout -q -b side; echo side > README.md; git commit -q -am side; git checkout -q -
        echo main > README.md; git commit -q -am main; git merge -q side || true; echo both > README.md
        """
    )
    head = await sandbox.commit()
    assert sandbox.pushed() == {"README.md": "both"}
    assert len(git(sandbox.server.bare, "show", "-s", "--format=%P", head).split()) == 2


async def test_names_of_every_kind(sandbox: Sandbox) -> None:
    names = ["-rf", " ", "a\nb", 'quo"te', "t\tab", ":(top)x", "back\\slash", "ü", "x" * 255, "*", "!x", "#x", "\x01"]
    names += ["/".join(["d" * 200] * 15) + "/deep"]
    # The last name is no text in UTF-8.
    write(sandbox.folders.work, [*map(os.fsencode, names), b"\xff\xfe"])
    sandbox.folders.hand_over()
    head = await sandbox.commit()
    listed = git(sandbox.server.bare, "ls-tree", "-r", "--name-only", head).splitlines()
    assert len(listed) == len(names) + 2
    assert '"\\377\\376"' in listed


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo x > 'git~1'; echo x > fine", "does not take these names:\ngit~1$"),
        ("git init -q empty; echo x > empty/x", "empty"),
        ("touch .git/index.lock; echo x > x", "index.lock': File exists"),
        ("rm -rf .git; echo x > x", "not a git repository"),
        ("rm -rf .git; mkdir .git", "not a git repository"),
        ("git checkout -q --orphan other", "no commit at HEAD"),
        ("rm -rf .git; git init -q; git commit -q --allow-empty -m other; echo x > x", "bad object"),
        ("git checkout -q --detach; git commit -q --amend -m other; echo x > x", "(?s)git push.*rejected"),
        ("echo 'gitdir: /nowhere' > ../home/.git; rm -rf .git; mv ../home/.git .", "not a git repository"),
        ("echo 0 > .git/index", "index"),
        ("git config extensions.nothingKnown true; git config core.repositoryFormatVersion 1", "unknown"),
    ],
    ids=["name", "nested", "lock", "none", "empty", "orphan", "foreign", "rewritten", "gitdir", "index", "extension"],
)
async def test_what_cannot_be_committed_fails_with_its_reason(sandbox: Sandbox, script: str, message: str) -> None:
    # A repository around the sandbox, as where a runner works below somebody's checkout: it is never taken instead.
    git(sandbox.top, "init", "--quiet")
    await sandbox.run(script)
    with pytest.raises(GitFailed, match=message):
        await sandbox.commit()
    assert sandbox.server.log(sandbox.branch) == []
    assert not (sandbox.top / ".git" / "index").exists()


@pytest.mark.parametrize("sandbox", ["bubblewrap"], indirect=True)
@pytest.mark.parametrize(
    "script", ["ln -s ../home/moved .git", 'echo "gitdir: $HOME/moved" > .git'], ids=["link", "file"]
)
async def test_a_repository_that_lies_elsewhere_is_used_where_the_sandbox_reaches_it(
    sandbox: Sandbox, script: str
) -> None:
    await sandbox.run(f"mv .git ../home/moved; {script}; echo x > x; git status --short")
    await sandbox.commit()
    assert sandbox.pushed() == {"README.md": "A repository.", "x": "x"}


@pytest.mark.parametrize("sandbox", ["bubblewrap"], indirect=True)
async def test_a_repository_out_of_the_sandboxs_reach_is_not_used(sandbox: Sandbox) -> None:
    other = sandbox.top / "other"
    git(sandbox.top, "clone", "--quiet", str(sandbox.server.bare), str(other))
    other.chmod(0o777)
    await sandbox.run(f"rm -rf .git; ln -s {other}/.git .git; echo x > x")
    with pytest.raises(GitFailed, match="not a git repository"):
        await sandbox.commit()
    assert git(other, "status", "--short") == ""


@pytest.mark.parametrize("sandbox", ["bubblewrap"], indirect=True)
async def test_commands_cannot_write_the_configuration_that_counts(sandbox: Sandbox) -> None:
    await sandbox.run(f"! ls {sandbox.folders.bare} 2>/dev/null; ! mkdir {sandbox.folders.own} 2>/dev/null; echo x > x")
    await sandbox.commit()
    assert sandbox.pushed()["x"] == "x"
    assert (sandbox.folders.own / "config").read_text() == git_adapters.rules.OWN_CONFIG


async def test_a_file_that_never_ends_ends_the_commit(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_adapters, "GIT_TIMEOUT_S", 1.0)
    await sandbox.run("mkfifo .gitignore; echo x > x")
    async with asyncio.timeout(60):
        with pytest.raises(GitFailed, match="took longer than 1 s"):
            await sandbox.commit()


@pytest.mark.skipif(UID is not None, reason="root removes what it likes")
async def test_folders_go_also_where_commands_took_their_rights_away(sandbox: Sandbox) -> None:
    outside = sandbox.top / "outside"
    outside.mkdir(mode=0o500)
    await sandbox.run(
        f"mkdir -p a/b ../home/c; touch a/b/x; ln -s {outside} a/link; chmod 0500 a/b ../home/c; chmod 0 a"
    )
    sandbox.folders.remove()
    assert not sandbox.folders.root.exists()
    assert outside.stat().st_mode & 0o777 == 0o500
