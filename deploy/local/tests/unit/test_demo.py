"""The demo's own decisions: what it clones, what sandboxes may run, what it shows."""

import io
import os
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from omoios_demo import repository, sandbox_tools
from omoios_demo.api import spoken
from omoios_demo.errors import DemoError
from omoios_demo.progress import headline, merged_by_themselves, state_of, still_open
from omoios_demo.screen import Screen, TaskLine

WHO = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")


def commit(path, name, content):
    (path / name).write_text(content)
    subprocess.run(["git", "-C", path, "add", "--all"], check=True)
    subprocess.run(["git", "-C", path, *WHO, "commit", "--quiet", "-m", f"Add {name}"], check=True)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "My Tool"
    path.mkdir()
    subprocess.run(["git", "-C", path, "init", "--quiet", "--initial-branch=trunk"], check=True)
    commit(path, "a.txt", "a\n")
    commit(path, "b.txt", "b\n")
    return path


def test_a_folder_is_cloned_and_each_run_gets_a_clone_of_its_own(source, tmp_path):
    first = repository.prepare(str(source), tmp_path / "clones")
    second = repository.prepare(str(source), tmp_path / "clones")
    assert (first.name, first.branch, first.commits) == ("My-Tool", "trunk", 2)
    assert first.origin == str(source)
    assert [first.path.name, second.path.name] == ["My-Tool.git", "My-Tool-2.git"]
    assert first.path.is_absolute()
    assert first.path.parent.stat().st_mode & 0o077 == 0


def test_a_url_is_cloned(source, tmp_path):
    found = repository.prepare(f"file://{source}", tmp_path / "clones")
    assert (found.commits, found.origin) == (2, f"file://{source}")


def test_a_shallow_clone_becomes_a_repository_of_its_files(source, tmp_path):
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{source}", shallow], check=True)
    found = repository.prepare(str(shallow), tmp_path / "clones")
    assert (found.commits, found.branch, found.origin) == (1, "main", None)
    assert "its history is shallow" in found.how


def test_a_folder_without_git_becomes_a_repository_without_what_can_be_made_again(tmp_path):
    folder = tmp_path / "plain"
    (folder / ".venv" / "lib").mkdir(parents=True)
    (folder / ".venv" / "lib" / "x.py").write_text("x\n")
    (folder / ".gitignore").write_text("*.log\n")
    (folder / "noise.log").write_text("x\n")
    (folder / "kept.py").write_text("x\n")
    found = repository.prepare(str(folder), tmp_path / "clones")
    listed = repository.git(f"--git-dir={found.path}", "ls-tree", "-r", "--name-only", "main").split()
    assert listed == [".gitignore", "kept.py"]
    assert "it is no git repository" in found.how
    assert not (folder / ".git").exists()


def test_a_folder_inside_a_repository_is_not_that_repository(source, tmp_path):
    (source / "part").mkdir()
    (source / "part" / "c.txt").write_text("c\n")
    found = repository.prepare(str(source / "part"), tmp_path / "clones")
    assert repository.git(f"--git-dir={found.path}", "ls-tree", "-r", "--name-only", "main").split() == ["c.txt"]


def test_a_repository_without_a_commit_is_read_from_its_files(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    subprocess.run(["git", "-C", empty, "init", "--quiet"], check=True)
    (empty / "a.txt").write_text("a\n")
    found = repository.prepare(str(empty), tmp_path / "clones")
    assert found.commits == 1
    assert "it has no commit" in found.how


def test_a_repository_of_another_user_is_cloned(source, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    for number, given in enumerate((str(source), f"file://{source}")):
        assert repository.prepare(given, tmp_path / f"clones-{number}").commits == 2


@pytest.mark.parametrize(("taken", "named"), [("trunk", "main"), ("main", "detached-")])
def test_a_detached_head_becomes_a_branch(source, tmp_path, taken, named):
    """As a checkout of continuous integration has it: HEAD is a commit that is no branch's tip."""
    subprocess.run(["git", "-C", source, "branch", "-m", "trunk", taken], check=True)
    subprocess.run(["git", "-C", source, "checkout", "--quiet", "--detach"], check=True)
    commit(source, "c.txt", "c\n")
    found = repository.prepare(str(source), tmp_path / "clones")
    assert found.branch.startswith(named)
    assert found.commits == 3
    assert f"HEAD is detached, branch {found.branch}" in found.how
    assert repository.git(f"--git-dir={found.path}", "rev-parse", found.branch) == repository.git(
        "-C", str(source), "rev-parse", "HEAD"
    )


def test_files_of_a_shallow_clone_are_those_that_git_knows(source, tmp_path):
    (source / "build").mkdir()
    (source / "gone").write_text("x\n")
    (source / ".gitignore").write_text("*.lock\n")
    (source / "a.lock").write_text("x\n")
    os.symlink("a.txt", source / "link")
    subprocess.run(["git", "-C", source, "add", "--force", "a.lock"], check=True)
    commit(source, "build/ü.txt", "kept\n")
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{source}", shallow], check=True)
    (shallow / "notes.txt").write_text("mine\n")
    (shallow / "gone").unlink()
    (shallow / "a.txt").write_text("changed\n")
    found = repository.prepare(str(shallow), tmp_path / "clones")
    listed = repository.git(f"--git-dir={found.path}", "ls-tree", "-r", "-z", "--name-only", "main").split("\0")[:-1]
    assert listed == [".gitignore", "a.lock", "a.txt", "b.txt", "build/ü.txt", "link"]
    assert repository.git(f"--git-dir={found.path}", "show", "main:a.txt") == "changed\n"


def test_what_is_neither_folder_nor_url_is_named(tmp_path):
    with pytest.raises(DemoError, match="neither a folder nor a URL"):
        repository.prepare(str(tmp_path / "nothing"), tmp_path / "clones")


def test_a_push_adds_the_branch_and_leaves_the_checkout_alone(source, tmp_path):
    found = repository.prepare(str(source), tmp_path / "clones")
    repository.git(f"--git-dir={found.path}", "branch", "omoios/x", "trunk~1")
    first, second = repository.git("-C", str(source), "rev-list", "--reverse", "trunk").split()
    assert repository.contains(found, "omoios/x", first)
    assert not repository.contains(found, "omoios/x", second)
    (source / "a.txt").write_text("being changed\n")
    repository.push(found, "omoios/x")
    shown = repository.git("-C", str(source), "for-each-ref", "--format=%(refname:short)", "refs/heads").split()
    assert shown == ["omoios/x", "trunk"]
    assert (source / "a.txt").read_text() == "being changed\n"


def test_what_was_pushed_there_by_others_is_not_overwritten(source, tmp_path):
    found = repository.prepare(str(source), tmp_path / "clones")
    repository.git(f"--git-dir={found.path}", "branch", "omoios/x", "trunk~1")
    repository.git("-C", str(source), "branch", "omoios/x", "trunk")
    with pytest.raises(DemoError, match="rejected"):
        repository.push(found, "omoios/x")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("/srv/omoios", "omoios"),
        ("https://host/a/b.git", "b"),
        ("git@host:a/my repo.git/", "my-repo"),
        ("/", "repository"),
    ],
)
def test_names_of_repositories(given, name):
    assert repository.name_of(given) == name


