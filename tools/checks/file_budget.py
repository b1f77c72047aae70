"""A source file over 300 lines is a warning, over 500 a failure: split it by use case.

Generated code and migrations are exempt.
"""

from __future__ import annotations

from pathlib import Path

from tools.checks.source import GENERATED, Finding, files, relative

WARN, FAIL = 300, 500


def check(root: Path) -> list[Finding]:
    findings = []
    for path in files(root, ".py", ".proto", ".sh"):
        where = relative(root, path)
        if where.startswith(GENERATED) or "/migrations/" in where:
            continue
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > WARN:
            findings.append(
                Finding(where, lines, f"{lines} lines (budget {WARN}, limit {FAIL})", warning=lines <= FAIL)
            )
    return findings
