"""Plans, environments, git's configuration, phases and activity."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_service.claims import rules as claim_rules
from agents_service.engines import rules as engine_rules
from agents_service.runners import rules as runner_rules
from agents_service.runners.rules import Standing, Verdict
from agents_service.runners.settings_adapters import to_hide
from agents_service.sandboxes import rules as sandbox_rules

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"engine": "command", "commands": ["true"]}, None),
        ({"commands": ["true"]}, None),
        ({"engine": "cli", "template": "x {prompt_file}"}, None),
        ({"engine": "cli"}, "The cli engine needs a command template."),
        ({"engine": "model"}, "This runner has no engine named 'model'."),
        ({}, "The command engine needs a list of commands."),
        ({"commands": "true"}, "The command engine needs a list of commands."),
        ({"commands": ["true", " "]}, "Each command must be a text that is not empty."),
        ({"commands": [1]}, "Each command must be a text that is not empty."),
    ],
)
def test_plans(config: dict[str, object], error: str | None) -> None:
    assert engine_rules.plan_of({"id": "t", "execution_config": config}, {}).error == error


def test_a_command_sees_nothing_of_the_runner() -> None:
    plan = engine_rules.plan_of(
        {"execution_config": {"commands": ["x"], "env": {"A": 1, "LD_PRELOAD": "x", "GIT_DIR": "x", "OMOIOS_X": "x"}}},
        {},
    )
    found = engine_rules.environment_of(
        {"PATH": "/bin", "OMOIOS_RUNNER_TOKEN": "secret", "AWS_KEY": "secret", "HOME": "/root"},
        plan.environment,
        home="/h",
        tmp="/t",
        ids={"OMOIOS_TASK_ID": "t"},
    )
    assert "secret" not in found.values()
    assert "x" not in found.values()
    assert (found["HOME"], found["PATH"], found["A"], found["OMOIOS_TASK_ID"]) == ("/h", "/bin", "1", "t")


@given(st.binary(max_size=30_000))
def test_no_byte_of_a_line_is_lost(line: bytes) -> None:
    pieces = engine_rules.split_line(line)
    assert all(len(text) <= engine_rules.MAX_LINE_BYTES for text, _ in pieces)
    assert [continued for _, continued in pieces] == [True] * (len(pieces) - 1) + [False]
    if line.isascii() and b"\x00" not in line:
        assert "".join(text for text, _ in pieces).encode() == line


def test_bubblewrap_hides_and_binds_in_this_order() -> None:
    argv = engine_rules.bubblewrap(["sh", "-c", "x"], workdir="/w/a/work", home="/w/a/home", hidden=("/w", "/root"))
    text = " ".join(argv)
    assert text.startswith("bwrap --die-with-parent --unshare-pid")
    assert text.index("--tmpfs /w") < text.index("--bind /w/a/work /w/a/work")
    assert argv[-4:] == ["--", "sh", "-c", "x"]
    assert "--unshare-net" not in argv
    alone = engine_rules.bubblewrap(["x"], workdir="/w", home="/h", hidden=(), network=False)
    assert alone.index("--unshare-net") < alone.index("--ro-bind")


def test_paths_in_a_template_are_quoted() -> None:
    assert engine_rules.fill_template("c {prompt_file} {other}", "/a b/p;x", "/w") == "c '/a b/p;x' {other}"


def test_errors_of_commands() -> None:
    outcome = engine_rules.CommandOutcome
    assert engine_rules.error_of([]) is None
    assert engine_rules.error_of([outcome("a", 0, 1)]) is None
    assert engine_rules.error_of([outcome("a", 0, 1), outcome("b", 2, 1)]) == "Command failed with exit code 2: b"
    assert engine_rules.error_of([outcome("b", -9, 1)]) == "Command ended by signal 9: b"
    assert engine_rules.error_of([outcome("b", 0, 1, "Stopped")]) == "Stopped: b"


def test_verdicts() -> None:
    assert runner_rules.verdict(201) is Verdict.DONE
    assert {runner_rules.verdict(code) for code in (401, 403, 404, 409, 410)} == {Verdict.OVER}
    assert {runner_rules.verdict(code) for code in (408, 429, 500, 502, 503, 504)} == {Verdict.RETRY}
    assert {runner_rules.verdict(code) for code in (400, 413, 422)} == {Verdict.REFUSED}
    assert [runner_rules.backoff_s(n) for n in (0, 1, 5, 99)] == [0.25, 0.5, 5.0, 5.0]


def test_git_sends_the_token_to_one_url_in_a_header_only() -> None:
    key, value = runner_rules.authorization("https://h/x.git", "secret")
    assert key == "http.https://h/x.git.extraHeader"
    assert base64.b64decode(value.removeprefix("Authorization: Basic ")) == b"sandbox:secret"
    environment = runner_rules.git_environment("/h", [(key, value)])
    pairs = {
        environment[f"GIT_CONFIG_KEY_{n}"]: environment[f"GIT_CONFIG_VALUE_{n}"]
        for n in range(int(environment["GIT_CONFIG_COUNT"]))
    }
    assert pairs["core.hooksPath"] == "/dev/null"
    assert pairs["protocol.allow"] == "never"
    assert pairs[key] == value
    assert environment["GIT_CONFIG_GLOBAL"] == "/dev/null"


@pytest.mark.parametrize(
    ("url", "branch", "sha", "usable"),
    [
        ("http://h/x.git", "omoios/task-1", "a" * 40, True),
        ("http://h/x.git", "omoios/task-1", "", True),
        ("file:///x", "b", "", False),
        ("ext::sh -c x", "b", "", False),
        ("ssh://h/x", "b", "", False),
        ("http://user:pw@h/x.git", "b", "", False),
        ("http://h/x.git", "--upload-pack=x", "", False),
        ("http://h/x.git", "a..b", "", False),
        ("http://h/x.git", "a b", "", False),
        ("http://h/x.git", "b", "HEAD", False),
    ],
)
def test_repository_access_is_checked(url: str, branch: str, sha: str, usable: bool) -> None:
    assert (runner_rules.check_repository(url, branch, sha) is None) is usable


def test_the_commit_message_names_task_and_ticket() -> None:
    message = runner_rules.commit_message({"id": "t-1", "ticket_id": "k-1", "title": "Do\n it"})
    assert message == "Do it\n\nTask: t-1\nTicket: k-1\n"


def test_activity_thresholds() -> None:
    def judged(work_s: float | None, beat_s: float | None, status: str, completed_s: float | None = None) -> object:
        return sandbox_rules.activity(
            NOW,
            NOW - timedelta(hours=1),
            NOW - timedelta(seconds=work_s) if work_s is not None else None,
            NOW - timedelta(seconds=beat_s) if beat_s is not None else None,
            f'{{"status": "{status}"}}',
            NOW - timedelta(seconds=completed_s) if completed_s is not None else None,
        )

    assert not judged(1_000, 200, "running").is_idle  # type: ignore[attr-defined]
    stuck = judged(1_000, 10, "running")
    assert stuck.is_stuck_running  # type: ignore[attr-defined]
    assert not judged(800, 10, "running").is_idle  # type: ignore[attr-defined]
    assert not judged(None, 10, "running").is_idle  # type: ignore[attr-defined]
    assert judged(None, 10, "waiting").is_idle  # type: ignore[attr-defined]
    assert judged(700, 10, "waiting").is_idle  # type: ignore[attr-defined]
    assert not judged(700, 10, "waiting", completed_s=600).is_idle  # type: ignore[attr-defined]


def test_phases_stuck_between() -> None:
    happened = [
        ("spec.phase_started", '{"phase": "explore"}', NOW - timedelta(seconds=900)),
        ("spec.phase_completed", '{"phase": "explore"}', NOW - timedelta(seconds=400)),
    ]
    found = sandbox_rules.phase_status("spec-1", happened, NOW, alive=True)
    assert (found.next_expected_phase, found.is_stuck_between_phases) == ("prd", True)
    going_on = [*happened, ("spec.phase_started", '{"phase": "prd"}', NOW)]
    assert not sandbox_rules.phase_status("spec-1", going_on, NOW, alive=True).is_stuck_between_phases
    over = [*happened, ("spec.execution_completed", "{}", NOW)]
    assert sandbox_rules.phase_status("spec-1", over, NOW, alive=True).has_execution_completed


@pytest.mark.parametrize(
    ("status", "attempt", "sandbox", "reason"),
    [
        (None, 1, "s", "terminated"),
        ("running", 2, "other", "lost"),
        ("running", 1, "other", "lost"),
        ("running", 1, "s", None),
        ("completed", 1, "s", "completed"),
        ("failed", 1, "s", "failed"),
        ("cancelled", 1, "s", "cancelled"),
        ("pending", 1, "", "lost"),
    ],
)
def test_how_a_silent_sandbox_ends(status: str | None, attempt: int, sandbox: str, reason: str | None) -> None:
    assert sandbox_rules.reason_after(status, attempt, sandbox, 1, "s") == reason


def test_what_a_claim_offers() -> None:
    assert claim_rules.labels_of(["Python"], [" python", "GPU", ""]) == ["gpu", "python"]
    assert claim_rules.needs_repository({}, True)
    assert not claim_rules.needs_repository({"needs_repository": False}, True)
    assert not claim_rules.needs_repository({}, False)
    assert claim_rules.engine_of({"engine": "cli"}) == "cli"
    assert claim_rules.engine_of({}) == "command"


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ((), ()),
        (("/a", "/a"), ("/a",)),
        (("/a/b", "/a", "/c"), ("/a", "/c")),
        (("/", "/a"), ("/a",)),
        (("/ab", "/a"), ("/a", "/ab")),
    ],
)
def test_folders_are_hidden_once_and_never_the_whole_machine(paths: tuple[str, ...], found: tuple[str, ...]) -> None:
    assert to_hide(Path(path) for path in paths) == found


@pytest.mark.parametrize(
    ("status", "agent_status", "standing"),
    [
        (200, "", Standing.ACTIVE),
        (503, "", Standing.ACTIVE),
        (429, "", Standing.ACTIVE),
        (401, "", Standing.GONE),
        (404, "", Standing.GONE),
        (409, "FAILED", Standing.GONE),
        (409, "TERMINATED", Standing.GONE),
        (409, "DEGRADED", Standing.WAITING),
        (409, "QUARANTINED", Standing.WAITING),
        (409, "", Standing.WAITING),
    ],
)
def test_only_an_agent_that_nobody_takes_back_is_replaced(status: int, agent_status: str, standing: Standing) -> None:
    assert runner_rules.standing(status, agent_status) is standing


def test_a_long_command_is_told_in_short() -> None:
    short = engine_rules.CommandOutcome("true", 1, 5)
    assert short.as_dict()["command"] == "true"
    long = engine_rules.CommandOutcome("x" * 100_000, 1, 5)
    assert long.as_dict()["command"] == "x" * 8_000 + "… (92000 more characters)"
    error = engine_rules.error_of([long])
    assert error is not None
    assert len(error) < 8_100
