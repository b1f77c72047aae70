"""No unfinished marks: what is not done does not land; what remains is an issue, and a comment may cite its number."""

from __future__ import annotations

import re
from pathlib import Path

from tools.checks.source import GENERATED, Finding, files, relative

MARK = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b(?!\(#\d+\))")
RAISE = re.compile(r"\braise Not" r"ImplementedError\b")
TEXT = {".py", ".proto", ".sh", ".yml", ".yaml", ".toml", ".sql", ".md", ".mako", ""}


def check(root: Path) -> list[Finding]:
    findings = []
    for path in files(root, *TEXT):
        where = relative(root, path)
        if where.startswith((GENERATED, "examples/")):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            mark = MARK.search(line)
            if mark:
                findings.append(
                    Finding(where, number, f"{mark.group(1)} without an issue number, as in {mark.group(1)}(#12)")
                )
            if path.suffix == ".py" and RAISE.search(line):
                findings.append(Finding(where, number, "a method that is not there yet must not land"))
    return findings
