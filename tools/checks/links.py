"""Relative links in Markdown files lead to something that is there."""

from __future__ import annotations

import re
from pathlib import Path

from tools.checks.source import Finding, files, relative

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def check(root: Path) -> list[Finding]:
    findings = []
    for path in files(root, ".md"):
        where = relative(root, path)
        if where.startswith("examples/"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for target in LINK.findall(line):
                place = target.split("#")[0]
                if not place or re.match(r"[a-z]+:", place):
                    continue
                if not (path.parent / place).exists():
                    findings.append(Finding(where, number, f"link to {place}, which is not there"))
    return findings
