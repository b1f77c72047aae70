"""Pure rules of repositories, pushes, branch names and git's output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcs_service.branch_workflow import rules as branch_rules
from vcs_service.commits import rules as commit_rules
from vcs_service.merging import rules as merge_rules
from vcs_service.mirror import rules

OLD, NEW = "1" * 40, "2" * 40
REF = "refs/heads/omoios-tasks/task-1/1"


def pkt(line: bytes) -> bytes:
    return f"{len(line) + 4:04x}".encode() + line


def commands(*lines: str) -> bytes:
    return b"".join(pkt(line.encode()) for line in lines) + b"0000"


class TestSource:
    def test_paths_below_an_open_folder_and_urls_pass(self) -> None:
        path = rules.parse_source("/srv/repos/a", roots=["/srv/repos"], allow_plain_http=False)
        assert path.is_path
        assert rules.parse_source("https://example.com/a.git", roots=[], allow_plain_http=False).port == 443
        assert rules.parse_source("http://127.0.0.1:80/a", roots=[], allow_plain_http=True).port == 80
        assert rules.parse_source("https://[2001:db8::1]:8443/a", roots=[], allow_plain_http=False).port == 8443

    @pytest.mark.parametrize(
        "text",
        [
            "/srv/repositories",
            "/srv/repos/../x",
            "/",
            "http://example.com/a",
            "https://",
            "https://example.com:99999/a",
            "ftp://example.com/a",
            "ext::sh",
            "fd::3",
            "x" * 3000,
        ],
    )
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(rules.RefusedURL):
            rules.parse_source(text, roots=["/srv/repos"], allow_plain_http=False)

    @given(st.text(max_size=100))
    def test_any_text_is_a_source_or_refused(self, text: str) -> None:
        try:
            source = rules.parse_source(text, roots=[], allow_plain_http=False)
        except rules.RefusedURL:
            return
        assert source.url.startswith("https://")

    @pytest.mark.parametrize(
        ("address", "public"),
        [
            ("8.8.8.8", True),
            ("2606:4700::1111", True),
            ("127.0.0.1", False),
            ("10.1.2.3", False),
            ("169.254.169.254", False),
            ("100.64.0.1", False),
            ("0.0.0.0", False),
            ("::1", False),
            ("::ffff:127.0.0.1", False),
            ("64:ff9b::7f00:1", False),
            ("fe80::1", False),
            ("224.0.0.1", False),
        ],
    )
    def test_special_addresses_are_not_public(self, address: str, public: bool) -> None:
        assert rules.address_is_public(address) is public


class TestPush:
    def test_commands_are_read_and_their_length_told(self) -> None:
        data = commands(f"{OLD} {NEW} {REF}\0report-status")
        parsed = rules.parse_commands(data + b"PACK...")
        assert parsed == ([rules.RefUpdate(OLD, NEW, REF)], len(data))

    def test_a_shallow_clone_s_boundaries_are_passed_over(self) -> None:
        parsed = rules.parse_commands(commands(f"shallow {OLD}", f"{OLD} {NEW} {REF}"))
        assert parsed is not None
        assert len(parsed[0]) == 1

    @given(st.integers(min_value=0, max_value=200))
    def test_a_part_of_the_commands_wants_more(self, length: int) -> None:
        data = commands(f"{OLD} {NEW} {REF}")
        part = data[: min(length, len(data) - 1)]
        assert rules.parse_commands(part) is None

    @given(st.binary(max_size=300))
    def test_any_bytes_are_read_or_refused(self, data: bytes) -> None:
        try:
            parsed = rules.parse_commands(data)
        except rules.MalformedPush:
            return
        assert parsed is None or parsed[1] <= len(data)

    def test_only_the_allowed_ref_and_no_deletion(self) -> None:
        update = rules.RefUpdate(OLD, NEW, REF)
        assert rules.push_problem([update], [REF]) is None
        assert rules.push_problem([], [REF])
        assert rules.push_problem([update, rules.RefUpdate(OLD, NEW, "refs/heads/main")], [REF])
        assert rules.push_problem([rules.RefUpdate(OLD, rules.ZERO_SHA, REF)], [REF])


class TestNames:
    @pytest.mark.parametrize("name", ["main", "omoios/spec-1", "a", "feature/x.y_z", "a@b"])
    def test_good_branches(self, name: str) -> None:
        assert rules.branch_problem(name) is None

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "-f",
            "a..b",
            "a//b",
            "/a",
            "a/",
            "a.lock",
            "a.lock/b",
            ".a",
            "a/.b",
            "a b",
            "a~1",
            "a@{1}",
            "ä",
            "a" * 201,
        ],
    )
    def test_bad_branches(self, name: str) -> None:
        assert rules.branch_problem(name)

    @given(st.text(max_size=120), st.text(max_size=20), st.text(max_size=20))
    def test_every_title_makes_a_branch_that_git_takes(self, title: str, kind: str, priority: str) -> None:
        name = branch_rules.branch_name("0190a-ticket", title, kind, priority)
        assert rules.branch_problem(name) is None

    def test_prefixes(self) -> None:
        assert branch_rules.branch_name("t", "A b", "BUG", "Critical") == "hotfix/t-a-b"
        assert branch_rules.branch_name("t", "A b", "bug", None) == "fix/t-a-b"
        assert branch_rules.branch_name("t", "", "thing", None) == "feature/t"


class TestGitOutput:
    def test_a_log_is_read(self) -> None:
        output = (
            f"\0{NEW}\x001700000000\0Ada\0Subject\n\nBody\n\0\n3\t1\tsrc/a.py\n-\t-\timage.png\n"
            f"\0{OLD}\x001600000000\0Bob\0First\0\n"
        )
        first, second = commit_rules.parse_log(output)
        assert (first.sha, first.author, first.message) == (NEW, "Ada", "Subject\n\nBody")
        assert (first.insertions, first.deletions, set(first.files)) == (3, 1, {"src/a.py", "image.png"})
        assert second.files == {}

    def test_a_patch_is_split_by_file(self) -> None:
        patch = "diff --git a/x b/x\nindex 1..2\n@@ -1 +1 @@\n-a\n+b\ndiff --git a/y b/y\nBinary files differ\n"
        assert commit_rules.split_patch(patch, 100) == {"x": "@@ -1 +1 @@\n-a\n+b"}
        assert commit_rules.parse_name_status(b"A\0x\0D\0y\0") == {"x": "added", "y": "removed"}


def test_what_is_left_of_a_merge_keeps_its_order() -> None:
    items = [{"task_id": name} for name in ("a", "b", "c")]
    assert merge_rules.remaining(items, [{"task_id": "b"}]) == [{"task_id": "a"}, {"task_id": "c"}]