def test_credentials_of_a_url_are_not_shown():
    assert repository.without_credentials("https://ada:secret@host/a.git") == "https://host/a.git"
    assert repository.is_url("git@host:a/b.git")
    assert not repository.is_url("/srv/a")


def test_tools_are_there_and_run_as_anybody(tmp_path):
    folder = sandbox_tools.prepare(tmp_path / "tools")
    again = sandbox_tools.prepare(tmp_path / "tools")
    assert folder == again
    for name, argument in (("ruff", "--version"), ("python3", "--version")):
        done = subprocess.run([folder / name, argument], capture_output=True, text=True, check=True)
        assert name.removesuffix("3") in done.stdout.lower()
    assert (folder / "ruff").stat().st_mode & 0o005 == 0o005
    if os.geteuid() == 0:
        assert sandbox_tools.open_to_all((folder / "python3").resolve())


def test_a_program_below_a_closed_folder_is_not_open(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "program"
    program.write_text("")
    program.chmod(0o755)
    assert not sandbox_tools.open_to_all(program)
    assert sandbox_tools.open_to_all(Path("/bin/sh").resolve())


def plain_screen():
    text = io.StringIO()
    return Screen(Console(file=text, width=200), plain=True), text


def test_plain_output_is_one_line_for_each_change():
    screen, text = plain_screen()
    waiting = TaskLine("A", "First", "waiting", 0, [])
    with screen.running(), screen.step("work", "working") as step:
        screen.tasks([waiting])
        screen.tasks([waiting])
        screen.tasks([TaskLine("A", "First", "retry", 1, [], "Command failed")])
        screen.event("agent.output x", loud=False)
        screen.event("TASK_COMPLETED First", loud=True)
        step.done("all done")
    lines = [line.partition("] ")[2] for line in text.getvalue().splitlines()]
    assert lines[:4] == [
        "work: working",
        "task A: waiting",
        "task A: retry, attempt 1 Command failed",
        "event TASK_COMPLETED First",
    ]
    assert lines[4].startswith("work: all done (")
    assert len(lines) == 5


def test_the_picture_on_a_terminal_shows_steps_tasks_and_events():
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    screen = Screen(console, plain=False)
    with screen.running():
        with screen.step("stack", "starting") as step:
            step.done("up")
        with screen.step("work", "working"):
            screen.tasks([TaskLine("A", "First", "running", 2, ["B"])])
            screen.event("TASK_STARTED First", loud=True)
            shown = Console(file=io.StringIO(), width=120, record=True)
            shown.print(screen._picture())
            text = shown.export_text()
    for part in ("stack", "up", "working", "A", "running", "2", "First", "TASK_STARTED"):
        assert part in text


@pytest.mark.parametrize(
    ("status", "merge", "shown"),
    [
        ("pending", "none", "waiting"),
        ("assigned", "none", "running"),
        ("running", "none", "running"),
        ("completed", "pending", "merging"),
        ("completed", "conflicted", "conflict"),
        ("completed", "failed", "merge failed"),
        ("completed", "merged", "completed"),
        ("completed", "none", "completed"),
        ("failed", "none", "failed"),
    ],
)
def test_states_of_tasks(status, merge, shown):
    assert state_of({"status": status, "merge_state": merge}) == shown


def test_headlines_and_problems_in_words():
    assert state_of(None) == "waiting"
    assert headline({"line": "hello", "title": "t"}) == "hello"
    assert headline({"input": {"command": "make test\nmore"}}) == "make test"
    assert headline({"n": 1}) == ""
    assert spoken("text") == "text"
    assert spoken([{"msg": "line 3: wrong"}, {"msg": "line 4: too"}]) == "\n  line 3: wrong\n  line 4: too"


def test_a_branch_that_conflicted_counts_by_the_one_that_resolved_it():
    task = {"title": "t", "status": "completed", "merge_state": "merged", "resolution_task_id": None}
    conflicted = {**task, "resolution_task_id": "r"}
    assert merged_by_themselves([task, conflicted, {**task, "merge_state": "none"}]) == [task]
    assert still_open([task, {**task, "merge_state": "pending"}]) == ["t (merging)"]
