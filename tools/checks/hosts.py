"""No tracked file names a package registry's host or a path of the machine it was written on.

Locks without URLs install from whatever index the machine is set up for, mirrors included; a host in a file would
bypass it.
"""

from __future__ import annotations

import re
from pathlib import Path

from tools.checks.source import Finding, files, relative

# Written in parts, because this file is checked as well.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("proxy", "golang", "org"),
        ("rubygems", "org"),
    )
]
REGISTRY = re.compile("|".join(re.escape(host) for host in REGISTRIES), re.IGNORECASE)
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|farm)/|/root/\.|/home/(?!omoios\b)[a-z][\w.-]*/|/Users/\w+/")
LOCKS = {"uv.lock", "pylock.toml"}


def check(root: Path) -> list[Finding]:
    findings = []
    clone = str(root.resolve())
    for path in files(root):
        where = relative(root, path)
        if path.name in LOCKS:
            findings.append(Finding(where, 1, "this lock names registry hosts; the locks of requirements/ do not"))
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            registry, machine = REGISTRY.search(line), MACHINE_PATH.search(line)
            if registry:
                findings.append(Finding(where, number, f"names the registry host {registry.group()}"))
            if machine:
                findings.append(Finding(where, number, f"names a path of one machine: {machine.group()}"))
            elif len(clone) > len("/a/b") and clone in line:
                findings.append(Finding(where, number, "names the folder of this clone"))
    return findings
