"""Decisions about results."""

from __future__ import annotations

from servicekit.errors import invalid

RESULT_TYPES = ("implementation", "analysis", "fix", "design", "test", "documentation")
MAX_BYTES = 102_400


def check_path(path: str) -> None:
    """A markdown file without a step upwards; it is the agent's own name for it and is never read here."""
    if not path.endswith(".md"):
        raise invalid("markdown_file_path", "must end with .md", path)
    if ".." in path:
        raise invalid("markdown_file_path", "must not contain '..'", path)


def check_content(content: str) -> None:
    """At most 100 KiB."""
    if len(content.encode()) > MAX_BYTES:
        raise invalid("markdown_content", f"has at most {MAX_BYTES} bytes")


def decided(passed: bool) -> str:
    """The status of a result after its validation."""
    return "validated" if passed else "rejected"
